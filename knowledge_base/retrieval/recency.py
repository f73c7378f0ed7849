"""Recency: what is older counts for less, by half with each half-life."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping

from knowledge_base.retrieval.fusion import Ranked

Ages = Mapping[str, float]
"""For each fact, how many half-lives ago it was last changed; 0 for what comes from the future."""


def ages_of(updated_at: Mapping[str, int], now: int, half_life: float) -> dict[str, float]:
    """Returns how old facts are, in half-lives.

    Args:
        updated_at: When each was last changed, in milliseconds since 1970.
        now: The time, in milliseconds since 1970.
        half_life: In seconds.
    """
    return {fact_id: max(0.0, (now - changed) / 1000 / half_life) for fact_id, changed in updated_at.items()}


def faded(score: float, age: float) -> float:
    """Returns what is left of a score, score · 2 ** -age: between 0 and the score, less the older a fact is.

    Args:
        score: From 0 to 1.
        age: In half-lives.
    """
    return score * math.exp2(-age)


def fading_order(score: float, age: float) -> float:
    """Returns what sorts like the faded score, also where that is too small for a number.

    Args:
        score: From 0 to 1.
        age: In half-lives.
    """
    return math.log2(score) - age if score > 0 else -math.inf


class FadedRanking:
    """A ranking in which age counts.

    Args:
        ranked: The facts, in whatever order.
        ages: How old they are; those that are not in it are gone.
    """

    def __init__(self, ranked: Iterable[Ranked], ages: Ages) -> None:
        there = [item for item in ranked if item.fact_id in ages]
        there.sort(key=lambda item: -fading_order(item.score, ages[item.fact_id]))
        self._ranked = [item._replace(score=faded(item.score, ages[item.fact_id])) for item in there]

    def __len__(self) -> int:
        return len(self._ranked)

    def part(self, begin: int, end: int) -> list[Ranked]:
        """Returns the facts from one place to before another.

        Args:
            begin: The first place, from 0.
            end: The place after the last.
        """
        return self._ranked[begin:end]

    def at_least(self, score: float) -> FadedRanking:
        """Returns the facts that have at least a score.

        Args:
            score: From 0 to 1.
        """
        kept = FadedRanking((), {})
        kept._ranked = self._ranked[: bisect_right(self._ranked, -score, key=lambda item: -item.score)]
        return kept
