"""From the candidates of the retrievers to one ranking."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from knowledge_base.index.candidate import Candidate, Candidates


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


def convex_combination(text: Candidates, vector: Candidates, *, weight: float, depth: int) -> Ranking:
    """Fuses both retrievers' candidates by their scores; a fact gets weight · meaning + (1 - weight) · words.

    Both are the candidates' ``matches``, from 0 to 1, and mean the same in every search, so that the sum does. What a
    retriever did not find is at best as good as the last that it found.

    Source: Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", ACM TOIS 42(1), 2023.

    Args:
        text: Best first. Of facts with equal scores, those that it ranks higher come first.
        vector: Best first.
        weight: Share of the meaning, from 0 to 1.
        depth: Candidates that each retriever was asked for.

    Returns:
        The facts, best first.
    """
    owned = {"text": text.owners, "vector": vector.owners}
    words = _best(owned["text"], text.matches)
    meaning = _best(owned["vector"], vector.matches)
    least_words = min(words.values()) if len(text) >= depth else 0.0
    least_meaning = min(meaning.values(), default=0.0)
    # A retriever that found nothing at all has nothing to say about anything.
    share = weight if words and meaning else float(bool(meaning))
    scores = {
        owner: share * meaning.get(owner, least_meaning) + (1.0 - share) * words.get(owner, least_words)
        for owner in words | meaning
    }
    best_first = sorted(scores, key=scores.__getitem__, reverse=True)
    return Ranking(best_first, [scores[owner] for owner in best_first], {"text": text, "vector": vector}, owned)


def by_similarity(candidates: Candidates) -> Ranking:
    """Ranks the vector retriever's candidates by how well their meaning matches.

    Args:
        candidates: Best first.
    """
    return _by_score("vector", candidates, candidates.matches)


def by_words(candidates: Candidates) -> Ranking:
    """Ranks the text retriever's candidates by how well their words match.

    Args:
        candidates: Best first.
    """
    return _by_score("text", candidates, candidates.matches)


def _by_score(retriever: str, candidates: Candidates, scores: Sequence[float]) -> Ranking:
    owners = candidates.owners
    best = _best(owners, scores)
    return Ranking(list(best), list(best.values()), {retriever: candidates}, {retriever: owners})


def _best(owners: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
    """Returns each owner's first, and so best, score."""
    best: dict[str, float] = {}
    for owner, score in zip(owners, scores, strict=True):
        best.setdefault(owner, score)
    return best


def _first_places(owners: Sequence[str]) -> dict[str, int]:
    """Returns where each owner stands first, in the order in which they stand."""
    places: dict[str, int] = {}
    for place, owner in enumerate(owners):
        places.setdefault(owner, place)
    return places
