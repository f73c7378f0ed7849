"""What a search can ask for beyond the ranking: reranking, recency and diversity, alone and together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import NodeWithScore

from knowledge_base.errors import InvalidInputError
from knowledge_base.keyspace import Keyspace
from knowledge_base.retrieval.reranking.judged import sigmoid
from knowledge_base.settings import Limits, RetrievalSettings, Settings, Timeouts
from knowledge_base.types import SearchMode, SearchResults
from tests.conftest import OpenKnowledgeBase
from tests.support.control import Control
from tests.support.cross_encoders import write_cross_encoder
from tests.support.facts import found, hit_ids
from tests.support.leaks import Footprint
from tests.support.polling import eventually
from tests.support.postprocessors import Hanging, Rule, foreign_node, reversing, scored

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.embeddings import StubEmbedding

MODES: tuple[SearchMode, ...] = ("hybrid", "vector", "text")
DAY = 86_400_000
QUERY = "tea garden"

FACTS = {
    "tea": "Tea garden",
    "same": "The tea garden",
    "hours": "The tea garden opens at nine",
    "bus": "The bus to the garden leaves hourly from the station",
    "cake": "Cake is served with tea on Sundays and holidays",
    "dog": "Dogs must be kept on a lead",
}


class OpenReranked:
    """Makes knowledge bases with a reranker, and closes them."""

    def __init__(self, settings: Settings, embedding: StubEmbedding) -> None:
        self._settings = settings
        self._embedding = embedding
        self.opened: list[KnowledgeBase] = []

    def __call__(self, reranker: Any = None, **changes: Any) -> KnowledgeBase:
        from knowledge_base import KnowledgeBase

        changed = self._settings.model_copy(update=changes)
        self.opened.append(KnowledgeBase(changed, embed_model=self._embedding, reranker=reranker))
        return self.opened[-1]


@pytest.fixture
async def open_reranked(
    settings: Settings, stub_embedding: StubEmbedding, control: Control
) -> AsyncIterator[OpenReranked]:
    before = Footprint.taken(control)
    opening = OpenReranked(settings, stub_embedding)
    yield opening
    stub_embedding.become("well")
    for one in opening.opened:
        await one.close()
    await before.assert_regained(control)


@pytest.fixture
def hanging(open_reranked: OpenReranked) -> Iterator[Hanging]:
    one = Hanging()
    yield one
    one.release()


@pytest.fixture
async def garden(stub_kb: KnowledgeBase) -> KnowledgeBase:
    """Facts of which several say nearly the same."""
    await store(stub_kb)
    return stub_kb


async def store(kb: KnowledgeBase) -> None:
    stored = await kb.store_facts(
        {"content": content, "fact_id": key, "tags": [key], "metadata": {"key": key}} for key, content in FACTS.items()
    )
    assert stored["succeeded"] == len(FACTS)


@pytest.fixture
def grow_old(control: Control, namespace: str) -> Callable[[str, float], None]:
    """Makes a fact look as if it was last changed some days ago."""

    def change(fact_id: str, days: float) -> None:
        key = Keyspace(namespace).fact(fact_id)
        updated = int(control.run("HGET", key, "updated_at"))
        control.run("HSET", key, "updated_at", round(updated - days * DAY))

    return change


def scores(results: SearchResults) -> dict[str, float]:
    return {hit["fact_id"]: hit["score"] for hit in results["hits"]}


def is_bounded(results: SearchResults) -> bool:
    return all(0.0 <= hit["score"] <= 1.0 for hit in results["hits"])


# Reranking


async def test_reranker_of_the_constructor_orders_the_hits(open_reranked: OpenReranked) -> None:
    kb = open_reranked(reversing())
    await store(kb)

    plain = await kb.search(QUERY, rerank=False)
    reranked = await kb.search(QUERY)

    assert hit_ids(reranked) == hit_ids(plain)[::-1]
    assert reranked["degraded"] == []
    assert [hit["score"] for hit in reranked["hits"]] == [1.0 / place for place in range(1, len(plain["hits"]) + 1)]
    assert all(hit["scores"]["rerank"] == hit["score"] for hit in reranked["hits"])
    before = {hit["fact_id"]: hit["scores"] for hit in plain["hits"]}
    for hit in reranked["hits"]:
        assert {name: score for name, score in hit["scores"].items() if name != "rerank"} == pytest.approx(
            before[hit["fact_id"]]
        )


@pytest.mark.parametrize("mode", MODES)
async def test_cross_encoder_of_the_settings_orders_the_hits(
    open_reranked: OpenReranked, tmp_path: Path, mode: SearchMode
) -> None:
    directory = write_cross_encoder(tmp_path / "model")
    kb = open_reranked(retrieval=RetrievalSettings(reranker=str(directory)), timeouts=Timeouts(rerank=10.0))
    await store(kb)

    results = await kb.search("bus garden station tea", mode=mode)

    assert hit_ids(results)[0] == "bus"
    raw = [hit["scores"]["rerank"] for hit in results["hits"]]
    assert raw == sorted(raw, reverse=True)
    assert raw[0] == 2.0
    assert [hit["score"] for hit in results["hits"]] == [sigmoid(one) for one in raw]
    assert (await kb.search("bus", mode=mode, rerank=True))["degraded"] == []
    assert "rerank" not in (await kb.search("bus", mode=mode, rerank=False))["hits"][0]["scores"]


async def test_postprocessor_of_the_call_goes_before_the_configured_one(open_reranked: OpenReranked) -> None:
    configured = reversing()
    kb = open_reranked(configured)
    await store(kb)

    results = await kb.search(QUERY, rerank=scored([0.1, 0.9, 0.3]))

    assert configured.queries == []
    assert [hit["score"] for hit in results["hits"]][:2] == [0.9, results["hits"][1]["score"]]


async def test_reranker_sees_more_hits_than_are_wanted(garden: KnowledgeBase) -> None:
    rule = reversing()
    plain = await found(garden, QUERY)

    results = await garden.search(QUERY, 2, rerank=rule)

    assert len(rule.seen) == len(plain) > 2
    assert hit_ids(results) == plain[:-3:-1]


async def test_reranker_sees_as_many_hits_as_the_settings_say_or_as_are_wanted(open_reranked: OpenReranked) -> None:
    rule = reversing()
    kb = open_reranked(rule, retrieval=RetrievalSettings(rerank_candidates=2))
    await store(kb)

    await kb.search(QUERY, 1)
    await kb.search(QUERY, 3)

    assert len(rule.seen) == 2 + 3


async def test_reranker_never_sees_what_the_caller_may_not_see(garden: KnowledgeBase) -> None:
    await garden.store_fact("Secret tea garden", fact_id="secret", principals=["user:ann"])
    await garden.store_fact("Tea garden long ago", fact_id="gone")
    await garden.delete_fact("gone")
    rule = reversing()

    await garden.search(QUERY, rerank=rule, principals=["user:bob"], filters={"not": {"tags": "bus"}})

    seen = {node.node.metadata["fact_id"] for node in rule.seen}
    assert seen
    assert seen <= FACTS.keys() - {"bus"}
    assert (await garden.search(QUERY, 1, rerank=scored([0.0]), principals=["user:ann"]))["hits"]
    visible = Rule(lambda nodes: nodes)
    await garden.search(QUERY, rerank=visible, principals=["user:ann"])
    assert "secret" in {node.node.metadata["fact_id"] for node in visible.seen}


async def test_node_has_the_fact_s_metadata_and_what_we_know_of_it(garden: KnowledgeBase) -> None:
    await garden.store_fact("Tea garden rules", {"source": "theirs", "lang": "en"}, fact_id="f", source="ours")
    rule = Rule(lambda nodes: nodes)

    await garden.search("garden rules", rerank=rule)

    (node,) = [one.node for one in rule.seen if one.node.metadata["fact_id"] == "f"]
    assert node.metadata == {
        "fact_id": "f",
        "document_id": None,
        "tags": [],
        "position": 0,
        "source": "theirs",
        "lang": "en",
    }
    assert (node.get_content(), node.ref_doc_id) == ("Tea garden rules", "f")


async def test_dropped_hits_are_gone_foreign_ones_do_not_come_in_and_changed_ones_are_as_they_were(
    garden: KnowledgeBase,
) -> None:
    plain = await garden.search(QUERY)

    def meddle(nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        for node in nodes:
            node.node.set_content("changed")
            node.node.metadata["fact_id"] = "changed"
        return [nodes[1], foreign_node(), nodes[0]]

    results = await garden.search(QUERY, rerank=Rule(meddle))

    first, second = plain["hits"][:2]
    assert [(hit["fact_id"], hit["content"], hit["metadata"]) for hit in results["hits"]] == [
        (hit["fact_id"], hit["content"], hit["metadata"]) for hit in (second, first)
    ]
    assert (await garden.search(QUERY, rerank=Rule(lambda _: [])))["hits"] == []


async def test_hit_without_a_new_score_keeps_its_own(garden: KnowledgeBase) -> None:
    plain = await garden.search(QUERY)
    rule = Rule(lambda nodes: [NodeWithScore(node=node.node) for node in nodes[::-1]])

    results = await garden.search(QUERY, rerank=rule)

    assert hit_ids(results) == hit_ids(plain)[::-1]
    assert scores(results) == pytest.approx(scores(plain))
    assert not any("rerank" in hit["scores"] for hit in results["hits"])


@pytest.mark.parametrize("rule", [lambda _: 1 / 0, lambda _: None, lambda _: ["nonsense"]])
async def test_failing_reranker_leaves_the_hits_as_they_were(garden: KnowledgeBase, rule: Any) -> None:
    plain = await garden.search(QUERY, 3)

    results = await garden.search(QUERY, 3, rerank=Rule(rule))

    assert results["degraded"] == ["rerank"]
    assert hit_ids(results) == hit_ids(plain)
    assert scores(results) == pytest.approx(scores(plain))


async def test_late_reranker_leaves_the_hits_as_they_were(open_reranked: OpenReranked, hanging: Hanging) -> None:
    kb = open_reranked(hanging, timeouts=Timeouts(rerank=0.1))
    await store(kb)
    plain = await kb.search(QUERY, 3, rerank=False)

    results = await kb.search(QUERY, 3, rerank=True)

    assert results["degraded"] == ["rerank"]
    assert hit_ids(results) == hit_ids(plain)
    assert results["took_ms"] < 2_000
    assert "reranking threads" in (await kb.get_detailed_stats())["pools"]


async def test_least_score_is_of_the_ranking_where_the_reranker_failed(garden: KnowledgeBase) -> None:
    plain = scores(await garden.search(QUERY))
    cut = sorted(plain.values())[2]

    results = await garden.search(QUERY, min_score=cut - 1e-6, rerank=Rule(lambda _: None))

    assert results["degraded"] == ["rerank"]
    assert set(hit_ids(results)) == {key for key, score in plain.items() if score >= cut - 1e-6}


async def test_start_loads_the_cross_encoder(open_reranked: OpenReranked, tmp_path: Path) -> None:
    directory = write_cross_encoder(tmp_path / "model")
    kb = open_reranked(retrieval=RetrievalSettings(reranker=str(directory)))
    await kb.start()
    await store(kb)
    loaded = kb._services._collaborate().reranker
    await eventually(lambda: loaded._loaded is not None)
    (directory / "model.onnx").unlink()

    assert (await kb.search(QUERY, rerank=True))["degraded"] == []


async def test_cancelled_search_leaves_the_reranker_s_thread_to_end_by_itself(
    open_reranked: OpenReranked, hanging: Hanging
) -> None:
    kb = open_reranked(hanging, timeouts=Timeouts(rerank=30.0))
    await store(kb)
    search = asyncio.create_task(kb.search(QUERY))
    await eventually(lambda: hanging.calls == 1)

    search.cancel()

    with pytest.raises(asyncio.CancelledError):
        await search
    assert (await kb.search(QUERY, rerank=False))["hits"]
    hanging.release()
    assert (await kb.search(QUERY))["degraded"] == []


async def test_searches_that_are_reranked_hold_no_place_of_those_that_are_not(
    open_reranked: OpenReranked, hanging: Hanging
) -> None:
    kb = open_reranked(
        hanging, timeouts=Timeouts(rerank=30.0), limits=Limits(concurrent_searches=1, waiting_searches=5)
    )
    await store(kb)
    slow = asyncio.create_task(kb.search(QUERY))
    await eventually(lambda: hanging.calls == 1)

    assert (await kb.search(QUERY, rerank=False))["hits"]

    assert not slow.done()
    hanging.release()
    assert (await slow)["degraded"] == []


async def test_reranker_takes_no_more_than_its_share_of_a_short_budget(
    open_reranked: OpenReranked, hanging: Hanging
) -> None:
    kb = open_reranked(hanging)
    await store(kb)
    await kb.search(QUERY, rerank=False)

    results = await kb.search(QUERY, timeout=1.0)

    assert results["degraded"] == ["rerank"]
    assert results["hits"]
    assert results["took_ms"] < 1_000


async def test_reranker_that_fails_repeatedly_is_not_asked(open_reranked: OpenReranked) -> None:
    rule = Rule(lambda _: None)
    kb = open_reranked(rule)
    await store(kb)
    for _ in range(8):
        assert (await kb.search(QUERY))["degraded"] == ["rerank"]

    assert len(rule.queries) == kb.settings.breaker.failures
    states = {one["name"]: one["state"] for one in (await kb.get_detailed_stats())["breakers"]}
    assert states["reranker"] == "open"


async def test_reranker_that_is_asked_for_must_be_there(garden: KnowledgeBase) -> None:
    with pytest.raises(InvalidInputError, match="KB_RETRIEVAL__RERANKER"):
        await garden.search(QUERY, rerank=True)

    assert (await garden.search(QUERY, rerank=False))["hits"]
    assert (await garden.search(QUERY, rerank=None))["degraded"] == []


async def test_reranker_that_is_asked_for_must_be_there_even_where_nothing_is_found(stub_kb: KnowledgeBase) -> None:
    with pytest.raises(InvalidInputError, match="KB_RETRIEVAL__RERANKER"):
        await stub_kb.search(QUERY, rerank=True)


async def test_first_search_that_asks_for_an_unusable_directory_is_told(
    open_reranked: OpenReranked, tmp_path: Path
) -> None:
    kb = open_reranked(retrieval=RetrievalSettings(reranker=str(tmp_path / "nowhere")))
    await store(kb)

    with pytest.raises(InvalidInputError, match="no directory with model"):
        await kb.search(QUERY, rerank=True)


async def test_unusable_directory_is_degraded_unless_it_is_asked_for(
    open_reranked: OpenReranked, tmp_path: Path
) -> None:
    kb = open_reranked(retrieval=RetrievalSettings(reranker=str(tmp_path / "nowhere")))
    await store(kb)

    results = await kb.search(QUERY)

    assert (results["degraded"], bool(results["hits"])) == (["rerank"], True)
    with pytest.raises(InvalidInputError, match="KB_RETRIEVAL__RERANKER"):
        await kb.search(QUERY, rerank=True)


@pytest.mark.parametrize("wrong", ["yes", 1, SimilarityPostprocessor, object()])
async def test_what_is_no_postprocessor_is_refused(stub_kb: KnowledgeBase, wrong: Any) -> None:
    from knowledge_base import KnowledgeBase

    with pytest.raises(InvalidInputError, match="rerank: must be a LlamaIndex node postprocessor"):
        await stub_kb.search(QUERY, rerank=wrong)
    with pytest.raises(InvalidInputError, match="reranker: must be a LlamaIndex node postprocessor"):
        KnowledgeBase(stub_kb.settings, reranker=wrong)


# Recency


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("half_life", [7 * 86_400, timedelta(days=7)])
async def test_fact_of_one_half_life_counts_half(
    garden: KnowledgeBase, grow_old: Callable[[str, float], None], mode: SearchMode, half_life: Any
) -> None:
    grow_old("tea", 7)
    plain = scores(await garden.search(QUERY, mode=mode))

    results = await garden.search(QUERY, mode=mode, recency=half_life)

    fading = scores(results)
    assert fading["tea"] == pytest.approx(plain["tea"] / 2, rel=1e-3)
    assert fading["same"] == pytest.approx(plain["same"], rel=1e-3)
    assert list(fading.values()) == sorted(fading.values(), reverse=True)
    assert is_bounded(results)


async def test_new_fact_from_beyond_the_first_hits_comes_up(
    garden: KnowledgeBase, grow_old: Callable[[str, float], None]
) -> None:
    last = (await found(garden, QUERY, mode="text"))[-1]
    for fact_id in FACTS.keys() - {last}:
        grow_old(fact_id, 1_000)

    assert await found(garden, QUERY, top_k=1, mode="text", recency=86_400) == [last]


async def test_least_score_is_of_the_faded_one(garden: KnowledgeBase, grow_old: Callable[[str, float], None]) -> None:
    plain = scores(await garden.search(QUERY))
    grow_old("tea", 1)

    kept = await found(garden, QUERY, recency=86_400, min_score=0.6 * plain["tea"])

    assert "tea" not in kept
    assert "same" in kept


async def test_recency_counts_after_reranking_as_well(
    garden: KnowledgeBase, grow_old: Callable[[str, float], None]
) -> None:
    grow_old("dog", 1)

    def dog_first(nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        for one in nodes:
            one.score = 0.8 if one.node.metadata["key"] == "dog" else 0.5
        return sorted(nodes, key=lambda one: -(one.score or 0.0))

    rule = Rule(dog_first)
    assert (await found(garden, QUERY, rerank=rule, mode="vector"))[0] == "dog"

    fading = await garden.search(QUERY, rerank=rule, recency=timedelta(days=1), mode="vector")

    assert hit_ids(fading)[-1] == "dog"
    assert scores(fading)["dog"] == pytest.approx(0.4, rel=1e-3)
    assert fading["hits"][-1]["scores"]["rerank"] == 0.8


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), True, "7d", timedelta(0), 1e12])
async def test_half_life_that_is_none_is_refused(stub_kb: KnowledgeBase, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="recency"):
        await stub_kb.search(QUERY, recency=wrong)


# Diversity


@pytest.mark.parametrize("mode", MODES)
async def test_hits_that_say_the_same_give_way(garden: KnowledgeBase, mode: SearchMode) -> None:
    plain = await garden.search(QUERY, 2, mode=mode)
    assert set(hit_ids(plain)) <= {"tea", "same", "hours"}

    spread = await garden.search(QUERY, 2, mode=mode, diversity=0.8)

    assert hit_ids(spread)[0] == hit_ids(plain)[0]
    assert hit_ids(spread)[1] in {"bus", "cake", "dog"}
    assert len(spread["hits"]) == 2
    everything = scores(await garden.search(QUERY, mode=mode))
    assert scores(spread) == pytest.approx({key: everything[key] for key in hit_ids(spread)})


@pytest.mark.parametrize("mode", MODES)
async def test_no_diversity_changes_nothing(garden: KnowledgeBase, mode: SearchMode) -> None:
    plain, none, zero = [await garden.search(QUERY, mode=mode, diversity=one) for one in (None, None, 0)]

    assert plain["hits"] == none["hits"] == zero["hits"]


async def test_all_hits_are_there_however_many_are_wanted(garden: KnowledgeBase) -> None:
    plain = await found(garden, QUERY, mode="vector")

    spread = await found(garden, QUERY, mode="vector", diversity=0.5)

    assert sorted(spread) == sorted(plain)
    for wanted in range(1, len(plain)):
        assert await found(garden, QUERY, top_k=wanted, mode="vector", diversity=0.5) == spread[:wanted]


async def test_hits_without_vectors_are_spread_by_their_words(
    stub_kb: KnowledgeBase, stub_embedding: StubEmbedding
) -> None:
    await stub_kb.store_fact("Something else")
    stub_embedding.become("failing")
    for key, content in FACTS.items():
        assert not (await stub_kb.store_fact(content, fact_id=key, wait_indexed=False))["indexed"]
    assert set((await found(stub_kb, QUERY))[:2]) <= {"tea", "same", "hours"}

    results = await stub_kb.search(QUERY, 2, diversity=0.8)

    assert results["degraded"] == ["vector"]
    assert hit_ids(results)[1] in {"bus", "cake"}


async def test_hits_that_mean_the_same_in_other_words_give_way(kb: KnowledgeBase) -> None:
    for key, content in {
        "car": "The car was parked in front of the house.",
        "automobile": "An automobile stood outside somebody's home.",
        "speaker": "The speaker of the house was in front of the polls.",
    }.items():
        await kb.store_fact(content, fact_id=key)
    question = "Where is the vehicle?"
    assert await found(kb, question, top_k=2, mode="vector") == ["car", "automobile"]

    assert await found(kb, question, top_k=2, mode="vector", diversity=0.9) == ["car", "speaker"]


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan"), True, "much"])
async def test_diversity_out_of_bounds_is_refused(stub_kb: KnowledgeBase, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="diversity"):
        await stub_kb.search(QUERY, diversity=wrong)


# Together

OPTIONS: list[dict[str, Any]] = [
    {"diversity": 0.5},
    {"recency": 86_400.0},
    {"rerank": scored([0.3, 0.9, 0.6, 0.1, 0.2, 0.4])},
    {"rerank": scored([0.3, 0.9, 0.6, 0.1, 0.2, 0.4]), "recency": 86_400.0, "diversity": 0.5},
]
each_option = pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options))


@each_option
async def test_principals_and_filters_hold_with_each_option(garden: KnowledgeBase, options: dict[str, Any]) -> None:
    await garden.store_fact("Secret tea garden", fact_id="secret", principals=["user:ann"], tags=["tea"])

    others = await found(garden, QUERY, principals=["user:bob"], **options)
    hers = await found(garden, QUERY, principals=["user:ann"], **options)
    tagged = await found(garden, QUERY, filters={"tags": ["tea", "bus"]}, principals=["user:ann"], **options)

    assert "secret" not in others
    assert "secret" in hers
    assert set(tagged) == {"tea", "bus", "secret"}


@each_option
async def test_least_score_holds_with_each_option(garden: KnowledgeBase, options: dict[str, Any]) -> None:
    everything = await garden.search(QUERY, **options)
    cut = sorted(scores(everything).values())[2]

    # A moment later, everything has faded a little more.
    kept = await garden.search(QUERY, min_score=cut * 0.9999, **options)

    assert set(hit_ids(kept)) == {key for key, score in scores(everything).items() if score >= cut}
    assert min(scores(kept).values()) >= cut * 0.9999
    assert is_bounded(kept)


@each_option
@pytest.mark.parametrize("top_k", [1, 3])
async def test_fewer_hits_are_the_first_of_more(garden: KnowledgeBase, options: dict[str, Any], top_k: int) -> None:
    everything = await found(garden, QUERY, **options)

    assert await found(garden, QUERY, top_k=top_k, **options) == everything[:top_k]


@each_option
async def test_words_alone_answer_with_each_option_when_the_model_is_down(
    garden: KnowledgeBase, stub_embedding: StubEmbedding, options: dict[str, Any]
) -> None:
    stub_embedding.become("failing")

    results = await garden.search("tea garden station", **options)

    assert results["degraded"] == ["vector"]
    assert set(hit_ids(results)) == {"tea", "same", "hours", "bus", "cake"}
    assert is_bounded(results)


async def test_both_can_be_missing(garden: KnowledgeBase, stub_embedding: StubEmbedding) -> None:
    stub_embedding.become("failing")

    results = await garden.search("tea station", rerank=Rule(lambda _: None), diversity=0.5, recency=60)

    assert results["degraded"] == ["vector", "rerank"]
    assert results["hits"]


@each_option
async def test_nothing_found_is_nothing_with_each_option(stub_kb: KnowledgeBase, options: dict[str, Any]) -> None:
    assert (await stub_kb.search(QUERY, **options))["hits"] == []
    await stub_kb.store_fact("Dogs must be kept on a lead.")
    assert (await stub_kb.search("zeppelin", mode="text", **options))["hits"] == []


async def test_options_work_for_what_was_found_in_documents(open_kb: OpenKnowledgeBase) -> None:
    kb = open_kb()
    for key, content in FACTS.items():
        await kb.add_document(content, document_id=key)
    rule = reversing()

    results = await kb.search(QUERY, 3, rerank=rule, diversity=0.3, recency=timedelta(days=1))

    assert len(results["hits"]) == 3
    assert {node.node.ref_doc_id for node in rule.seen} <= FACTS.keys()
    assert all(hit["document_id"] == hit["fact_id"] for hit in results["hits"])


async def test_options_hold_for_hundreds_of_hits(open_reranked: OpenReranked) -> None:
    kb = open_reranked(timeouts=Timeouts(rerank=20.0))
    bulk = await kb.store_facts(
        {"content": f"Tea garden number {number}", "fact_id": f"f{number}"} for number in range(700)
    )
    assert bulk["succeeded"] == 700

    results = await kb.search(QUERY, 700, rerank=reversing(), diversity=0.2, recency=timedelta(days=1))

    assert results["degraded"] == []
    assert len(set(hit_ids(results))) == 700
    assert is_bounded(results)
