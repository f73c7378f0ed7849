"""The figures of a retrieval, against the definitions."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge_base.retrieval.chunk_metrics import Stages, histogram, operation_metrics
from tests.support.chunks import a_chunk

SIMILARITIES = st.lists(st.floats(0, 1), max_size=30)


@given(SIMILARITIES, st.floats(0, 1))
def test_statistics_are_those_of_all_candidates(similarities: list[float], threshold: float) -> None:
    metrics = operation_metrics(similarities, threshold, [], [], Stages())

    assert metrics["candidates"] == sum(metrics["similarity_histogram"]) == len(similarities)
    assert metrics["above_threshold"] == len([one for one in similarities if one >= threshold])
    if similarities:
        assert metrics["similarity_min"] == min(similarities)
        assert metrics["similarity_max"] == max(similarities)
        assert metrics["similarity_avg"] == pytest.approx(statistics.mean(similarities))
        assert metrics["similarity_median"] == pytest.approx(statistics.median(similarities))


def test_no_candidates_have_no_statistics() -> None:
    metrics = operation_metrics([], 0.25, [], ["vector"], Stages())

    assert [metrics[f"similarity_{name}"] for name in ("min", "avg", "median", "max")] == [None] * 4  # type: ignore[literal-required]
    assert metrics["similarity_histogram"] == [0] * 10
    assert (metrics["candidates"], metrics["above_threshold"], metrics["returned"], metrics["tokens"]) == (0, 0, 0, 0)
    assert metrics["degraded"] == ["vector"]


def test_bins_are_closed_below_and_the_last_one_above_too() -> None:
    found = histogram([0.0, 0.05, 0.1, 0.25, 0.5, 0.9, 0.99, 1.0])

    assert found == [2, 1, 1, 0, 0, 1, 0, 0, 0, 3]


def test_returned_chunks_and_their_tokens_are_counted() -> None:
    chunks = [a_chunk("one").with_tokens(3), a_chunk("two").with_tokens(4)]

    metrics = operation_metrics([0.5, 0.6], 0.25, chunks, [], Stages())

    assert (metrics["returned"], metrics["tokens"]) == (2, 7)


def test_stages_are_measured_also_when_they_fail() -> None:
    stages = Stages()

    with stages.stage("first"):
        pass
    with pytest.raises(ValueError, match="x"), stages.stage("second"):
        raise ValueError("x")
    metrics = operation_metrics([], 0.0, [], [], stages)

    assert list(metrics["stages"]) == ["first", "second"]
    assert 0 <= sum(metrics["stages"].values()) <= metrics["took_ms"]
