"""Many facts in one call: stored, deleted by filter, iterated."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import InvalidInputError
from knowledge_base.settings import IndexingSettings
from tests.support.cancel_at import MOMENTS, CancelAt, Moment
from tests.support.facts import found, ids
from tests.support.polling import eventually

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase


async def test_thousand_facts_are_stored_and_found(stub_kb: KnowledgeBase) -> None:
    progress: list[tuple[int, int]] = []

    result = await stub_kb.store_facts(
        [{"content": f"penguin number {number}", "fact_id": f"p{number}"} for number in range(1_000)],
        progress=lambda done, total: progress.append((done, total)),
    )

    assert result == {"processed": 1_000, "succeeded": 1_000, "duplicates": 0, "failed": [], "completed": True}
    assert progress[-1] == (1_000, 1_000)
    assert [done for done, _ in progress] == sorted({done for done, _ in progress})
    assert {total for _, total in progress} == {1_000}
    stats = await stub_kb.get_stats()
    assert (stats["facts"], stats["passages"], stats["pending"]) == (1_000, 1_000, 0)
    assert await ids(stub_kb, limit=1_000) == {f"p{number}" for number in range(1_000)}
    assert await found(stub_kb, "777", mode="text") == ["p777"]
    assert len(await found(stub_kb, "penguin number", mode="vector", top_k=1_000)) == 1_000


async def test_one_bad_item_fails_alone_with_its_index(stub_kb: KnowledgeBase) -> None:
    items: list[Any] = [
        {"content": "good one", "fact_id": "g1"},
        {"content": "   "},
        {"content": "good two", "metadata": {"set": {1, 2}}},
        {"content": "good three", "fact_id": "g3", "tags": ["t"], "principals": ["user:ann"]},
        {"contents": "misspelt"},
        "no mapping",
        {"content": "good four", "colour": "red"},
        {"content": "good five", "fact_id": "g5", "expires_in": 3600},
        {"content": "bad six", "fact_id": "not an id"},
        {"fact_id": "no-content"},
        None,
        {"content": "clash", "fact_id": "g1"},
    ]

    result = await stub_kb.store_facts(items)

    assert (result["processed"], result["succeeded"], result["duplicates"]) == (12, 3, 0)
    assert [failure["index"] for failure in result["failed"]] == [1, 2, 4, 5, 6, 8, 9, 10, 11]
    assert all(failure["error"] for failure in result["failed"])
    assert "content" in result["failed"][0]["error"]
    assert "metadata" in result["failed"][1]["error"]
    assert result["completed"] is True
    assert await ids(stub_kb, principals=["user:ann"]) == {"g1", "g3", "g5"}
    assert await ids(stub_kb) == {"g1", "g5"}


async def test_error_of_an_item_tells_nothing_of_its_content(stub_kb: KnowledgeBase) -> None:
    result = await stub_kb.store_facts([{"content": "the secret recipe\x00"}, {"content": ["the secret recipe"]}])

    assert len(result["failed"]) == 2
    assert "secret" not in str(result["failed"])


async def test_duplicates_are_counted_within_a_call_and_between_calls(stub_kb: KnowledgeBase) -> None:
    items = [{"content": f"words {number % 3}"} for number in range(9)]

    first = await stub_kb.store_facts(items)
    second = await stub_kb.store_facts(items)

    assert (first["succeeded"], first["duplicates"], first["failed"]) == (3, 6, [])
    assert (second["succeeded"], second["duplicates"], second["failed"]) == (0, 9, [])
    assert (await stub_kb.get_stats())["facts"] == 3


async def test_items_may_come_from_a_generator(stub_kb: KnowledgeBase) -> None:
    def items() -> Iterator[dict[str, Any]]:
        for number in range(20):
            yield {"content": f"words {number}"}

    result = await stub_kb.store_facts(items())

    assert (result["processed"], result["succeeded"]) == (20, 20)


async def test_nothing_to_store_is_done_at_once(stub_kb: KnowledgeBase) -> None:
    result = await stub_kb.store_facts([])

    assert result == {"processed": 0, "succeeded": 0, "duplicates": 0, "failed": [], "completed": True}


async def test_namespace_of_the_call_is_the_items_own(stub_kb: KnowledgeBase, namespace: str) -> None:
    result = await stub_kb.store_facts([{"content": "words", "fact_id": "f"}], namespace=f"{namespace}-b")

    assert result["succeeded"] == 1
    assert await ids(stub_kb, namespace=f"{namespace}-b") == {"f"}
    assert await ids(stub_kb) == set()


@pytest.mark.parametrize("facts", [None, 7, "text", b"x"], ids=repr)
async def test_facts_that_are_no_list_are_refused(stub_kb: KnowledgeBase, facts: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await stub_kb.store_facts(facts)

    assert refused.value.field == "facts"
    assert await ids(stub_kb) == set()


async def test_bulk_of_long_and_short_facts_finds_every_one(stub_kb: KnowledgeBase) -> None:
    long = "\n\n".join(f"Sentence number {n} of a long story about walruses." for n in range(150))

    await stub_kb.store_facts([{"content": f"{long} The end is {word}."} for word in ("amber", "beige", "coral")])

    for word in ("amber", "beige", "coral"):
        hits = (await stub_kb.search(word, mode="text"))["hits"]
        assert len(hits) == 1
        assert word in hits[0]["content"]


async def fill(kb: KnowledgeBase) -> None:
    await kb.store_facts(
        {
            "content": f"walrus number {number}",
            "fact_id": f"w{number}",
            "tags": ["even" if number % 2 == 0 else "odd"],
            "source": "zoo",
        }
        for number in range(60)
    )


async def test_delete_by_filter_takes_exactly_what_matches(stub_kb: KnowledgeBase) -> None:
    await fill(stub_kb)
    progress: list[tuple[int, int]] = []

    result = await stub_kb.delete_facts({"tags": "even"}, progress=lambda done, total: progress.append((done, total)))

    odd = {f"w{number}" for number in range(1, 60, 2)}
    assert (result["processed"], result["succeeded"], result["failed"], result["completed"]) == (30, 30, [], True)
    assert progress[-1] == (30, 30)
    assert await ids(stub_kb) == odd
    for mode in ("hybrid", "vector", "text"):
        assert set(await found(stub_kb, "walrus number", top_k=100, mode=mode)) == odd
    assert (await stub_kb.get_stats())["facts"] == 30
    assert (await stub_kb.delete_facts({"tags": "even"}))["succeeded"] == 0


async def test_dry_run_counts_and_deletes_nothing(stub_kb: KnowledgeBase) -> None:
    await fill(stub_kb)

    result = await stub_kb.delete_facts({"tags": "even"}, dry_run=True)

    assert (result["processed"], result["succeeded"], result["completed"]) == (30, 30, True)
    assert (await stub_kb.get_stats())["facts"] == 60
    assert len(await ids(stub_kb)) == 60


MATCH_ALL: list[Any] = [{}, None, {"and": []}, {"and": [{}]}, {"or": [{}]}, {"or": [{}, {"tags": "even"}]}]
MATCH_ALL += [{"not": {"tags": []}}, {"tags": {"nin": []}}, {"tags": {"all": []}}, {"not": {}}, {"not": {"or": []}}]


@pytest.mark.parametrize("filters", MATCH_ALL, ids=str)
async def test_delete_of_everything_is_refused(stub_kb: KnowledgeBase, filters: Any) -> None:
    await fill(stub_kb)

    with pytest.raises(InvalidInputError) as refused:
        await stub_kb.delete_facts(filters)

    assert refused.value.field == "filters"
    assert len(await ids(stub_kb)) == 60


async def test_delete_by_filter_reaches_facts_without_a_vector(stub_kb: KnowledgeBase, failing_embedding: Any) -> None:
    await stub_kb.store_fact("words", tags=["other"])
    failing_embedding.become("failing")
    stored = await stub_kb.store_fact("walrus", tags=["doomed"])

    result = await stub_kb.delete_facts({"tags": "doomed"})

    assert (stored["indexed"], result["succeeded"]) == (False, 1)
    assert await stub_kb.get_fact(stored["fact_id"]) == []
    assert (await stub_kb.get_stats())["pending"] == 0


async def test_delete_by_filter_takes_more_than_a_page(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_facts({"content": f"walrus {number}", "tags": ["t"]} for number in range(1_300))
    await stub_kb.store_fact("left over")

    result = await stub_kb.delete_facts({"tags": "t"})

    assert (result["processed"], result["succeeded"]) == (1_300, 1_300)
    assert (await stub_kb.get_stats())["facts"] == 1


async def test_iteration_gives_oldest_first(stub_kb: KnowledgeBase) -> None:
    order = [(await stub_kb.store_fact(f"words {number}"))["fact_id"] for number in range(12)]

    facts = [fact async for fact in stub_kb.iter_facts()]

    assert [fact["id"] for fact in facts] == order
    assert facts[0] == (await stub_kb.get_fact(order[0]))[0]


@pytest.mark.parametrize("filters", [None, {"source": "zoo"}], ids=["all", "filtered"])
async def test_iteration_gives_each_fact_once_while_others_write(stub_kb: KnowledgeBase, filters: Any) -> None:
    for start in range(0, 600, 200):
        await stub_kb.store_facts(
            {"content": f"walrus number {number}", "fact_id": f"w{number}", "source": "zoo"}
            for number in range(start, start + 200)
        )
    doomed = {f"w{number}" for number in range(0, 600, 7)}
    stay = {f"w{number}" for number in range(600)} - doomed
    begun = asyncio.Event()

    async def write() -> None:
        await begun.wait()
        for number, fact_id in enumerate(sorted(doomed)):
            await stub_kb.delete_fact(fact_id)
            await stub_kb.store_fact(f"newcomer {number}", fact_id=f"n{number}", source="zoo")
            await stub_kb.update_fact(f"w{number * 7 + 1}", metadata={"seen": number})
            await stub_kb.update_fact(f"w{number * 7 + 2}", content=f"walrus renamed {number}")

    writing = asyncio.create_task(write())
    seen: Counter[str] = Counter()
    async for fact in stub_kb.iter_facts(filters=filters):
        seen[fact["id"]] += 1
        begun.set()
        await asyncio.sleep(0)
    await writing

    assert {fact_id for fact_id, times in seen.items() if times > 1} == set()
    assert stay - set(seen) == set()


async def test_iteration_may_be_left_early(stub_kb: KnowledgeBase) -> None:
    await fill(stub_kb)

    async for fact in stub_kb.iter_facts():
        assert fact["id"] == "w0"
        break

    assert (await stub_kb.get_stats())["facts"] == 60


@pytest.mark.parametrize("moment", MOMENTS)
async def test_facts_written_before_a_cancellation_do_not_wait_for_the_lease(open_kb: Any, moment: Moment) -> None:
    kb: KnowledgeBase = open_kb(indexing=IndexingSettings(lease=120.0))
    await kb.store_fact("walruses dive")
    cancelled = 0

    for place in count():
        at = CancelAt(place, moment)
        await at.run(kb.store_facts([{"content": f"penguin {place} {number}"} for number in range(3)]))
        if not at.reached:
            break
        cancelled += 1

    async def all_indexed() -> bool:
        return (await kb.get_stats())["pending"] == 0

    await eventually(all_indexed, within=10.0)
    stored = (await kb.get_stats())["facts"]
    assert 3 < stored < 3 * cancelled
