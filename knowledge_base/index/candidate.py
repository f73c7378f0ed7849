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
        scores: Their scores.
    """

    __slots__ = ("_keys", "_prefix", "_scores")

    def __init__(self, keys: Sequence[str], prefix: int, scores: Sequence[float]) -> None:
        self._keys = keys
        self._prefix = prefix
        self._scores = scores

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

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, place: int) -> Candidate: ...

    @overload
    def __getitem__(self, place: slice) -> Candidates: ...

    def __getitem__(self, place: int | slice) -> Candidate | Candidates:
        if isinstance(place, slice):
            return Candidates(self._keys[place], self._prefix, self._scores[place])
        return Candidate(self._keys[place][self._prefix :], self._scores[place])

    def __iter__(self) -> Iterator[Candidate]:
        for key, score in zip(self._keys, self._scores, strict=True):
            yield Candidate(key[self._prefix :], score)
