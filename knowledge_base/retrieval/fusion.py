"""From the candidates of the retrievers to one ranking."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from knowledge_base.index.candidate import Candidate, Candidates

BM25_MIDPOINT = 10.0
"""The BM25 score that counts as 0.5 where words alone are searched."""


class Ranked(NamedTuple):
    """A fact in the final ranking, and what each retriever found of it."""

    fact_id: str
    revision: str
    score: float
    found: dict[str, Candidate]


class Ranking:
    """Facts with scores from 0 to 1, best first; what was found of each is put together when it is asked for.

    Args:
        owners: Each fact and revision, best first.
        scores: Their scores.
        retrieved: For each retriever, its candidates.
        owned: For each retriever, the owners of its candidates.
    """

    def __init__(
        self,
        owners: Sequence[str],
        scores: Sequence[float],
        retrieved: Mapping[str, Sequence[Candidate]],
        owned: Mapping[str, Sequence[str]],
    ) -> None:
        self._owners = owners
        self._scores = scores
        self._retrieved = retrieved
        self._owned = owned

    def __len__(self) -> int:
        return len(self._owners)

    def __iter__(self) -> Iterator[Ranked]:
        return iter(self.part(0, len(self)))

    def part(self, begin: int, end: int) -> list[Ranked]:
        """Returns the facts from one place to before another.

        Args:
            begin: The first place, from 0.
            end: The place after the last.
        """
        places = {name: _first_places(owners) for name, owners in self._owned.items()}
        ranked = []
        for owner, score in zip(self._owners[begin:end], self._scores[begin:end], strict=True):
            fact_id, _, revision = owner.rpartition(":")
            found = {name: self._retrieved[name][first[owner]] for name, first in places.items() if owner in first}
            ranked.append(Ranked(fact_id, revision, score, found))
        return ranked

    def at_least(self, score: float) -> Ranking:
        """Returns the facts that have at least a score.

        Args:
            score: From 0 to 1.
        """
        count = bisect_right(self._scores, -score, key=lambda one: -one)
        return Ranking(self._owners[:count], self._scores[:count], self._retrieved, self._owned)


def reciprocal_rank_fusion(retrieved: Mapping[str, Candidates], k: int) -> Ranking:
    """Fuses rankings; a fact gets the sum of 1 / (k + rank), divided by what first place everywhere would give.

    Only the best part of each fact and revision takes a rank.

    Source: Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
    methods", SIGIR 2009.

    Args:
        retrieved: For each retriever, its candidates, best first. Of facts with equal sums, those that the first
            retriever ranks higher come first.
        k: The constant of the formula.

    Returns:
        The facts, best first.
    """
    owned = {retriever: candidates.owners for retriever, candidates in retrieved.items()}
    shares = _shares(k, max(map(len, owned.values()), default=0))
    sums: dict[str, float] = {}
    for owners in owned.values():
        ranked = zip(dict.fromkeys(owners), shares, strict=False)
        sums.update(ranked if not sums else [(owner, sums.get(owner, 0.0) + share) for owner, share in ranked])
    # Equal sums stay in the order in which they came up.
    best_first = sorted(sums, key=sums.__getitem__, reverse=True)
    most = len(retrieved) / (k + 1)
    return Ranking(best_first, [sums[owner] / most for owner in best_first], retrieved, owned)


@lru_cache(maxsize=8)
def _shares(k: int, ranks: int) -> list[float]:
    return [1.0 / (k + rank) for rank in range(1, ranks + 1)]


def by_similarity(candidates: Candidates) -> Ranking:
    """Ranks the vector retriever's candidates by their cosine similarity, cut to 0 and 1.

    Args:
        candidates: Best first.
    """
    return _by_score("vector", candidates, lambda similarity: min(1.0, max(0.0, similarity)))


def by_words(candidates: Candidates) -> Ranking:
    """Ranks the text retriever's candidates by BM25, pressed between 0 and 1.

    Args:
        candidates: Best first.
    """
    return _by_score("text", candidates, lambda score: score / (score + BM25_MIDPOINT))


def _by_score(retriever: str, candidates: Candidates, pressed: Callable[[float], float]) -> Ranking:
    owners = candidates.owners
    first = _first_places(owners)
    scores = [pressed(candidates.scores[place]) for place in first.values()]
    return Ranking(list(first), scores, {retriever: candidates}, {retriever: owners})


def _first_places(owners: Sequence[str]) -> dict[str, int]:
    """Returns where each owner stands first, in the order in which they stand."""
    places: dict[str, int] = {}
    for place, owner in enumerate(owners):
        places.setdefault(owner, place)
    return places
