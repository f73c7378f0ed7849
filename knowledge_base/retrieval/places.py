"""Where in its document a passage stands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

PLACE_FIELDS = ("section_path", "page_start", "page_end")
"""Fields of a passage that say it."""


class Place(NamedTuple):
    """The headings and pages that a passage stands under; nothing of it is known of a fact that is from no document."""

    section_path: tuple[str, ...]
    page_start: int | None
    page_end: int | None

    @property
    def section_title(self) -> str | None:
        """Title of the innermost section."""
        return self.section_path[-1] if self.section_path else None


NOWHERE = Place((), None, None)


def decode_place(values: Sequence[str | None]) -> Place | None:
    """Returns a place; None when nothing of it is known.

    Args:
        values: The values of ``PLACE_FIELDS``.
    """
    path, start, end = values
    if path is None:
        return None
    return Place(tuple(json.loads(path)), int(start) if start else None, int(end) if end else None)


def joined_place(places: Sequence[Place], best: Place) -> Place:
    """Returns where neighbours stand that are one text: on all their pages, in the section of the best of them.

    Args:
        places: Their places.
        best: The place of the one that answers best.
    """
    starts = [place.page_start for place in places if place.page_start is not None]
    ends = [place.page_end for place in places if place.page_end is not None]
    return Place(best.section_path, min(starts, default=None), max(ends, default=None))
