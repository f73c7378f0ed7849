"""How well something matches a query, from 0 to 1: what the scores of different retrievers have in common."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

FULL_MATCH = 0.7
"""Share of the highest thinkable BM25 score that counts as a full match: few words of a query are as rare as can be."""

PARTIAL = 1.5
"""Exponent that makes less of a match of few words; see ``docs/explanation/search-quality.md`` for its figures."""


def full_match(words: int, sections: int) -> float:
    """Returns the BM25 score of a section that answers a query in its own words.

    A word that a single section of N has gets ln(1 + N) or so for its rarity, so that scores of queries of any length,
    and in bases of any size, become comparable when they are divided by it.

    Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, for the formula of
    BM25.

    Args:
        words: Words of the query, repeats included.
        sections: Sections in the index.
    """
    return FULL_MATCH * max(1, words) * math.log1p(max(1, sections))


def word_matches(scores: Sequence[float], full: float) -> list[float]:
    """Returns how well words match, from 0 to 1.

    Args:
        scores: BM25.
        full: What ``full_match`` gave.
    """
    return [1.0 if score >= full else (score / full) ** PARTIAL if score > 0 else 0.0 for score in scores]


def meaning_matches(similarities: Iterable[float], background: float) -> list[float]:
    """Returns how well meanings match, from 0 to 1.

    Args:
        similarities: Cosine similarities.
        background: The cosine similarity of texts that have nothing in common.
    """
    room = 1.0 - background
    return [1.0 if one >= 1.0 else (one - background) / room if one > background else 0.0 for one in similarities]
