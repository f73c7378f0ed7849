"""``WordFrequencies``: in how many sections a word stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

from redis.exceptions import RedisError

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.errors import KnowledgeBaseError
from knowledge_base.index.schema import STEM_FIELD, Generation

FRESH_FOR = 60.0
"""Seconds that a frequency is used."""

MOST_KNOWN = 20_000
"""Frequencies that are kept."""

MOST_ASKED = 1_000
"""Words of one question to the server; of longer queries, the others count as rare."""

NOBODY = "@fact_id:{\\-}"
"""A clause that nothing passes, so that the server looks the words up and reads nothing of what stands there."""

SIZES = ("Size", "Estimated number of matches")
"""What different versions of the server call the length of a word's list."""


class WordFrequencies:
    """Asks the server for the lengths of its lists, of all words at once and without reading them (0.2 ms).

    Args:
        manager: The connections.
        clock: Monotonic seconds; tests bring their own.
    """

    def __init__(self, manager: AsyncRedisManager, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._manager = manager
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[float, int]] = {}

    async def of(self, generation: Generation, stems: Collection[str]) -> dict[str, int] | None:
        """Returns the number of sections that hold each word; None where the server does not say.

        Args:
            generation: Where to look.
            stems: The words.
        """
        name, now = generation.text_index, self._clock()
        known = {stem: self._known.get((name, stem)) for stem in dict.fromkeys(stems)}
        unknown = [stem for stem, one in known.items() if one is None or now - one[0] >= FRESH_FOR][:MOST_ASKED]
        if unknown:
            asked = await self._asked(name, unknown)
            if asked is None:
                return None
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known.update({(name, stem): (now, asked.get(stem, 0)) for stem in unknown})
        return {stem: self._known.get((name, stem), (now, 0))[1] for stem in known}

    async def _asked(self, name: str, stems: list[str]) -> dict[str, int] | None:
        query = f"{NOBODY} @{STEM_FIELD}:({'|'.join(stems)})"
        options = ["VERBATIM", "NOCONTENT", "LIMIT", 0, 0, "DIALECT", 2]
        try:
            client = await self._manager.search()
            reply = await client.execute_command("FT.PROFILE", name, "SEARCH", "QUERY", query, *options)
        except (RedisError, KnowledgeBaseError):
            # Whoever may not ask for it searches nevertheless, for the words that look telling.
            return None
        return dict(_lengths(reply)) or None


def _lengths(profile: Any) -> Iterator[tuple[str, int]]:
    """Finds the words in a profile, whose form differs from version to version."""
    if not isinstance(profile, list):
        return
    if "Term" in profile and profile[:2] == ["Type", "TEXT"]:
        told = dict(zip(profile[::2], profile[1::2], strict=False))
        yield from ((str(told["Term"]), int(told[size])) for size in SIZES if size in told)
        return
    for inner in profile:
        yield from _lengths(inner)
