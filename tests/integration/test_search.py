"""Search by meaning, by words and by both."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.embedding.local_model import LocalModel
from knowledge_base.settings import Limits
from knowledge_base.types import SearchMode
from tests.support.facts import found

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.embeddings import StubEmbedding

MODES: tuple[SearchMode, ...] = ("hybrid", "vector", "text")

FACTS = {
    "car": "The automobile was parked in front of the house overnight.",
    "cat": "A kitten slept on the warm windowsill all afternoon.",
    "moon": "Apollo 11 landed the first humans on the Moon in July 1969.",
    "bread": "Knead the dough for ten minutes and let it rise before baking.",
    "tax": "The deadline for filing income tax returns is the end of May.",
    "code": "Error KB-4711 is raised when the licence key has expired.",
}


@pytest.fixture
async def library(kb: KnowledgeBase) -> KnowledgeBase:
    """The real model, six facts about six things."""
    stored = await kb.store_facts(
        {"content": content, "fact_id": key, "metadata": {"topic": key}, "tags": ["all", key], "source": "test"}
        for key, content in FACTS.items()
    )
    assert stored["succeeded"] == len(FACTS)
    return kb


@pytest.mark.parametrize("mode", MODES)
async def test_hit_carries_everything_about_its_fact(library: KnowledgeBase, mode: Any) -> None:
    results = await library.search("automobile parked", mode=mode)

    hit = results["hits"][0]
    assert (results["mode"], results["degraded"], results["complete"]) == (mode, [], True)
    assert results["took_ms"] > 0
    assert (hit["fact_id"], hit["content"], hit["position"]) == ("car", FACTS["car"], 0)
    assert (hit["metadata"], hit["tags"], hit["source"]) == ({"topic": "car"}, ["all", "car"], "test")
    assert hit["document_id"] is None
    assert set(hit["scores"]) == ({"vector", "text"} if mode == "hybrid" else {mode})
    assert 0 < hit["score"] <= 1


@pytest.mark.parametrize(
    ("query", "meant"),
    [("car", "car"), ("young feline animal", "cat"), ("lunar landing of astronauts", "moon"), ("how to bake", "bread")],
)
async def test_vector_search_finds_by_meaning(library: KnowledgeBase, query: str, meant: str) -> None:
    assert (await found(library, query, mode="vector"))[0] == meant


async def test_text_search_finds_words_and_no_synonyms(library: KnowledgeBase) -> None:
    assert await found(library, "car", mode="text") == []
    assert await found(library, "KB-4711", mode="text") == ["code"]
    assert await found(library, "kitten", mode="text") == ["cat"]


@pytest.mark.parametrize("query", ["KITTEN", "kittens", "The Kitten?", "sleeping kitten", '"kitten"'])
async def test_text_search_knows_case_endings_and_punctuation(library: KnowledgeBase, query: str) -> None:
    assert await found(library, query, mode="text") == ["cat"]


async def test_hybrid_finds_what_either_finds(library: KnowledgeBase) -> None:
    by_meaning = await found(library, "car")
    by_words = await found(library, "KB-4711")

    assert by_meaning[0] == "car"
    assert by_words[0] == "code"


async def test_question_of_stop_words_and_one_word_finds_the_word(library: KnowledgeBase) -> None:
    assert await found(library, "is there an automobile", mode="text") == ["car"]
    assert (await found(library, "There is an automobile"))[0] == "car"


@pytest.mark.parametrize("mode", MODES)
async def test_scores_fall_and_stay_between_zero_and_one(library: KnowledgeBase, mode: Any) -> None:
    hits = (await library.search("the house where the kitten slept on the Moon", mode=mode))["hits"]

    scores = [hit["score"] for hit in hits]
    assert len(scores) > 1
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert len({hit["fact_id"] for hit in hits}) == len(hits)


async def test_scores_are_what_the_reference_says(library: KnowledgeBase) -> None:
    query = "automobile house"
    vector = (await library.search(query, mode="vector"))["hits"]
    text = (await library.search(query, mode="text"))["hits"]
    hybrid = (await library.search(query, mode="hybrid"))["hits"]

    background = LocalModel.load().background
    meaning = {hit["fact_id"]: max(0.0, hit["scores"]["vector"] - background) / (1 - background) for hit in vector}
    # Two words, in a base of so many sections; see match.py.
    full = 0.7 * 2 * math.log(1 + len(FACTS))
    words = {hit["fact_id"]: min(1.0, hit["scores"]["text"] / full) ** 1.5 for hit in text}
    assert 0 < background < 0.1
    assert {hit["fact_id"]: hit["score"] for hit in vector} == pytest.approx(meaning, abs=1e-6)
    assert {hit["fact_id"]: hit["score"] for hit in text} == pytest.approx(words, abs=1e-6)
    assert {hit["fact_id"] for hit in hybrid} == set(meaning) | set(words)
    for hit in hybrid:
        both = meaning[hit["fact_id"]], words.get(hit["fact_id"], 0.0)
        assert hit["score"] == pytest.approx(sum(both) / 2, abs=1e-6)


@pytest.mark.parametrize("mode", MODES)
async def test_top_k_cuts_the_list(library: KnowledgeBase, mode: Any) -> None:
    query = "the automobile, the kitten, the Moon, the dough and the tax"
    whole = await found(library, query, mode=mode)

    assert len(whole) >= 5
    for top_k in (1, 3):
        assert await found(library, query, top_k=top_k, mode=mode) == whole[:top_k]


@pytest.mark.parametrize("mode", MODES)
async def test_min_score_cuts_the_tail(library: KnowledgeBase, mode: Any) -> None:
    query = "automobile parked at the house, with a kitten"
    hits = (await library.search(query, mode=mode))["hits"]
    assert len(hits) >= 2
    between = (hits[0]["score"] + hits[1]["score"]) / 2

    above = await found(library, query, mode=mode, min_score=between)

    assert above == [hits[0]["fact_id"]]
    assert await found(library, query, mode=mode, min_score=0.0) == [hit["fact_id"] for hit in hits]


async def test_long_fact_is_found_by_its_best_passage(library: KnowledgeBase) -> None:
    filler = [f"Paragraph {number} speaks about gardening, flowers and soil in spring." for number in range(150)]
    filler[100] = " ".join(f"The submarine surfaced beside the lighthouse, {n} miles off." for n in range(20))
    content = "\n\n".join(filler)
    await library.store_fact(content, fact_id="long")

    for mode in MODES:
        hits = (await library.search("submarine lighthouse", mode=mode))["hits"]
        assert hits[0]["fact_id"] == "long"
        assert "submarine" in hits[0]["content"]
        assert hits[0]["content"] in content
        assert len(hits[0]["content"]) < len(content) / 2
        assert hits[0]["position"] > 0
        assert [hit["fact_id"] for hit in hits].count("long") == 1


async def test_update_of_content_takes_the_old_away_and_brings_the_new(library: KnowledgeBase) -> None:
    await library.update_fact("cat", content="Volcanoes erupt molten lava.")

    assert await found(library, "kitten windowsill", mode="text") == []
    assert (await found(library, "eruption of lava", mode="text")) == ["cat"]
    assert (await found(library, "magma flowing from a mountain", mode="vector"))[0] == "cat"
    assert (await found(library, "volcano erupting"))[0] == "cat"
    for mode in MODES:
        hits = (await library.search("kitten slept on the windowsill", top_k=100, mode=mode))["hits"]
        assert not [hit for hit in hits if "kitten" in hit["content"]]


async def test_update_of_a_long_fact_leaves_no_old_passage(stub_kb: KnowledgeBase, namespace: str) -> None:
    await stub_kb.store_fact(
        "\n\n".join(f"Marmot number {n} whistles loudly in the Alps." for n in range(200)), fact_id="f"
    )
    many = (await stub_kb.get_stats())["passages"]

    await stub_kb.update_fact("f", content="One short sentence about penguins.")

    assert many > 3
    assert (await stub_kb.get_stats())["passages"] == 1
    assert await found(stub_kb, "marmot whistles", mode="text") == []


async def test_update_of_metadata_alone_keeps_the_fact_searchable(library: KnowledgeBase) -> None:
    await library.update_fact("car", metadata={"topic": "vehicles"}, tags=["wheels"])

    queries: dict[SearchMode, str] = {"vector": "car", "text": "automobile", "hybrid": "car"}
    for mode, query in queries.items():
        hit = (await library.search(query, mode=mode))["hits"][0]
        assert (hit["fact_id"], hit["metadata"], hit["tags"]) == ("car", {"topic": "vehicles"}, ["wheels"])
        assert await found(library, query, mode=mode, filters={"metadata.topic": "vehicles"}) == ["car"]
        assert await found(library, query, mode=mode, filters={"metadata.topic": "car"}) == []
    assert (await library.get_fact("car"))[0]["indexed"] is True


async def test_update_of_metadata_alone_needs_no_embedder(
    stub_kb: KnowledgeBase, failing_embedding: StubEmbedding
) -> None:
    await stub_kb.store_fact("penguins swim", {"n": 1}, fact_id="f")
    failing_embedding.become("failing")

    updated = await stub_kb.update_fact("f", metadata={"n": 2})
    failing_embedding.become("well")

    assert updated["indexed"] is True
    assert await found(stub_kb, "penguins", mode="vector", filters={"metadata.n": 2}) == ["f"]


@pytest.mark.parametrize("mode", MODES)
async def test_search_in_an_empty_namespace_finds_nothing(kb: KnowledgeBase, mode: Any) -> None:
    results = await kb.search("anything", mode=mode)

    assert (results["hits"], results["degraded"], results["complete"]) == ([], [], True)


async def test_same_query_is_embedded_once(stub_kb: KnowledgeBase, stub_embedding: StubEmbedding) -> None:
    await stub_kb.store_fact("penguins swim")

    for _ in range(3):
        await stub_kb.search("swimming penguins")

    assert stub_embedding.queries.count("swimming penguins") == 1


async def test_text_search_asks_no_embedder(stub_kb: KnowledgeBase, failing_embedding: StubEmbedding) -> None:
    await stub_kb.store_fact("penguins swim", fact_id="f")
    failing_embedding.become("failing")

    results = await stub_kb.search("penguins", mode="text")

    assert [hit["fact_id"] for hit in results["hits"]] == ["f"]
    assert results["degraded"] == []
    assert failing_embedding.queries == []


async def test_top_k_up_to_the_limit_is_served(open_kb: Any) -> None:
    kb = open_kb(limits=Limits(top_k=150))
    await kb.store_facts({"content": f"penguin number {number}"} for number in range(200))

    for mode in MODES:
        assert len(await found(kb, "penguin", top_k=150, mode=mode)) == 150, mode


async def test_cancelled_search_harms_nobody(library: KnowledgeBase) -> None:
    searches = [asyncio.create_task(library.search(f"automobile {number}")) for number in range(30)]
    await asyncio.sleep(0)
    for search in searches[::2]:
        search.cancel()

    results = await asyncio.gather(*searches, return_exceptions=True)

    assert all(isinstance(result, dict) for result in results[1::2])
    assert (await found(library, "automobile"))[0] == "car"


@pytest.mark.parametrize("mode", MODES)
async def test_quality_survives_a_filter_that_everything_passes(library: KnowledgeBase, mode: Any) -> None:
    await library.store_facts(
        {"content": f"The kitten number {number} saw the house.", "fact_id": f"k{number}", "tags": ["all"]}
        for number in range(30)
    )
    query = "is an automobile parked where the kitten saw the house"

    plain = await library.search(query, top_k=40, mode=mode)
    filtered = await library.search(query, top_k=40, mode=mode, filters={"tags": "all"}, principals=["user:ann"])

    assert "car" in {hit["fact_id"] for hit in plain["hits"]}
    assert {hit["fact_id"] for hit in filtered["hits"]} == {hit["fact_id"] for hit in plain["hits"]}
    for before, after in zip(plain["hits"], filtered["hits"], strict=True):
        assert after["score"] == pytest.approx(before["score"], abs=1e-6)
