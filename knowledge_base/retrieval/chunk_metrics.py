"""The figures of one retrieval."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean, median

from knowledge_base.types import ChunkWithContext, RAGOperationMetrics

BINS = 10


class Stages:
    """Measures how long each stage takes, in milliseconds, and all of them together."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.lasted: dict[str, float] = {}

    @property
    def took_ms(self) -> float:
        """Milliseconds since the beginning."""
        return (time.monotonic() - self._began) * 1000

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measures what is done inside, together with what was done before under the same name.

        Args:
            name: The stage.
        """
        began = time.monotonic()
        try:
            yield
        finally:
            self.lasted[name] = self.lasted.get(name, 0.0) + (time.monotonic() - began) * 1000


def histogram(similarities: Sequence[float]) -> list[int]:
    """Counts similarities in ten bins of equal width; 1.0 falls into the last.

    Args:
        similarities: From 0 to 1.
    """
    bins = [0] * BINS
    for similarity in similarities:
        bins[min(BINS - 1, int(similarity * BINS))] += 1
    return bins


def operation_metrics(
    similarities: Sequence[float],
    threshold: float,
    chunks: Sequence[ChunkWithContext],
    degraded: Sequence[str],
    stages: Stages,
    *,
    complete: bool = True,
) -> RAGOperationMetrics:
    """Returns the metrics of a retrieval.

    Args:
        similarities: Of all candidates.
        threshold: Least similarity of what may be returned.
        chunks: What is returned.
        degraded: Retrievers that could not answer.
        stages: How long it took.
        complete: False when the server may have cut a search short.
    """
    return {
        "candidates": len(similarities),
        "above_threshold": sum(similarity >= threshold for similarity in similarities),
        "returned": len(chunks),
        "tokens": sum(chunk["tokens"] for chunk in chunks),
        "similarity_min": min(similarities, default=None),
        "similarity_avg": fmean(similarities) if similarities else None,
        "similarity_median": median(similarities) if similarities else None,
        "similarity_max": max(similarities, default=None),
        "similarity_histogram": histogram(similarities),
        "degraded": list(degraded),
        "complete": complete,
        "stages": dict(stages.lasted),
        "took_ms": stages.took_ms,
    }
