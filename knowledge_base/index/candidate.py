"""What a retriever finds: passages or sections, each with a score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

from knowledge_base.keyspace import PartName


class Candidate(NamedTuple):
    """A passage or section that a retriever found, and the score it gave."""

    node_id: str
    """Its ``PartName`` as text."""
    score: float

    @property
    def name(self) -> PartName:
        """Whose it is, of which revision, and its place there."""
        return PartName.parse(self.node_id)


class Candidates(Sequence[Candidate]):
    """What one retriever found, best first. A search has hundreds of them and looks at few, which are made then.

    Args:
        keys: The keys of passages or sections.
        prefix: Length of what stands before each node id.
        scores: Their scores, as the retriever gave them.
        matches: How well each matches, from 0 to 1, comparable between retrievers; without them the scores.
    """

    __slots__ = ("_keys", "_matches", "_prefix", "_scores")

    def __init__(
        self, keys: Sequence[str], prefix: int, scores: Sequence[float], matches: Sequence[float] | None = None
    ) -> None:
        self._keys = keys
        self._prefix = prefix
        self._scores = scores
        self._matches = scores if matches is None else matches

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> Candidates:
        """Returns candidates that were made one by one.

        Args:
            candidates: Best first.
        """
        return cls([one.node_id for one in candidates], 0, [one.score for one in candidates])

    @property
    def owners(self) -> list[str]:
        """The fact and revision that each is a part of."""
        prefix = self._prefix
        return [key[prefix : key.rindex(":")] for key in self._keys]

    @property
    def scores(self) -> Sequence[float]:
        """Their scores."""
        return self._scores

    @property
    def matches(self) -> Sequence[float]:
        """How well each matches, from 0 to 1."""
        return self._matches

    def matching(self, matches: Sequence[float]) -> Candidates:
        """Returns the same candidates with other matches.

        Args:
            matches: One of each.
        """
        return Candidates(self._keys, self._prefix, self._scores, matches)

    def followed_by(self, others: Candidates, most: int) -> Candidates:
        """Returns these candidates, and behind them others of the same index, with no higher score than the last.

        Args:
            others: Those that are among these are left out.
            most: How many to return at most.
        """
        there = frozenset(self._keys)
        least = self._scores[-1] if self._scores else float("inf")
        new = [(key, min(score, least)) for key, score in zip(others._keys, others._scores, strict=True)]
        new = [item for item in new if item[0] not in there][: max(0, most - len(self))]
        keys, scores = [*self._keys, *(key for key, _ in new)], [*self._scores, *(score for _, score in new)]
        return Candidates(keys, others._prefix, scores)

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, place: int) -> Candidate: ...

    @overload
    def __getitem__(self, place: slice) -> Candidates: ...

    def __getitem__(self, place: int | slice) -> Candidate | Candidates:
        if isinstance(place, slice):
            return Candidates(self._keys[place], self._prefix, self._scores[place], self._matches[place])
        return Candidate(self._keys[place][self._prefix :], self._scores[place])

    def __iter__(self) -> Iterator[Candidate]:
        for key, score in zip(self._keys, self._scores, strict=True):
            yield Candidate(key[self._prefix :], score)
