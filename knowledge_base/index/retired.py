"""Generations that are live no longer, or never were: dropped by their own names when nobody searches them any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from redis.exceptions import ResponseError

from knowledge_base.clock import now_ms
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.index.generations import Generations
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import Keyspace

SCANNED_AT_ONCE = 500
"""Keys that one page of a scan looks at; removing so many takes the server about a millisecond."""

BUILDS_BEYOND = 3
"""Builds beyond the recorded one that may exist."""

PAUSE = 0.001
"""Seconds between pages, in which others have the server for themselves."""


class RetiredGenerations:
    """Drops what a rebuild has left behind.

    Args:
        manager: The connections.
        generations: Drop indices.
        now: The time in milliseconds since 1970; tests bring their own.
    """

    def __init__(
        self, manager: AsyncRedisManager, generations: Generations, *, now: Callable[[], int] = now_ms
    ) -> None:
        self._manager = manager
        self._generations = generations
        self._now = now

    async def drop_due(self, namespace: str) -> int:
        """Drops the generations of a namespace whose time has come.

        Args:
            namespace: The namespace.

        Returns:
            How many were dropped.
        """
        client = await self._manager.main()
        due: list[str] = await client.zrangebyscore(Keyspace(namespace).retired, "-inf", self._now())
        for member in due:
            await self.drop(namespace, member)
        return len(due)

    async def drop(self, namespace: str, member: str) -> None:
        """Drops a generation: its indices, then its passages and sections, then the record that they are there.

        Args:
            namespace: The namespace.
            member: Its number and build, as recorded.
        """
        client = await self._manager.main()
        number, _, build = member.partition(":")
        live = await self._generations.read(namespace)
        is_one = number.isdecimal() and build.isdecimal()
        if is_one and (live is None or live.number != int(number)):
            retired = Generation(namespace, int(number), "", 0)
            # Without their indices first, each removal would have to be indexed. Some that had vanished may have been
            # made anew, under the names of builds that were never recorded.
            for other in range(1, int(build) + BUILDS_BEYOND + 1):
                await self._generations.drop_indices(replace(retired, build=other))
            await self._remove_parts(retired)
        with suppress(ResponseError):
            await client.zrem(Keyspace(namespace).retired, member)

    async def _remove_parts(self, generation: Generation) -> None:
        client = await self._manager.main()
        prefixes = (f"{generation.passage_prefix}:", f"{generation.section_prefix}:")
        pattern = f"{Keyspace(generation.namespace).root}*:{generation.number}:*"
        cursor = -1
        while cursor:
            cursor, keys = await client.scan(max(cursor, 0), match=pattern, count=SCANNED_AT_ONCE)
            # The pattern lets keys of facts pass whose ids look alike.
            own = [key for key in keys if key.startswith(prefixes)]
            if own:
                await client.unlink(*own)
            await asyncio.sleep(PAUSE)
