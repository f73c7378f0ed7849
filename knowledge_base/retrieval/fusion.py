"""From the candidates of the retrievers to one ranking."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from knowledge_base.index.vector_index import Candidate

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
        best: For each retriever, the best candidate by owner.
    """

    def __init__(
        self, owners: Sequence[str], scores: Sequence[float], best: Mapping[str, Mapping[str, Candidate]]
    ) -> None:
        self._owners = owners
        self._scores = scores
        self._best = best

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
        ranked = []
        for owner, score in zip(self._owners[begin:end], self._scores[begin:end], strict=True):
            fact_id, _, revision = owner.rpartition(":")
            found = {name: kept[owner] for name, kept in self._best.items() if owner in kept}
            ranked.append(Ranked(fact_id, revision, score, found))
        return ranked

    def at_least(self, score: float) -> Ranking:
        """Returns the facts that have at least a score.

        Args:
            score: From 0 to 1.
        """
        count = bisect_right(self._scores, -score, key=lambda one: -one)
        return Ranking(self._owners[:count], self._scores[:count], self._best)


def best_of_each_fact(candidates: Sequence[Candidate]) -> dict[str, Candidate]:
    """Keeps the best part of each fact and revision.

    Args:
        candidates: Best first.

    Returns:
        The best candidates by owner, best first.
    """
    kept: dict[str, Candidate] = {}
    for candidate in candidates:
        kept.setdefault(candidate[0].rpartition(":")[0], candidate)
    return kept


def reciprocal_rank_fusion(retrieved: Mapping[str, Sequence[Candidate]], k: int) -> Ranking:
    """Fuses rankings; a fact gets the sum of 1 / (k + rank), divided by what first place everywhere would give.

    Source: Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
    methods", SIGIR 2009.

    Args:
        retrieved: For each retriever, its candidates, best first. Of facts with equal sums, those that the first
            retriever ranks higher come first.
        k: The constant of the formula.

    Returns:
        The facts, best first.
    """
    best = {retriever: best_of_each_fact(candidates) for retriever, candidates in retrieved.items()}
    sums: dict[str, float] = {}
    for kept in best.values():
        for rank, owner in enumerate(kept, start=1):
            sums[owner] = sums.get(owner, 0.0) + 1.0 / (k + rank)
    most = len(retrieved) / (k + 1)
    # Equal sums stay in the order in which they came up.
    owners = sorted(sums, key=sums.__getitem__, reverse=True)
    return Ranking(owners, [sums[owner] / most for owner in owners], best)


def by_similarity(candidates: Sequence[Candidate]) -> Ranking:
    """Ranks the vector retriever's candidates by their cosine similarity, cut to 0 and 1.

    Args:
        candidates: Best first.
    """
    kept = best_of_each_fact(candidates)
    return Ranking(list(kept), [min(1.0, max(0.0, one.score)) for one in kept.values()], {"vector": kept})


def by_words(candidates: Sequence[Candidate]) -> Ranking:
    """Ranks the text retriever's candidates by BM25, pressed between 0 and 1.

    Args:
        candidates: Best first.
    """
    kept = best_of_each_fact(candidates)
    return Ranking(list(kept), [one.score / (one.score + BM25_MIDPOINT) for one in kept.values()], {"text": kept})
