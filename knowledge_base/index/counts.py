"""``Counts``: how much of an index a query matches, counted up to some number and remembered for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from typing import NamedTuple

from redis.exceptions import RedisError

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.errors import KnowledgeBaseError, UnavailableError

FRESH_FOR = 30.0
"""Seconds that a count is used."""

MOST_COUNTS = 2_000
"""Counts that are kept."""


class _Count(NamedTuple):
    at: float
    matches: int | None


class Counts:
    """Counts what matches.

    Args:
        manager: The connections.
        clock: Monotonic seconds; tests bring their own.
    """

    def __init__(self, manager: AsyncRedisManager, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._manager = manager
        self._clock = clock
        self._counts: dict[tuple[str, str, int], _Count] = {}
        self._counting: dict[tuple[str, str, int], asyncio.Task[int | None]] = {}
        self._closed = False

    async def up_to(self, most: int, index_name: str, query: str) -> int | None:
        """Returns how many match; one more than ``most`` where it is more, None where the server does not say.

        Args:
            most: Where counting ends.
            index_name: The index.
            query: Any query text.

        Raises:
            UnavailableError: It is closed, or was while it counted.
        """
        if self._closed:
            raise _closed_error()
        key = (index_name, query, most)
        known = self._counts.get(key)
        if known is not None and self._clock() - known.at < FRESH_FOR:
            return known.matches
        # Hundreds of searches may want the same count at the same time, and one of them may give up.
        task = self._counting.get(key)
        if task is None:
            counting = self._counted(index_name, query, most)
            task = self._counting[key] = asyncio.get_running_loop().create_task(counting, context=Context())
            task.add_done_callback(lambda _: self._counting.pop(key, None))
        # Awaiting the task itself would end whoever waits as if it had been cancelled, when the task is by closing.
        await asyncio.wait({task})
        if task.cancelled():
            raise _closed_error()
        return task.result()

    async def close(self) -> None:
        """Ends the counts that are under way, and tells those who wait."""
        self._closed = True
        counting = list(self._counting.values())
        for task in counting:
            task.cancel()
        await asyncio.gather(*counting, return_exceptions=True)

    async def _counted(self, index_name: str, query: str, most: int) -> int | None:
        matches: int | None = None
        try:
            client = await self._manager.search()
            # Unlike a search, which would count all, it ends as soon as it has seen enough.
            reply = await client.execute_command("FT.AGGREGATE", index_name, query, "LIMIT", most, 1, "DIALECT", 2)
            matches = int(reply[0])
        except (RedisError, KnowledgeBaseError):
            # Whoever may not count, or cannot now, searches nevertheless, and is told then what is wrong.
            pass
        if len(self._counts) >= MOST_COUNTS:
            self._counts.clear()
        self._counts[index_name, query, most] = _Count(self._clock(), matches)
        return matches


def _closed_error() -> UnavailableError:
    return UnavailableError("the search indices are closed already; open the knowledge base again")
