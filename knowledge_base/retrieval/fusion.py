"""From the candidates of the retrievers to one ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from knowledge_base.index.vector_index import Candidate

BM25_MIDPOINT = 10.0
"""The BM25 score that counts as 0.5 where words alone are searched."""


FactKey = tuple[str, str]
"""A fact's id and revision."""


class Ranked(NamedTuple):
    """A fact in the final ranking, and what each retriever found of it."""

    fact_id: str
    revision: str
    score: float
    found: dict[str, Candidate]


def best_of_each_fact(candidates: Sequence[Candidate]) -> dict[FactKey, Candidate]:
    """Keeps the best part of each fact and revision.

    Args:
        candidates: Best first.

    Returns:
        The best candidates by fact and revision, best first.
    """
    kept: dict[FactKey, Candidate] = {}
    for candidate in candidates:
        kept.setdefault((candidate.name.fact_id, candidate.name.revision), candidate)
    return kept


def reciprocal_rank_fusion(retrieved: Mapping[str, Sequence[Candidate]], k: int) -> list[Ranked]:
    """Fuses rankings; a fact gets the sum of 1 / (k + rank), divided by what first place everywhere would give.

    Source: Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
    methods", SIGIR 2009.

    Args:
        retrieved: For each retriever, its candidates, best first. Of facts with equal sums, those that the first
            retriever ranks higher come first.
        k: The constant of the formula.

    Returns:
        The facts with scores from 0 to 1, best first.
    """
    best = {retriever: best_of_each_fact(candidates) for retriever, candidates in retrieved.items()}
    sums: dict[FactKey, float] = {}
    for kept in best.values():
        for rank, fact in enumerate(kept, start=1):
            sums[fact] = sums.get(fact, 0.0) + 1.0 / (k + rank)
    most = len(retrieved) / (k + 1)
    ranked = sorted(sums, key=lambda fact: -sums[fact])
    return [
        Ranked(*fact, sums[fact] / most, {name: kept[fact] for name, kept in best.items() if fact in kept})
        for fact in ranked
    ]


def by_similarity(candidates: Sequence[Candidate]) -> list[Ranked]:
    """Ranks the vector retriever's candidates by their cosine similarity, cut to 0 and 1.

    Args:
        candidates: Best first.
    """
    kept = best_of_each_fact(candidates)
    return [Ranked(*fact, min(1.0, max(0.0, item.score)), {"vector": item}) for fact, item in kept.items()]


def by_words(candidates: Sequence[Candidate]) -> list[Ranked]:
    """Ranks the text retriever's candidates by BM25, pressed between 0 and 1.

    Args:
        candidates: Best first.
    """
    kept = best_of_each_fact(candidates)
    return [Ranked(*fact, item.score / (item.score + BM25_MIDPOINT), {"text": item}) for fact, item in kept.items()]
