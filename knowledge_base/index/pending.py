"""What waits for its vectors: recorded in Redis with the fact, taken by one process at a time, never lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from knowledge_base.clock import iso_time, now_ms
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import Argument, LuaScript
from knowledge_base.errors import KnowledgeBaseError
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import Keyspace
from knowledge_base.settings import IndexingSettings
from knowledge_base.types import ParkedFact

LOOKED_AT_ONCE = 128
"""Namespaces that one round trip asks about."""

COLLECTED_AT_ONCE = 100
"""Overdue inserts that one script looks after."""

RENEWALS = 3
"""How often in its time a lease is renewed."""


class Work(NamedTuple):
    """What is due in a namespace."""

    namespace: str
    indexing: bool
    expiry: bool
    inserts: bool
    retired: bool
    leftovers: bool


class PendingFacts:
    """The facts of all namespaces that wait for their vectors.

    Args:
        manager: The connections.
        settings: Leases, attempts and pauses.
        now: The time in milliseconds since 1970; tests bring their own.
    """

    def __init__(
        self, manager: AsyncRedisManager, settings: IndexingSettings, *, now: Callable[[], int] = now_ms
    ) -> None:
        self._manager = manager
        self._settings = settings
        self._now = now
        self._claim = LuaScript("knowledge_base.index", "claim")
        self._refuse = LuaScript("knowledge_base.index", "refuse")
        self._forget = LuaScript("knowledge_base.index", "forget", repeatable=True)
        self._unpark = LuaScript("knowledge_base.index", "unpark")
        self._collect = LuaScript("knowledge_base.index", "collect", repeatable=True)

    @property
    def lease_ms(self) -> int:
        """Milliseconds for which a fact is left to whoever took it."""
        return int(self._settings.lease * 1000)

    async def due(self, namespaces: Sequence[str]) -> list[Work]:
        """Returns what is due in namespaces, those without work left out.

        Args:
            namespaces: Where to look.
        """
        client = await self._manager.main()
        now = self._now()
        found: list[Work] = []
        for begin in range(0, len(namespaces), LOOKED_AT_ONCE):
            some = namespaces[begin : begin + LOOKED_AT_ONCE]
            pipeline = client.pipeline(transaction=False)
            for namespace in some:
                keys = Keyspace(namespace)
                for name in _looked_at(keys):
                    pipeline.zcount(name, "-inf", now)
            # A key that something else has written to concerns its namespace only.
            counts = await pipeline.execute(raise_on_error=False)
            if all(isinstance(count, Exception) for count in counts):
                raise counts[0]
            for at, namespace in enumerate(some):
                kinds = len(_looked_at(Keyspace(namespace)))
                is_due = [isinstance(count, int) and count > 0 for count in counts[kinds * at : kinds * (at + 1)]]
                indexing, expiry, inserts, retired, staged, left = is_due
                work = Work(namespace, indexing, expiry, inserts, retired, staged or left)
                if any(work[1:]):
                    found.append(work)
        return found

    async def claim(self, namespace: str, most: int) -> list[str]:
        """Takes facts that are due, so that no other process does before the lease ends.

        Args:
            namespace: Where.
            most: How many at most.
        """
        client = await self._manager.main()
        now = self._now()
        claimed: list[str] = await self._claim(client, [Keyspace(namespace).pending], [now, now + self.lease_ms, most])
        return claimed

    @contextmanager
    def held(self, namespace: str, fact_ids: Collection[str]) -> Iterator[None]:
        """Renews the leases of facts for as long as they are worked at.

        Args:
            namespace: Where they are.
            fact_ids: The facts, looked at anew each time; those that are indexed meanwhile are left alone.
        """
        renewal = _Renewal(lambda: self._set_due(namespace, fact_ids, self.lease_ms), self._settings.lease / RENEWALS)
        try:
            yield
        finally:
            renewal.end()

    async def release(self, namespace: str, fact_ids: Collection[str]) -> None:
        """Makes facts due at once for everybody.

        Args:
            namespace: Where they are.
            fact_ids: The facts; those that wait no longer are left alone.
        """
        await self._set_due(namespace, fact_ids, 0)

    async def forget(self, namespace: str, fact_ids: Sequence[str]) -> None:
        """Takes facts that are gone off the record.

        Args:
            namespace: Where they were.
            fact_ids: The facts; those that were stored again meanwhile stay.
        """
        client = await self._manager.main()
        keys = Keyspace(namespace)
        await self._forget(client, [keys.pending, *map(keys.fact, fact_ids)], list(fact_ids))

    async def refused(self, namespace: str, fact_id: str, reason: str) -> bool:
        """Puts a fact off, each time for longer, that cannot be indexed though others can; in the end, parks it.

        Args:
            namespace: Where it is.
            fact_id: The fact.
            reason: Why, without content.

        Returns:
            Whether it is parked now.
        """
        client = await self._manager.main()
        keys = Keyspace(namespace)
        settings = self._settings
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        arguments: list[Argument] = [
            fact_id,
            self._now(),
            settings.attempts,
            int(settings.retry_after * jitter * 1000),
            int(settings.longest_pause * jitter * 1000),
            reason,
        ]
        return bool(await self._refuse(client, [keys.pending, keys.attempts, keys.parked], arguments))

    async def parked(self, namespace: str) -> list[ParkedFact]:
        """Returns the facts that were given up, the first given up first.

        Args:
            namespace: Where to look.
        """
        client = await self._manager.main()
        found: list[tuple[dict[str, Any], str]] = []
        cursor = -1
        while cursor:
            cursor, rows = await client.hscan(Keyspace(namespace).parked, max(cursor, 0), count=COLLECTED_AT_ONCE)
            found += [(json.loads(row), fact_id) for fact_id, row in rows.items()]
        found.sort(key=lambda item: (item[0]["since"], item[1]))
        return [
            {
                "id": fact_id,
                "reason": row["reason"],
                "attempts": int(row["attempts"]),
                "since": iso_time(int(row["since"])),
            }
            for row, fact_id in found
        ]

    async def unpark(self, namespace: str) -> int:
        """Makes all parked facts due at once.

        Args:
            namespace: Where they are.

        Returns:
            How many there were.
        """
        client = await self._manager.main()
        keys = Keyspace(namespace)
        unparked = 0
        while some := int(await self._unpark(client, [keys.parked, keys.pending], [self._now(), COLLECTED_AT_ONCE])):
            unparked += some
        return unparked

    async def expect(self, namespace: str, fact_id: str, revision: str) -> None:
        """Records that vectors are on their way for a revision that is not the fact's yet.

        Args:
            namespace: Where the fact is.
            fact_id: The fact.
            revision: The revision.
        """
        client = await self._manager.main()
        keys = Keyspace(namespace)
        await client.zadd(keys.inserts, {f"{fact_id}:{revision}": self._now() + 2 * self.lease_ms})

    async def collect(self, generation: Generation) -> None:
        """Removes vectors that came for a revision which is not, or no longer, its fact's.

        Args:
            generation: Where the vectors are.
        """
        client = await self._manager.main()
        keys = Keyspace(generation.namespace)
        now = self._now()
        arguments: list[Argument] = [
            now,
            now + 2 * self.lease_ms,
            COLLECTED_AT_ONCE,
            keys.fact(""),
            f"{generation.passage_prefix}:",
        ]
        while await self._collect(client, [keys.inserts], arguments) == COLLECTED_AT_ONCE:
            continue

    async def _set_due(self, namespace: str, fact_ids: Collection[str], later: int) -> None:
        if not fact_ids:
            return
        client = await self._manager.main()
        due = dict.fromkeys(fact_ids, self._now() + later)
        await client.zadd(Keyspace(namespace).pending, due, xx=True)


def _looked_at(keys: Keyspace) -> tuple[str, ...]:
    return keys.pending, keys.expiring, keys.inserts, keys.retired, keys.staged, keys.leftovers


class _Renewal:
    """Renews a lease every so often; makes a task only once the first time has come."""

    def __init__(self, renew: Callable[[], Awaitable[None]], pause: float) -> None:
        self._renew = renew
        self._pause = pause
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(pause, self._begin)

    def end(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._keep_renewing(), name="kb-lease")

    async def _keep_renewing(self) -> None:
        while True:
            # What cannot be renewed is taken by another process, which does the same work once more.
            with contextlib.suppress(KnowledgeBaseError, ResponseError):
                await self._renew()
            await asyncio.sleep(self._pause)
