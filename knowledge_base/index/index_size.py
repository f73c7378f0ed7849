"""How many sections an index of words has: what BM25 scores depend on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import ResponseError

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.errors import PermissionDeniedError
from knowledge_base.index.schema import Generation

FRESH_FOR = 5.0
"""Seconds that a count is used: scores depend on its logarithm."""

MOST_COUNTS = 1_000
"""Counts that are kept."""

UNKNOWN = 1_000
"""Is assumed where the server does not tell."""


class IndexSize:
    """Asks the server now and then.

    Args:
        manager: The connections.
        clock: Monotonic seconds; tests bring their own.
    """

    def __init__(self, manager: AsyncRedisManager, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._manager = manager
        self._clock = clock
        self._counts: dict[str, tuple[float, int]] = {}

    async def sections(self, generation: Generation) -> int:
        """Returns how many sections there are, as of the last seconds.

        Args:
            generation: Whose index it is.

        Raises:
            UnavailableError: Redis could not be reached, or not in time.
        """
        name = generation.text_index
        known = self._counts.get(name)
        if known is not None and self._clock() - known[0] < FRESH_FOR:
            return known[1]
        count = await self._asked(name)
        if len(self._counts) >= MOST_COUNTS:
            self._counts.clear()
        self._counts[name] = (self._clock(), count)
        return count

    async def _asked(self, name: str) -> int:
        client = await self._manager.search()
        try:
            reply: list[Any] = await client.execute_command("FT.INFO", name)
        except (ResponseError, PermissionDeniedError):
            return UNKNOWN
        told = dict(zip(reply[::2], reply[1::2], strict=False))
        return int(float(told.get("num_docs", UNKNOWN)))
