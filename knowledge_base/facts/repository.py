"""Facts in Redis: every change of one is a single atomic script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from knowledge_base.clock import now_ms
from knowledge_base.connection.hashes import HashGroup, Row, read_hashes
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import Call, LuaScript
from knowledge_base.connection.shared_reads import SharedReads
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.errors import FactNotFoundError, VersionConflictError
from knowledge_base.facts.draft import FactDraft
from knowledge_base.facts.parts import FactParts
from knowledge_base.facts.records import FIELDS, LABELS, METADATA, VERSION, FactRecord, decode_record, decode_version
from knowledge_base.facts.requests import FactRequests, base_request
from knowledge_base.facts.validation import encoded_json
from knowledge_base.index.generations import GenerationMovedError
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import OPEN, Keyspace
from knowledge_base.types import FactVersion

SWEPT_AT_ONCE = 100
"""Expired facts that one script removes."""

RECORD_WEIGHT = 500
"""Characters of JSON that take about as long as the rest of a record."""

DECODED_AT_ONCE = 65_536
"""Characters of JSON that are decoded before the event loop gets its turn; so many take some 2 ms."""


class Stored(NamedTuple):
    """What a script says became of a fact."""

    status: str
    fact_id: str
    version: int
    indexed: bool


class FactRepository:
    """Reads and changes the facts of all namespaces.

    Args:
        manager: The connections.
        threads: Where long requests are made.
        keep_history: Earlier versions kept of each fact.
        lease: Seconds that whoever stored a fact has to index it before the background takes it.
        now: The time in milliseconds since 1970; tests bring their own.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        threads: WorkloadThreads,
        *,
        keep_history: int,
        lease: float,
        now: Callable[[], int] = now_ms,
    ) -> None:
        self._manager = manager
        self._reads = SharedReads(manager, "main")
        self._requests = FactRequests(threads, keep_history=keep_history, lease=lease, now=now)
        self.now = now
        # A deletion that is repeated would find nothing, and say so.
        self._store, self._update, self._delete, self._sweep = (
            LuaScript("knowledge_base.facts", "shared", name, repeatable=name != "delete")
            for name in ("store", "update", "delete", "sweep")
        )

    async def store(self, generation: Generation, drafts: Sequence[tuple[FactDraft, FactParts]]) -> list[Any]:
        """Stores new facts, each by itself, in one round trip.

        Args:
            generation: Where their passages go.
            drafts: Facts of its namespace, and their parts.

        Returns:
            For each, a ``Stored`` ("success", "duplicate" or "conflict") or the exception that it failed with.
        """
        client = await self._manager.main()
        keys = Keyspace(generation.namespace)
        calls: list[Call] = []
        for draft, parts in drafts:
            calls.append(([keys.fact(draft.fact_id)], [await self._requests.store(generation, draft, parts)]))
            await asyncio.sleep(0)
        replies = [await self._store(client, *calls[0])] if len(calls) == 1 else await self._store.many(client, calls)
        return [reply if isinstance(reply, Exception) else _stored(reply, generation) for reply in replies]

    async def update(
        self,
        generation: Generation,
        old: FactRecord,
        new: FactRecord,
        parts: FactParts,
        callers: Sequence[str],
    ) -> Stored:
        """Switches a fact to its next version if nobody else has.

        Args:
            generation: Where its passages are.
            old: The fact as it was read.
            new: The fact as it shall be; of its revision, when the content changes.
            parts: Its new parts; only labels when the content stays.
            callers: Who is asking.

        Raises:
            FactNotFoundError: It is gone.
            VersionConflictError: It was changed meanwhile, or another fact has the new content.
            GenerationMovedError: The generation is not the live one any more.
        """
        client = await self._manager.main()
        keys = Keyspace(generation.namespace)
        request = await self._requests.update(generation, old, new, parts, callers)
        reply = await self._update(client, [keys.fact(old.fact_id)], [request])
        if reply[0] == "missing":
            raise FactNotFoundError(old.fact_id, generation.namespace)
        stored = _stored(reply, generation)
        if isinstance(stored, GenerationMovedError):
            raise stored
        if stored.status == "conflict":
            raise VersionConflictError(old.fact_id, old.version, stored.version)
        if stored.status == "duplicate":
            raise VersionConflictError(stored.fact_id, 0, stored.version)
        return stored

    async def delete(
        self,
        generation: Generation,
        fact_id: str,
        callers: Sequence[str],
        expected_version: int | None,
        created_at: int | None = None,
    ) -> bool:
        """Deletes a fact.

        Args:
            generation: Where its passages are.
            fact_id: The fact.
            callers: Who is asking.
            expected_version: The version that it must have, or None for any.
            created_at: When it must have been stored first, in milliseconds since 1970, or None for any time.

        Returns:
            Whether it was there and visible.

        Raises:
            VersionConflictError: It has another version.
            GenerationMovedError: The generation is not the live one any more.
        """
        client = await self._manager.main()
        request = {
            **base_request(generation, self.now()),
            "fact_id": fact_id,
            "callers": list(callers),
            "expected_version": "" if expected_version is None else str(expected_version),
            "created_at": "" if created_at is None else str(created_at),
        }
        key = Keyspace(generation.namespace).fact(fact_id)
        reply = await self._delete(client, [key], [encoded_json(request)])
        if reply[0] == "moved":
            raise GenerationMovedError(generation.namespace)
        if reply[0] == "conflict":
            raise VersionConflictError(fact_id, expected_version or 0, int(reply[1]))
        return bool(reply[0] == "deleted")

    async def sweep(self, generation: Generation) -> None:
        """Removes what has expired, so that counts and pages are right.

        Args:
            generation: Where the passages are.
        """
        client = await self._manager.main()
        request = encoded_json({**base_request(generation, self.now()), "most": SWEPT_AT_ONCE})
        while await self._sweep(client, [Keyspace(generation.namespace).expiring], [request]) == SWEPT_AT_ONCE:
            continue

    async def read(self, namespace: str, fact_ids: Sequence[str], principals: Sequence[str]) -> list[FactRecord | None]:
        """Returns facts in the order asked for, None for each that is not there or not visible.

        Args:
            namespace: Where to look.
            fact_ids: The facts.
            principals: Who is asking.
        """
        asked = self.hashes(namespace, fact_ids)
        if len(fact_ids) == 1:
            return await self.visible(fact_ids, (await self._reads.rows([asked]))[0], principals)
        client = await self._manager.main()
        found: list[FactRecord | None] = []
        async for rows in read_hashes(client, asked.keys, asked.fields):
            found += await self.visible(fact_ids[len(found) :], rows, principals)
        return found

    def hashes(self, namespace: str, fact_ids: Sequence[str]) -> HashGroup:
        """Returns where facts are read from, for those who read something else along with them.

        Args:
            namespace: Where they are.
            fact_ids: The facts.
        """
        keys = Keyspace(namespace)
        return HashGroup([keys.fact(fact_id) for fact_id in fact_ids], FIELDS)

    def labels(self, namespace: str, fact_ids: Sequence[str]) -> HashGroup:
        """Returns where facts are read from without their content; see ``hashes``.

        Args:
            namespace: Where they are.
            fact_ids: The facts.
        """
        return HashGroup(self.hashes(namespace, fact_ids).keys, LABELS)

    async def visible(
        self, fact_ids: Sequence[str], rows: Sequence[Row], principals: Sequence[str]
    ) -> list[FactRecord | None]:
        """Returns the facts that were read, None for each that is not there or not visible.

        Args:
            fact_ids: The facts, or more.
            rows: What was read from their ``hashes``, or ``labels``: then their content is empty.
            principals: Who is asking.
        """
        now = self.now()
        found: list[FactRecord | None] = []
        decoded = 0
        for fact_id, values in zip(fact_ids, rows, strict=False):
            row = values if len(values) == len(FIELDS) else _without_content(values)
            record = decode_record(fact_id, row)
            found.append(record if record and record.is_visible(principals, now) else None)
            decoded = await _turn(decoded + RECORD_WEIGHT + len(row[METADATA] or ""))
        return found

    async def newest(self, namespace: str, principals: Sequence[str], offset: int, limit: int) -> list[str]:
        """Returns the ids of visible facts, newest first.

        Args:
            namespace: Where to look.
            principals: Who is asking.
            offset: How many to skip.
            limit: How many to return at most.
        """
        client = await self._manager.main()
        keys = Keyspace(namespace)
        lists = [keys.visible(principal) for principal in (OPEN, *principals)]
        if len(lists) == 1:
            ids: list[str] = await client.zrange(lists[0], offset, offset + limit - 1, desc=True)
            return ids
        pipeline = client.pipeline(transaction=False)
        for name in lists:
            pipeline.zrange(name, 0, offset + limit - 1, desc=True, withscores=True)
        return _merged(await pipeline.execute(), newest_first=True)[offset : offset + limit]

    async def after(self, namespace: str, principals: Sequence[str], seq: float, limit: int) -> list[tuple[str, float]]:
        """Returns ids and sequence numbers of visible facts, oldest first.

        Args:
            namespace: Where to look.
            principals: Who is asking.
            seq: The sequence number after which to begin.
            limit: How many to return at most.
        """
        client = await self._manager.main()
        keys = Keyspace(namespace)
        pipeline = client.pipeline(transaction=False)
        for principal in (OPEN, *principals):
            pipeline.zrangebyscore(keys.visible(principal), f"({seq:.0f}", "+inf", start=0, num=limit, withscores=True)
        rows = await pipeline.execute()
        scores = {fact_id: score for row in rows for fact_id, score in row}
        return [(fact_id, scores[fact_id]) for fact_id in _merged(rows, newest_first=False)[:limit]]

    async def history(self, namespace: str, fact_id: str, principals: Sequence[str]) -> list[FactVersion]:
        """Returns a fact's versions, the current one first; nothing when it is not there or not visible.

        Args:
            namespace: Where to look.
            fact_id: The fact.
            principals: Who is asking.
        """
        client = await self._manager.main()
        keys = Keyspace(namespace)
        # In one transaction: the history of another fact that takes the id meanwhile is not this caller's.
        pipeline = client.pipeline(transaction=True)
        pipeline.hmget(keys.fact(fact_id), list(FIELDS))
        pipeline.lrange(keys.history(fact_id), 0, -1)
        values, snapshots = await pipeline.execute()
        record = decode_record(fact_id, values)
        if record is None or record.document_id is not None or not record.is_visible(principals, self.now()):
            return []
        versions = [record.to_version()]
        decoded = 0
        for snapshot in snapshots:
            versions.append(decode_version(snapshot))
            decoded = await _turn(decoded + len(snapshot))
        return versions


def _without_content(labels: Row) -> Row:
    return (None if labels[VERSION - 1] is None else "", *labels)


async def _turn(decoded: int) -> int:
    """Gives the event loop its turn when much was decoded since the last one; returns how much was."""
    if decoded < DECODED_AT_ONCE:
        return decoded
    await asyncio.sleep(0)
    return 0


def _stored(reply: Sequence[str], generation: Generation) -> Stored | GenerationMovedError:
    if reply[0] == "moved":
        return GenerationMovedError(generation.namespace)
    status, fact_id, version, *rest = reply
    return Stored(status, fact_id, int(version), rest == ["1"])


def _merged(rows: Sequence[Sequence[tuple[str, float]]], *, newest_first: bool) -> list[str]:
    scores = {fact_id: score for row in rows for fact_id, score in row}
    return sorted(scores, key=lambda fact_id: scores[fact_id], reverse=newest_first)
