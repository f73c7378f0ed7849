"""Facts that the model refuses: tried again, given up with the reason, and no burden to the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import UnavailableError
from knowledge_base.interfaces.cli import main
from knowledge_base.keyspace import Keyspace
from knowledge_base.settings import BreakerSettings, EmbeddingSettings, IndexingSettings, Settings
from tests.support.control import Control
from tests.support.facts import found, only
from tests.support.polling import eventually

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.embeddings import AsyncStubEmbedding, StubEmbedding
    from tests.support.poison import PoisonedEmbedding

POISON = "plutonium"
SOON = IndexingSettings(attempts=2, retry_after=0.05, longest_pause=0.1)
IMPATIENT = BreakerSettings(reset_after=0.1)
WITHIN = 60.0


@pytest.fixture
def model() -> PoisonedEmbedding:
    from tests.support.poison import PoisonedEmbedding

    one = PoisonedEmbedding(model_name="stub")
    one.refuse(POISON)
    return one


@pytest.fixture
async def kb(open_kb: Any, model: PoisonedEmbedding) -> KnowledgeBase:
    """A base that gives up soon, with one fact."""
    one: KnowledgeBase = open_kb(model, indexing=SOON, breaker=IMPATIENT)
    await one.store_fact("walruses dive", fact_id="w")
    return one


def parks(kb: KnowledgeBase, number: int = 1) -> Callable[[], Any]:
    async def check() -> bool:
        return (await kb.get_stats())["parked"] == number

    return check


def is_indexed(kb: KnowledgeBase, fact_id: str) -> Callable[[], Any]:
    async def check() -> bool:
        return bool((await only(kb, fact_id))["indexed"])

    return check


async def breaker_state(kb: KnowledgeBase, name: str) -> str:
    stats = await kb.get_detailed_stats()
    return next(breaker["state"] for breaker in stats["breakers"] if breaker["name"] == name)


async def test_refused_fact_is_stored_tried_and_given_up(kb: KnowledgeBase, model: PoisonedEmbedding) -> None:
    stored = await kb.store_fact(f"reactors want {POISON}", fact_id="p")
    await eventually(parks(kb), WITHIN)

    report = await kb.check_integrity()

    assert (stored["status"], stored["indexed"]) == ("success", False)
    (parked,) = report["parked"]
    assert (parked["id"], parked["attempts"]) == ("p", 2)
    assert "ValueError" in parked["reason"]
    assert POISON not in parked["reason"]
    assert (report["ok"], report["repaired"], report["facts"], report["pending"]) == (False, 0, 2, 0)
    stats = await kb.get_stats()
    assert (stats["facts"], stats["pending"], stats["parked"]) == (2, 0, 1)
    assert await found(kb, "reactors", mode="text") == ["p"]
    assert (await only(kb, "p"))["indexed"] is False


async def test_one_refused_fact_does_not_hold_up_forty_good_ones(kb: KnowledgeBase) -> None:
    facts = [{"content": f"penguin number {n}", "fact_id": f"f{n:02d}"} for n in range(40)]
    facts.insert(0, {"content": f"penguins and {POISON}", "fact_id": "a-poison"})

    result = await kb.store_facts(facts)
    await eventually(parks(kb), WITHIN)

    async def settled() -> bool:
        return (await kb.get_stats())["pending"] == 0

    await eventually(settled, WITHIN)
    assert (result["succeeded"], result["failed"]) == (41, [])
    good = {f"f{n:02d}" for n in range(40)}
    assert good == set(await found(kb, "penguin number", mode="vector", top_k=100)) - {"w"}
    assert [fact["id"] for fact in (await kb.check_integrity())["parked"]] == ["a-poison"]
    assert await breaker_state(kb, "embedding") == "closed"
    assert await breaker_state(kb, "Redis") == "closed"


async def test_repair_tries_again_what_was_given_up(kb: KnowledgeBase, model: PoisonedEmbedding) -> None:
    await kb.store_fact(f"reactors want {POISON}", fact_id="p")
    await eventually(parks(kb), WITHIN)
    model.refuse("")

    report = await kb.check_integrity(repair=True)

    assert report["repaired"] == 1
    assert [fact["id"] for fact in report["parked"]] == ["p"]
    await eventually(is_indexed(kb, "p"), WITHIN)
    after = await kb.check_integrity()
    assert (after["ok"], after["parked"], after["pending"]) == (True, [], 0)
    assert (await found(kb, "reactors", mode="vector"))[0] == "p"


async def test_repair_that_is_in_vain_ends_where_it_began(kb: KnowledgeBase, model: PoisonedEmbedding) -> None:
    await kb.store_fact(f"reactors want {POISON}", fact_id="p")
    await eventually(parks(kb), WITHIN)
    asked = len(model.texts)

    await kb.check_integrity(repair=True)

    await eventually(lambda: len(model.texts) > asked, WITHIN)
    await eventually(parks(kb), WITHIN)
    (parked,) = (await kb.check_integrity())["parked"]
    assert (parked["id"], parked["attempts"]) == ("p", 2)


async def test_update_of_what_was_given_up_tries_the_new_content(kb: KnowledgeBase) -> None:
    await kb.store_fact(f"reactors want {POISON}", fact_id="p")
    await eventually(parks(kb), WITHIN)

    await kb.update_fact("p", content="reactors want water")

    await eventually(is_indexed(kb, "p"), WITHIN)
    stats = await kb.get_stats()
    assert (stats["parked"], stats["pending"]) == (0, 0)


async def test_deletion_of_what_was_given_up_takes_it_off_the_list(kb: KnowledgeBase) -> None:
    await kb.store_fact(f"reactors want {POISON}", fact_id="p")
    await eventually(parks(kb), WITHIN)

    await kb.delete_fact("p")

    report = await kb.check_integrity(repair=True)
    assert (report["parked"], report["repaired"], report["pending"], report["facts"]) == ([], 0, 0, 1)


async def test_model_that_is_away_counts_no_attempt(
    open_kb: Any, stub_embedding: StubEmbedding, control: Control, namespace: str
) -> None:
    kb = open_kb(indexing=IndexingSettings(attempts=1), breaker=IMPATIENT)
    await kb.store_fact("walruses dive", fact_id="w")
    stub_embedding.become("failing")
    await kb.store_facts({"content": f"penguin {n}", "fact_id": f"f{n}"} for n in range(3))
    asked = len(stub_embedding.texts)

    await eventually(lambda: len(stub_embedding.texts) >= asked + 3, WITHIN)
    keys = Keyspace(namespace)
    left = control.run("HLEN", keys.attempts), control.run("HLEN", keys.parked), control.run("ZCARD", keys.pending)
    stub_embedding.become("well")

    assert left == (0, 0, 3)
    for number in range(3):
        await eventually(is_indexed(kb, f"f{number}"), WITHIN)


async def test_nothing_is_embedded_twice_however_long_it_takes(
    open_kb: Any, async_embedding: AsyncStubEmbedding, control: Control, namespace: str
) -> None:
    lease = IndexingSettings(lease=1.0)
    first, second = (open_kb(async_embedding, indexing=lease) for _ in range(2))
    await first.store_fact("walruses dive", fact_id="w")
    await second.start()
    async_embedding.become("hanging")
    await first.store_fact("penguins swim", fact_id="p", wait_indexed=False)
    waiting = asyncio.create_task(first.store_fact("puffins fly", fact_id="f"))
    await eventually(lambda: {"penguins swim", "puffins fly"} <= set(async_embedding.texts), WITHIN)
    renewed: dict[str, set[float]] = {"p": set(), "f": set()}

    def renewed_often() -> bool:
        for fact_id, seen in renewed.items():
            seen.add(float(control.run("ZSCORE", Keyspace(namespace).pending, fact_id)))
        return all(len(seen) > 4 for seen in renewed.values())

    await eventually(renewed_often, WITHIN)
    async_embedding.become("well")

    assert (await waiting)["indexed"] is True
    await eventually(is_indexed(first, "p"), WITHIN)
    times = Counter(async_embedding.texts)
    assert (times["penguins swim"], times["puffins fly"]) == (1, 1)


async def test_two_processes_share_what_was_left_and_embed_nothing_twice(
    open_kb: Any, stub_embedding: StubEmbedding
) -> None:
    from tests.support.embeddings import StubEmbedding

    left = open_kb(embedding=EmbeddingSettings(dimension=32))
    stub_embedding.become("failing")
    contents = [f"penguin number {n}" for n in range(120)]
    await left.store_facts({"content": content} for content in contents)
    await left.close()
    models = [StubEmbedding(model_name="stub") for _ in range(2)]
    bases: list[KnowledgeBase] = [open_kb(model) for model in models]

    await asyncio.gather(*(base.start() for base in bases))

    async def settled() -> bool:
        return (await bases[0].get_stats())["pending"] == 0

    await eventually(settled, WITHIN)
    times = Counter(text for model in models for text in model.texts if text in contents)
    assert times == Counter(contents)


def test_check_command_lists_what_was_given_up_and_puts_it_back(
    settings: Settings, redis_url: str, namespace: str, model: PoisonedEmbedding, capsys: pytest.CaptureFixture[str]
) -> None:
    from knowledge_base import KnowledgeBase

    async def park() -> None:
        async with KnowledgeBase(settings.model_copy(update={"indexing": SOON}), embed_model=model) as base:
            await base.store_fact(f"reactors want {POISON}", fact_id="p")
            await eventually(parks(base), WITHIN)

    asyncio.run(park())
    where = ["--redis-url", redis_url, "--namespace", namespace]

    assert main(["check", *where]) == 1
    listed = capsys.readouterr().out
    assert main(["check", "--repair", *where]) == 0
    repaired = capsys.readouterr().out
    assert main(["check", *where]) == 0

    assert "1 facts, 0 documents, 0 wait for their vectors, 1 were given up" in listed
    assert "ValueError" in listed
    assert "1 of 1 mended" in repaired


async def test_check_of_an_empty_namespace_finds_nothing(stub_kb: KnowledgeBase, namespace: str) -> None:
    calls: list[tuple[int, int]] = []

    report = await stub_kb.check_integrity(progress=lambda done, total: calls.append((done, total)))

    assert report == {
        "namespace": namespace,
        "facts": 0,
        "documents": 0,
        "pending": 0,
        "parked": [],
        "findings": {},
        "examples": [],
        "repaired": 0,
        "ok": True,
    }
    assert calls == [(0, 0)]


async def test_check_is_the_namespace_s_own(kb: KnowledgeBase, namespace: str) -> None:
    await kb.store_fact(f"reactors want {POISON}", fact_id="p")
    await eventually(parks(kb), WITHIN)

    elsewhere = await kb.check_integrity(namespace=f"{namespace}:other", repair=True)

    assert (elsewhere["ok"], elsewhere["repaired"]) == (True, 0)
    assert (await kb.check_integrity())["ok"] is False


async def test_check_keeps_to_its_timeout(kb: KnowledgeBase) -> None:
    with pytest.raises(UnavailableError):
        await kb.check_integrity(timeout=1e-9)
