"""The reranker: what postprocessors are given and may do, and the bounds within which they do it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.postprocessor import LongContextReorder, SimilarityPostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from knowledge_base.connection.deadline import deadline
from knowledge_base.errors import (
    CircuitOpenError,
    InvalidInputError,
    OperationTimeoutError,
    OverloadedError,
    UnavailableError,
)
from knowledge_base.retrieval.reranking.cross_encoder import CrossEncoder
from knowledge_base.retrieval.reranking.judged import Judged, Passage, sigmoid
from knowledge_base.retrieval.reranking.reranker import Reranker
from knowledge_base.settings import BreakerSettings
from tests.support.cross_encoders import write_cross_encoder
from tests.support.polling import eventually
from tests.support.postprocessors import Hanging, Rule, foreign_node, reversing, scored

PASSAGES = [
    Passage("n0", "fact-0", "red kite", {"lang": "en", "nested": {"deep": [1]}}, 0.9),
    Passage("n1", "doc-1", "blue sea", {}, 0.5),
    Passage("n2", "fact-2", "green hill", {}, 0.2),
]
SHORT = 0.05
LONG = 30.0


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def new_reranker(clock: Clock) -> AsyncIterator[Callable[..., Reranker]]:
    made: list[Reranker] = []

    def make(given: Any = None, directory: Path | None = None, **options: Any) -> Reranker:
        usual: dict[str, Any] = {
            "threads": 1,
            "waiting": 10,
            "timeout": LONG,
            "breaker": BreakerSettings(failures=3, reset_after=10.0),
            "clock": clock,
        }
        made.append(Reranker(str(directory) if directory else None, given, **(usual | options)))
        return made[-1]

    yield make
    await asyncio.gather(*(one.close(10.0) for one in made))


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    one = Hanging()
    yield one
    one.release()


def places(judged: list[Judged]) -> list[int]:
    return [one.place for one in judged]


async def test_postprocessor_orders_the_passages(new_reranker: Any) -> None:
    judged = await new_reranker(reversing()).rerank("q", PASSAGES)

    assert judged == [Judged(2, 1.0, 1.0), Judged(1, 0.5, 0.5), Judged(0, 1 / 3, 1 / 3)]


async def test_postprocessor_is_given_text_metadata_score_source_and_query_in_a_thread_of_ours(
    new_reranker: Any,
) -> None:
    rule = Rule(lambda nodes: nodes)

    await new_reranker(rule).rerank("which kite?", PASSAGES)

    assert [(node.node.node_id, node.node.get_content(), node.score) for node in rule.seen] == [
        ("n0", "red kite", 0.9),
        ("n1", "blue sea", 0.5),
        ("n2", "green hill", 0.2),
    ]
    assert rule.seen[0].node.metadata == {"lang": "en", "nested": {"deep": [1]}}
    assert rule.seen[0].node.get_content(MetadataMode.EMBED) == "red kite"
    assert rule.seen[1].node.ref_doc_id == "doc-1"
    assert (rule.queries, rule.threads) == (["which kite?"], ["kb-reranking"])


async def test_scores_beyond_0_and_1_are_logits(new_reranker: Any) -> None:
    judged = await new_reranker(scored([-3.0, 8.0, 0.5])).rerank("q", PASSAGES)

    assert judged == [Judged(1, 8.0, sigmoid(8.0)), Judged(2, 0.5, sigmoid(0.5)), Judged(0, -3.0, sigmoid(-3.0))]


async def test_llama_index_s_own_postprocessors_work(new_reranker: Any) -> None:
    cut = await new_reranker(SimilarityPostprocessor(similarity_cutoff=0.4)).rerank("q", PASSAGES)
    reordered = await new_reranker(LongContextReorder()).rerank("q", PASSAGES)

    assert cut == [Judged(0, 0.9, 0.9), Judged(1, 0.5, 0.5)]
    assert sorted(places(reordered)) == [0, 1, 2]
    assert places(reordered) != [0, 1, 2]


async def test_what_is_dropped_is_gone_and_what_is_foreign_or_repeated_does_not_count(new_reranker: Any) -> None:
    rule = Rule(lambda nodes: [nodes[2], foreign_node(), nodes[0], NodeWithScore(node=nodes[2].node, score=0.1)])

    assert await new_reranker(rule).rerank("q", PASSAGES) == [Judged(2, 0.2, 0.2), Judged(0, 0.9, 0.9)]


async def test_node_without_a_score_keeps_its_place_and_has_none(new_reranker: Any) -> None:
    rule = Rule(lambda nodes: [NodeWithScore(node=nodes[1].node), nodes[0]])

    assert await new_reranker(rule).rerank("q", PASSAGES) == [Judged(1, None, None), Judged(0, 0.9, 0.9)]


async def test_what_is_done_to_nodes_does_not_reach_the_passages(new_reranker: Any) -> None:
    def spoil(nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        for node in nodes:
            assert isinstance(node.node, TextNode)
            node.node.metadata.clear()
            node.node.set_content("spoilt")
        return nodes

    def spoil_deeply(nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        nodes[0].node.metadata["nested"]["deep"].append(2)
        return nodes

    for rule in (spoil_deeply, spoil):
        assert places(await new_reranker(Rule(rule)).rerank("q", PASSAGES)) == [0, 1, 2]

    assert PASSAGES[0].metadata == {"lang": "en", "nested": {"deep": [1]}}


def with_score(score: Any) -> Callable[[list[NodeWithScore]], Any]:
    # Past pydantic's own checks, as a postprocessor that builds its nodes without them.
    return lambda nodes: [NodeWithScore.model_construct(node=nodes[0].node, score=score)]


@pytest.mark.parametrize(
    "rule",
    [
        lambda _: None,
        lambda _: "nodes",
        lambda _: 7,
        lambda _: [None],
        lambda _: ["n0"],
        lambda nodes: [nodes[0].node],
        with_score(float("nan")),
        with_score(float("inf")),
        with_score("good"),
        lambda _: 1 / 0,
        lambda _: next(iter(())),
    ],
)
async def test_nonsense_and_errors_are_failures_without_a_word_of_content(new_reranker: Any, rule: Any) -> None:
    with pytest.raises(UnavailableError, match="reranker failed") as failed:
        await new_reranker(Rule(rule)).rerank("q", PASSAGES)

    assert "kite" not in str(failed.value)


async def test_our_own_errors_from_within_a_postprocessor_are_its_failures(new_reranker: Any) -> None:
    def refuse(_: Any) -> Any:
        raise InvalidInputError("query", "is odd")

    with pytest.raises(UnavailableError, match="InvalidInputError"):
        await new_reranker(Rule(refuse)).rerank("q", PASSAGES)


async def test_hanging_postprocessor_is_left_in_time_and_its_thread_counts_as_taken(
    new_reranker: Any, hanging: Hanging
) -> None:
    reranker = new_reranker(hanging, timeout=SHORT)

    with pytest.raises(OperationTimeoutError):
        await reranker.rerank("q", PASSAGES)
    with pytest.raises(OverloadedError):
        await reranker.rerank("q", PASSAGES)

    assert hanging.calls == 1
    assert reranker.stats()["reranking threads"]["abandoned"] == 1
    hanging.release()
    await eventually(lambda: reranker.stats()["reranking threads"]["abandoned"] == 0)
    assert places(await reranker.rerank("q", PASSAGES)) == [2, 1, 0]


async def test_call_s_deadline_leaves_time_for_the_hits(new_reranker: Any, hanging: Hanging) -> None:
    reranker = new_reranker(hanging)

    async with deadline("search", 0.3) as call:
        with pytest.raises(OperationTimeoutError):
            await reranker.rerank("q", PASSAGES)
        assert 0 < call.remaining < 0.2


async def test_postprocessor_that_fails_repeatedly_is_left_alone_until_a_probe_succeeds(
    new_reranker: Any, clock: Clock
) -> None:
    well = threading.Event()
    rule = Rule(lambda nodes: nodes if well.is_set() else None)
    reranker = new_reranker(rule)
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await reranker.rerank("q", PASSAGES)

    with pytest.raises(CircuitOpenError):
        await reranker.rerank("q", PASSAGES)

    assert len(rule.queries) == 3
    assert reranker.breakers()[0]["state"] == "open"
    well.set()
    clock.now += 11.0
    assert places(await reranker.rerank("q", PASSAGES)) == [0, 1, 2]
    assert reranker.breakers()[0]["state"] == "closed"


async def test_postprocessor_of_a_call_neither_blocks_nor_breaks_the_configured_one(
    new_reranker: Any, hanging: Hanging
) -> None:
    reranker = new_reranker(reversing(), timeout=0.2)
    failing = Rule(lambda _: None)

    for given in (hanging, failing, failing, failing, failing):
        with pytest.raises(UnavailableError):
            await reranker.rerank("q", PASSAGES, given)

    assert places(await reranker.rerank("q", PASSAGES)) == [2, 1, 0]
    assert reranker.breakers()[0]["state"] == "closed"


async def test_nothing_found_asks_nobody(new_reranker: Any) -> None:
    rule = reversing()

    assert await new_reranker(rule).rerank("q", []) == []
    assert rule.queries == []


async def test_cross_encoder_of_a_directory_is_loaded_once_and_used(new_reranker: Any, tmp_path: Path) -> None:
    directory = write_cross_encoder(tmp_path / "model")
    reranker = new_reranker(directory=directory)
    await reranker.preload()
    (directory / "model.onnx").unlink()

    judged = await reranker.rerank("green hill", PASSAGES)

    assert [(one.place, one.raw) for one in judged] == [(2, 1.0), (0, -1.0), (1, -1.0)]


async def test_number_that_is_none_is_a_failure(new_reranker: Any, tmp_path: Path) -> None:
    reranker = new_reranker(directory=write_cross_encoder(tmp_path, "not a number"))

    with pytest.raises(UnavailableError, match="reranker failed"):
        await reranker.rerank("nothing in common", PASSAGES)


async def test_late_cross_encoder_stops_and_gives_its_thread_back(
    new_reranker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reranker = new_reranker(directory=write_cross_encoder(tmp_path), timeout=SHORT)
    await reranker.preload()
    batches: list[int] = []
    logits = CrossEncoder._logits

    def slowly(model: CrossEncoder, batch: list[Any]) -> Any:
        batches.append(len(batch))
        time.sleep(2 * SHORT)
        return logits(model, batch)

    monkeypatch.setattr(CrossEncoder, "_logits", slowly)

    with pytest.raises(OperationTimeoutError):
        await reranker.rerank("q", [Passage(f"n{place}", "f", "word", {}, 0.5) for place in range(50)])

    await eventually(lambda: reranker.stats()["reranking threads"]["in_use"] == 0)
    assert batches == [8]


async def test_directory_that_holds_none_is_named_each_time_and_opens_no_circuit(
    new_reranker: Any, tmp_path: Path
) -> None:
    reranker = new_reranker(directory=tmp_path / "nowhere")
    await reranker.preload()

    for _ in range(5):
        with pytest.raises(InvalidInputError, match="KB_RETRIEVAL__RERANKER"):
            await reranker.rerank("q", PASSAGES)

    assert reranker.breakers()[0]["state"] == "closed"
    with pytest.raises(InvalidInputError, match="KB_RETRIEVAL__RERANKER"):
        reranker.require()


async def test_base_without_a_reranker_says_how_to_get_one(new_reranker: Any) -> None:
    reranker = new_reranker()

    assert not reranker.is_there
    with pytest.raises(InvalidInputError, match="KB_RETRIEVAL__RERANKER"):
        reranker.require()
