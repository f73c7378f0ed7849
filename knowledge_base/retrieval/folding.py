"""``Folding``: leaves out passages that say again what another one of the same document says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from knowledge_base.keyspace import PartName
from knowledge_base.retrieval.likeness import Shingle, containment, shingles_of, words_of

NEARLY_ALL = 0.9
"""Of a passage's shingles: when a chosen one has so many of them, it says the same."""

LEAST_WORDS = 30
"""In shorter passages a single word makes the difference: only those with the same words are folded."""


class _Said(NamedTuple):
    position: int
    words: list[str]
    shingles: frozenset[Shingle]


class Folding:
    """What the chosen passages say.

    Passages of one document are folded when they have the same words, or when 90 % of the one's shingles stand in the
    other already and none of its numbers is new: "30 days" and "14 days" are two rules. What neighbours share because
    passages overlap says nothing, and does not count.
    """

    def __init__(self) -> None:
        self._exact: set[str] = set()
        self._said: dict[str, list[_Said]] = {}

    def add(self, name: PartName, text: str) -> None:
        """Remembers a passage that was chosen.

        Args:
            name: Whose it is, and its place there.
            text: Its text.
        """
        self._exact.add(_spaced(text))
        self._said.setdefault(name.fact_id, []).append(_said(name.position, text))

    def is_said(self, name: PartName, text: str) -> bool:
        """Tells whether a passage would only repeat what was chosen, of whatever document if it is the same.

        Args:
            name: Whose it is, and its place there.
            text: Its text.
        """
        if _spaced(text) in self._exact:
            return True
        said = self._said.get(name.fact_id)
        if said is None:
            return False
        new = _said(name.position, text)
        return any(_repeats(new, one) for one in said)


def _said(position: int, text: str) -> _Said:
    words = words_of(text)
    return _Said(position, words, shingles_of(words))


def _repeats(new: _Said, said: _Said) -> bool:
    words, shingles = new.words, new.shingles
    if words == said.words:
        return bool(words)
    if abs(new.position - said.position) == 1:
        words = _own_words(new, said)
        shingles = shingles_of(words)
    if len(words) < LEAST_WORDS or containment(shingles, said.shingles) < NEARLY_ALL:
        return False
    return _numbers(words) <= _numbers(said.words)


def _own_words(new: _Said, neighbour: _Said) -> list[str]:
    """Returns the words of a passage that it does not share with its neighbour because the two overlap."""
    if new.position > neighbour.position:
        return new.words[_overlap(neighbour.words, new.words) :]
    return new.words[: len(new.words) - _overlap(new.words, neighbour.words)]


def _overlap(before: Sequence[str], after: Sequence[str]) -> int:
    """Returns how many words at the end of a passage are those at the beginning of the next one."""
    most = min(len(before), len(after))
    return next((size for size in range(most, 0, -1) if before[-size:] == after[:size]), 0)


def _numbers(words: Sequence[str]) -> set[str]:
    return {word for word in words if any(character.isdigit() for character in word)}


def _spaced(text: str) -> str:
    return " ".join(text.split())
