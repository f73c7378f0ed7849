"""The integrity check: finds exactly what is damaged, mends what can be mended, and nothing else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.support.bookkeeping import Bookkeeping, settles
from tests.support.damage import DAMAGES, FACTS, LASTING, Damaged
from tests.support.facts import found
from tests.support.polling import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knowledge_base import KnowledgeBase
    from tests.support.control import Control

WITHIN = 60.0
SEARCHES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("walruses ice", {"filters": {"tags": "cold"}}),
    ("penguins", {"principals": ["ann"]}),
    ("terns", {"filters": {"source": "book"}}),
)


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    yield client
    client.close()


@pytest.fixture
async def filled(stub_kb: KnowledgeBase) -> KnowledgeBase:
    await stub_kb.store_facts(FACTS)
    await stub_kb.update_fact("q", content="puffins dive")
    return stub_kb


@pytest.fixture
def damaged(raw: redis.Redis, namespace: str) -> Damaged:
    return Damaged(raw, namespace)


async def everything(kb: KnowledgeBase) -> Any:
    facts = [fact async for fact in kb.iter_facts(principals=["ann"])]
    shown = [sorted(await found(kb, query, mode=mode, **scope)) for query, scope in SEARCHES for mode in _MODES]
    stats = await kb.get_detailed_stats()
    counts = [stats[name] for name in ("facts", "passages", "pending", "parked", "tags", "sources")]
    return sorted(facts, key=lambda fact: fact["id"]), shown, counts


_MODES: tuple[Any, ...] = ("text", "vector", "hybrid")


async def nothing_pending(kb: KnowledgeBase) -> bool:
    return (await kb.get_stats())["pending"] == 0


async def test_whole_base_is_found_to_be_whole(filled: KnowledgeBase, control: Control, namespace: str) -> None:
    before = control.dump(namespace)

    report = await filled.check_integrity()

    assert (report["findings"], report["examples"], report["repaired"], report["ok"]) == ({}, [], 0, True)
    assert (report["facts"], report["documents"], report["pending"], report["parked"]) == (len(FACTS), 0, 0, [])
    assert control.dump(namespace) == before


async def test_repair_of_a_whole_base_changes_nothing(filled: KnowledgeBase, control: Control, namespace: str) -> None:
    before = control.dump(namespace)

    report = await filled.check_integrity(repair=True)

    assert (report["findings"], report["repaired"], report["ok"]) == ({}, 0, True)
    assert control.dump(namespace) == before


@pytest.mark.parametrize("what", DAMAGES)
async def test_damage_is_found_and_mended(
    filled: KnowledgeBase, damaged: Damaged, control: Control, namespace: str, what: str
) -> None:
    whole = await everything(filled)
    damage = DAMAGES[what]
    damage.work(damaged)
    as_damaged = control.dump(namespace)

    checked = await filled.check_integrity()
    untouched = control.dump(namespace)
    repaired = await filled.check_integrity(repair=True)
    await eventually(lambda: nothing_pending(filled), WITHIN)
    mended = control.dump(namespace)
    again = await filled.check_integrity(repair=True)

    assert checked["findings"] == damage.findings
    assert {example["id"] for example in checked["examples"] if "id" in example} == set(damage.names)
    assert (checked["repaired"], checked["ok"]) == (0, False)
    assert untouched == as_damaged
    assert (repaired["repaired"], repaired["ok"]) == (sum(damage.findings.values()), True)
    assert repaired["findings"] == damage.findings
    assert (again["findings"], again["repaired"], again["ok"]) == ({}, 0, True)
    assert control.dump(namespace) == mended
    assert await everything(filled) == whole
    assert await settles(damaged.raw, namespace, WITHIN) == []


@pytest.mark.parametrize("what", LASTING)
async def test_what_cannot_be_mended_is_told_and_left(
    filled: KnowledgeBase, damaged: Damaged, control: Control, namespace: str, what: str
) -> None:
    damage = LASTING[what]
    damage.work(damaged)
    before = control.dump(namespace)

    checked = await filled.check_integrity()
    repaired = await filled.check_integrity(repair=True)

    for report in (checked, repaired):
        assert report["findings"] == damage.findings
        assert (report["repaired"], report["ok"]) == (0, False)
    assert control.dump(namespace) == before


async def test_lost_record_leaves_nothing_behind(filled: KnowledgeBase, damaged: Damaged, namespace: str) -> None:
    damaged.raw.delete(damaged.keys.fact("long"))

    checked = await filled.check_integrity()
    repaired = await filled.check_integrity(repair=True)

    assert checked["findings"] == repaired["findings"]
    assert checked["findings"]["stray_parts"] > 2
    assert checked["findings"]["stray_entries"] == 3
    assert repaired["ok"]
    assert (await filled.check_integrity())["ok"]
    assert Bookkeeping(damaged.raw, namespace).faults() == []
    assert (await filled.get_stats())["facts"] == len(FACTS) - 1
    assert "long" not in await found(filled, "walruses ice")


async def test_examples_are_few_and_name_what_was_found(filled: KnowledgeBase, damaged: Damaged) -> None:
    for number in range(30):
        damaged.copy(damaged.parts("q")[0], f"passage:1:gone{number}:1-abc-1:0")

    report = await filled.check_integrity()

    assert report["findings"] == {"stray_parts": 30}
    assert len(report["examples"]) == 10
    assert all(example["key"].startswith(damaged.keys.passages(1)) for example in report["examples"])


async def test_what_is_on_its_way_is_no_finding(
    filled: KnowledgeBase, damaged: Damaged, control: Control, namespace: str
) -> None:
    raw, keys = damaged.raw, damaged.keys
    # Vectors of an update that is not switched to, parts of a document that is being written and of one that is being
    # removed, a generation that is being built and one that waits for its end.
    for name in ("passage:1:q:9-abc-1:0", "passage:1:new:1-abc-1:0", "passage:1:old:1-abc-1:0"):
        damaged.copy(damaged.parts("w")[0], name)
    raw.zadd(keys.inserts, {"q:9-abc-1": 9_999_999_999_999})
    raw.zadd(keys.staged, {"1:new:1-abc-1": 9_999_999_999_999})
    raw.zadd(keys.leftovers, {"1:old:1-abc-1": 9_999_999_999_999})
    raw.hset(keys.document("new"), "1-abc-1:0", "x")
    raw.hset(keys.rebuild, mapping={"number": "5", "owner": "x"})
    raw.zadd(keys.retired, {"4:1": 9_999_999_999_999})
    damaged.copy(damaged.parts("q")[0], "passage:5:q:1-abc-1:0")
    damaged.copy(damaged.parts("q")[0], "passage:4:q:1-abc-1:0")
    before = control.dump(namespace)

    report = await filled.check_integrity(repair=True)

    assert (report["findings"], report["ok"]) == ({}, True)
    assert control.dump(namespace) == before


async def test_other_namespaces_are_left_alone(
    filled: KnowledgeBase, damaged: Damaged, control: Control, namespace: str
) -> None:
    other = f"{namespace}x"
    await filled.store_facts(FACTS, namespace=other)
    Damaged(damaged.raw, other).raw.delete(Damaged(damaged.raw, other).parts("q")[0])
    before = control.dump(other)

    report = await filled.check_integrity(repair=True)

    assert report["ok"]
    assert report["findings"] == {}
    assert control.dump(other) == before


async def test_two_repairs_at_the_same_time_mend_once(filled: KnowledgeBase, open_kb: Any, damaged: Damaged) -> None:
    whole = await everything(filled)
    other: KnowledgeBase = open_kb()
    for what, damage in DAMAGES.items():
        # What is gone cannot be damaged once more.
        if not what.startswith(("the index", "the record", "both indices", "all parts")):
            damage.work(damaged)

    await asyncio.gather(filled.check_integrity(repair=True), other.check_integrity(repair=True))
    await eventually(lambda: nothing_pending(filled), WITHIN)
    # Two at once may leave each other something.
    last = await filled.check_integrity(repair=True)

    assert last["ok"]
    assert (await filled.check_integrity())["findings"] == {}
    assert await everything(filled) == whole


async def test_two_repairs_at_the_same_time_make_one_index(
    filled: KnowledgeBase, open_kb: Any, damaged: Damaged, control: Control, namespace: str
) -> None:
    whole = await everything(filled)
    other: KnowledgeBase = open_kb()
    DAMAGES["the index looks at other keys"].work(damaged)

    await asyncio.gather(filled.check_integrity(repair=True), other.check_integrity(repair=True))

    assert (await filled.check_integrity())["ok"]
    assert len(control.indexes(namespace)) == 2
    assert await everything(filled) == whole


async def test_progress_ends_with_all_of_them(filled: KnowledgeBase) -> None:
    calls: list[tuple[int, int]] = []

    await filled.check_integrity(progress=lambda done, total: calls.append((done, total)))

    assert calls[-1] == (len(FACTS), len(FACTS))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
