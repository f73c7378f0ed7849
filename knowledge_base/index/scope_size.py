"""How many passages a filter lets through, and how the nearest of them are found best.

The server knows two ways. It can compare the query with every passage that passes (``ADHOC_BF``), which is exact and
takes 0.3 to 0.9 µs for each; or it can walk the graph of all vectors and keep what passes (``BATCHES``), which takes
about a millisecond where most pass, and loses both recall and time where few do, above all where those that pass are
far from the query. Left alone, it compares the query with all of 100 000 passages (30 to 70 ms) as soon as a hundred
are wanted, and walks the graph for ten that one in ten passes (recall@10 0.86).
``python -m tests.benchmarks filtered_recall`` prints what is chosen here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from knowledge_base.index.counts import Counts

COMPARED_AT_ONCE = 2_500
"""So many passages are compared faster than the graph is walked, whatever their share."""

COMPARED_AT_MOST = 25_000
"""More are not compared: it would take the server more than 20 ms."""

BROAD = 0.5
"""Share of the passages from which on the graph finds what passes as well as what is there."""

SPARE = 1.15
"""A batch is larger by this than should be needed, since a second one costs as much as the first."""

EVERYTHING = "*"
COMPARE = "HYBRID_POLICY ADHOC_BF"
WALK = "HYBRID_POLICY BATCHES"


class ScopeSize(NamedTuple):
    """How many passages pass a filter."""

    passing: int
    """Exact up to ``COMPARED_AT_MOST``; above it, one more."""
    whole: int | None = None
    """How many there are, or one more than would make the filter broad; None where it does not matter."""


def knn_attributes(size: ScopeSize | None, top_k: int) -> str:
    """Returns the attributes that tell the server how to find the nearest passages.

    Args:
        size: How many pass; None leaves the choice to the server.
        top_k: How many are wanted.
    """
    if size is None:
        return ""
    if size.passing <= COMPARED_AT_ONCE:
        return COMPARE
    if size.passing > COMPARED_AT_MOST:
        # The server makes each batch as large as its own estimate of their share says.
        return WALK
    share = size.passing / max(size.whole or 0, size.passing)
    if share < BROAD:
        return COMPARE
    batch = top_k if share == 1.0 else math.ceil(top_k / share * SPARE)
    return f"{WALK} BATCH_SIZE {batch}"


class ScopeSizes:
    """Says how many passages pass a filter.

    Args:
        counts: Counts them.
    """

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    async def size(self, index_name: str, scope: str) -> ScopeSize | None:
        """Returns how many passages pass a filter; None where the server does not say.

        Args:
            index_name: The index of vectors.
            scope: What ``FilterCompiler.compile`` gave.
        """
        passing = await self._counts.up_to(COMPARED_AT_MOST, index_name, scope)
        if passing is None:
            return None
        if not COMPARED_AT_ONCE < passing <= COMPARED_AT_MOST:
            return ScopeSize(passing)
        whole = await self._counts.up_to(math.ceil(COMPARED_AT_MOST / BROAD), index_name, EVERYTHING)
        return None if whole is None else ScopeSize(passing, whole)
