"""How similar a model finds texts that have nothing in common: with many models that is far from zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

UNRELATED = (
    "The glacier has retreated by two kilometres since 1890.",
    "Whisk the egg whites until they hold stiff peaks.",
    "Shareholders will vote on the merger in the spring.",
    "Her violin concerto was first performed in Helsinki.",
    "The patch closes a race between two writers of the cache.",
    "Goalkeepers may not hold the ball for more than eight seconds.",
    "Tenants must give three months' notice in writing.",
    "Bees tell each other where flowers are by dancing.",
)
"""Texts of like length that share neither subject nor telling words."""

MOST = 0.95


def background_similarity(vectors: Sequence[Sequence[float]]) -> float:
    """Returns the mean cosine similarity of vectors of unrelated texts, from 0 to 0.95.

    Args:
        vectors: Those of ``UNRELATED``.
    """
    lengths = [math.sqrt(math.fsum(x * x for x in vector)) or 1.0 for vector in vectors]
    cosines = [
        math.fsum(x * y for x, y in zip(vectors[one], vectors[other], strict=True)) / (lengths[one] * lengths[other])
        for one, other in combinations(range(len(vectors)), 2)
    ]
    return min(MOST, max(0.0, math.fsum(cosines) / len(cosines)))
