"""Diversity: of hits that are alike, the best comes first and the others give way to something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from knowledge_base.heavy_imports import import_heavy
from knowledge_base.retrieval.likeness import shared_words, words_of

NUMBER = "<f4"
"""How a number of a stored vector is written."""


class Spreadable(NamedTuple):
    """A hit, as far as its likeness to others is concerned."""

    score: float
    """How well it answers, from 0 to 1."""
    text: str
    vector: bytes | None
    """As it is stored, or None where there is none (yet)."""


def spread(hits: Sequence[Spreadable], most: int, diversity: float) -> list[int]:
    """Returns the places of the hits to show, in their order: by maximal marginal relevance.

    Each place goes to the hit with the highest (1 - diversity) · relevance - diversity · likeness: its score as a share
    of the best one's, and its likeness to that hit among those before it that it is most like. Likeness is the cosine
    of the vectors, cut at 0; where one of two has none, the share of their words that they have in common.

    Source: Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
    summaries", SIGIR 1998.

    Takes milliseconds: call it in a thread.

    Args:
        hits: Best first.
        most: How many are wanted.
        diversity: From 0, which changes nothing, to 1, where only the first is chosen for its score.
    """
    numpy: Any = import_heavy("numpy")
    likeness = _Likeness(hits)
    best = max((hit.score for hit in hits), default=0.0)
    relevance = numpy.array([hit.score / best if best > 0 else 0.0 for hit in hits])
    nearest = numpy.zeros(len(hits))
    is_left = numpy.ones(len(hits), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(most, len(hits)):
        gains = (1 - diversity) * relevance - diversity * nearest if chosen else relevance
        # Of equal ones the first, which was ranked higher.
        place = int(numpy.argmax(numpy.where(is_left, gains, -numpy.inf)))
        chosen.append(place)
        is_left[place] = False
        nearest = numpy.maximum(nearest, likeness.to(place))
    return chosen


class _Likeness:
    """How like each of some hits is to one of them, from 0 to 1.

    Args:
        hits: All hits.
    """

    def __init__(self, hits: Sequence[Spreadable]) -> None:
        numpy: Any = import_heavy("numpy")
        self._hits = hits
        self._words: dict[int, frozenset[str]] = {}
        sizes = [len(hit.vector) for hit in hits if hit.vector]
        size = max(sizes, key=sizes.count, default=0)
        # While a base is moved to another model, a few may have a vector of another length.
        self._has = [hit.vector is not None and len(hit.vector) == size > 0 for hit in hits]
        packed = b"".join(hit.vector for hit, has in zip(hits, self._has, strict=True) if has and hit.vector)
        rows = numpy.frombuffer(packed, dtype=NUMBER).reshape(sum(self._has), -1) if packed else None
        self._rows = numpy.zeros((len(hits), size // 4))
        if rows is not None:
            lengths = numpy.linalg.norm(rows, axis=1, keepdims=True)
            self._rows[self._has] = numpy.divide(rows, lengths, out=numpy.zeros_like(rows), where=lengths > 0)

    def to(self, place: int) -> Any:
        """Returns each hit's likeness to one.

        Args:
            place: Which one.
        """
        likeness = (self._rows @ self._rows[place]).clip(0.0, 1.0)
        for other, has in enumerate(self._has):
            if not (has and self._has[place]):
                likeness[other] = shared_words(self._word_set(place), self._word_set(other))
        return likeness

    def _word_set(self, place: int) -> frozenset[str]:
        if place not in self._words:
            self._words[place] = frozenset(words_of(self._hits[place].text))
        return self._words[place]
