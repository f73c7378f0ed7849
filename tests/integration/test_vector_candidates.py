"""Searches by meaning: as few candidates as are enough, and the right ones whatever passes the filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from knowledge_base.index import scope_size
from knowledge_base.index.counts import FRESH_FOR, Counts
from knowledge_base.index.filters import FilterCompiler
from knowledge_base.index.vector_index import VectorIndex
from tests.support.control import Control
from tests.support.facts import hit_ids
from tests.support.many_facts import BATCH, populate, unit_vectors

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.embeddings import StubEmbedding

FACTS = 1_500
SHARES = {"half": 2, "tenth": 10, "hundredth": 100, "thousandth": 1_000}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many passages each query asked for."""
    numbers: list[int] = []
    query = VectorIndex.query

    async def counted(self: VectorIndex, generation: Any, vector: Any, scope: str, top_k: int) -> Any:
        numbers.append(top_k)
        return await query(self, generation, vector, scope, top_k)

    monkeypatch.setattr(VectorIndex, "query", counted)
    return numbers


def _tags(number: int) -> list[str]:
    return ["all", *(name for name, every in SHARES.items() if number % every == 0)]


@pytest.fixture
async def many(open_kb: Any, stub_embedding: StubEmbedding) -> KnowledgeBase:
    kb: KnowledgeBase = open_kb()
    await populate(kb, FACTS, tags=_tags)
    return kb


async def test_few_hits_take_few_candidates(many: KnowledgeBase, asked: list[int]) -> None:
    found = await many.search("anything", 5, mode="vector")
    await many.search("anything", 40, mode="vector")
    await many.search("anything", 5)

    assert len(found["hits"]) == 5
    assert asked == [20, 80, 100]


async def test_few_candidates_are_the_same_as_many(many: KnowledgeBase, asked: list[int]) -> None:
    few = await many.search("anything", 10, mode="vector")
    many_hits = await many.search("anything", 100, mode="vector")

    assert asked == [20, 200]
    assert hit_ids(few) == hit_ids(many_hits)[:10]


async def test_passages_of_one_fact_do_not_crowd_out_the_others(open_kb: Any, asked: list[int]) -> None:
    """Of the twenty nearest passages, all are of one fact."""
    kb: KnowledgeBase = open_kb()
    sentence = "Penguins swim in cold water near the shore. "
    await kb.store_fact(sentence * 600, fact_id="long")
    for number in range(4):
        await kb.store_fact(f"Penguins are birds, number {number}.", fact_id=f"short{number}")

    first = await kb.search(sentence, 5, mode="vector")
    second = await kb.search(sentence, 5, mode="vector")

    assert set(hit_ids(first)) == set(hit_ids(second)) == {"long", "short0", "short1", "short2", "short3"}
    assert asked == [20, 100, 100], "the second search knows that few are not enough"


async def test_candidates_that_are_shown_to_nobody_are_replaced(
    many: KnowledgeBase, control: Control, asked: list[int], namespace: str
) -> None:
    """Facts whose hashes are gone, as those that expired just now: their passages are still there."""
    nearest = hit_ids(await many.search("anything", 60, mode="vector"))
    for fact_id in nearest[:25]:
        control.run("DEL", f"kb:{{{namespace}}}:fact:{fact_id}")
    asked.clear()

    found = await many.search("anything", 10, mode="vector")

    assert hit_ids(found) == nearest[25:35]
    assert asked == [20, 100]


async def test_threshold_does_not_make_it_look_deeper(many: KnowledgeBase, asked: list[int]) -> None:
    best = (await many.search("anything", 3, mode="vector"))["hits"][2]["score"]
    asked.clear()

    found = await many.search("anything", 10, mode="vector", min_score=best)

    assert len(found["hits"]) == 3
    assert asked == [20]


@pytest.mark.parametrize("at_once", [scope_size.COMPARED_AT_ONCE, 20], ids=["compared", "walked where many pass"])
async def test_filtered_search_finds_the_nearest(
    many: KnowledgeBase, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(scope_size, "COMPARED_AT_ONCE", at_once)
    services = await many._services.start()
    generation = await services.generations.current(many.settings.namespace)
    assert generation is not None
    size = generation.dimension
    stored = np.vstack([unit_vectors(min(BATCH, FACTS - at), size, first=at) for at in range(0, FACTS, BATCH)])
    for tag, every in {"all": 1, **SHARES}.items():
        passing = np.arange(0, FACTS, every)
        scope = FilterCompiler(10).compile({"tags": tag}, [])
        right = wanted = 0
        for query in unit_vectors(30, size, first=10 * FACTS):
            exact = {f"f{number}" for number in passing[np.argsort(-(stored[passing] @ query))[:10]]}
            found = await services.vectors.query(generation, query.tolist(), scope, 10)
            right += len(exact & {one.name.fact_id for one in found})
            wanted += len(exact)
        assert right / wanted >= 0.95, tag


async def test_counts_end_where_they_are_told_and_are_remembered(many: KnowledgeBase, control: Control) -> None:
    now = 0.0
    services = await many._services.start()
    generation = await services.generations.current(many.settings.namespace)
    assert generation is not None
    counts = Counts(services.generations._manager, clock=lambda: now)
    index_name = generation.vector_index

    assert await counts.up_to(10_000, index_name, "@tags:{half}") == FACTS // 2
    assert await counts.up_to(100, index_name, "@tags:{half}") == 101
    assert await counts.up_to(100, "kb:{nowhere}:index", "*") is None
    key = next(iter(control.run("FT.SEARCH", index_name, "@tags:{half}", "NOCONTENT", "LIMIT", 0, 1)[1:]))
    control.run("DEL", key)
    assert await counts.up_to(10_000, index_name, "@tags:{half}") == FACTS // 2
    now = FRESH_FOR
    assert await counts.up_to(10_000, index_name, "@tags:{half}") == FACTS // 2 - 1
    await counts.close()
