"""Where a document is cut: at the strongest places, chosen so that a change stays where it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from zlib import crc32

from knowledge_base.connection.giving_way import giving_way
from knowledge_base.documents.units import BLOCK, GLUED, HEADING, Unit

MIDDLE = 0.25
"""A piece is cut in its middle where it can be: not within this share of its tokens from either end."""


def places_to_cut(units: Sequence[Unit], tokens: int) -> list[int]:
    """Returns the units before which a document is cut, in order, without the first.

    What is too long is cut in two, again and again: at the strongest place in its middle, and of places that are
    equally strong at the one whose text has the largest checksum. So a place stays one when something else changes,
    which it would not if passages were filled one after the other.

    Args:
        units: The units of the document.
        tokens: Tokens of a passage at most.
    """
    sums = [0, *accumulate(unit.tokens for unit in units)]
    chooser = _Chooser(units, sums, tokens)
    chapter = _chapter_strength(units)
    chapters = [at for at in range(1, len(units)) if units[at].strength >= chapter]
    begins = [0, *chapters, len(units)]
    waiting = list(pairwise(begins))
    places = list(chapters)
    for begin, end in giving_way(_emptied(waiting)):
        if not chooser.is_too_long(begin, end):
            continue
        place = chooser.place(begin, end)
        places.append(place)
        waiting += [(begin, place), (place, end)]
    return sorted(places)


def _emptied(waiting: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    while waiting:
        yield waiting.pop()


def _chapter_strength(units: Sequence[Unit]) -> int:
    """Returns the strength of the topmost headings of which there are several."""
    levels = Counter(unit.level for unit in units if unit.level)
    return HEADING - min((level for level, count in levels.items() if count > 1), default=0)


class _Chooser:
    def __init__(self, units: Sequence[Unit], sums: Sequence[int], tokens: int) -> None:
        self._units = units
        self._sums = sums
        self._tokens = tokens

    def is_too_long(self, begin: int, end: int) -> bool:
        first = self._units[begin]
        room = self._tokens if first.begins_block else self._tokens - first.reserved
        return end - begin > 1 and self._sums[end] - self._sums[begin] > room

    def place(self, begin: int, end: int) -> int:
        strongest = max(_kind(self._units[at].strength) for at in range(begin + 1, end))
        candidates = [at for at in range(begin + 1, end) if _kind(self._units[at].strength) == strongest]
        margin = MIDDLE * (self._sums[end] - self._sums[begin])
        least, most = self._sums[begin] + margin, self._sums[end] - margin
        central = [at for at in candidates if least <= self._sums[at] <= most]
        return max(central or candidates, key=self._preference)

    def _preference(self, at: int) -> tuple[int, int]:
        unit = self._units[at]
        return unit.strength, crc32(unit.text.encode())


def _kind(strength: int) -> int:
    # Places within blocks are of one kind: there, it matters more that pieces are of like size.
    return strength if strength >= BLOCK or strength == GLUED else 1
