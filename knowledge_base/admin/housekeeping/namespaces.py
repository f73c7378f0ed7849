"""Namespaces as a whole: which there are, and how one is switched off and goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.exceptions import ResponseError

from knowledge_base.connection.admission import Admission
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import LuaScript
from knowledge_base.connection.workload import call_outside, job
from knowledge_base.errors import KnowledgeBaseError, PermissionDeniedError, UnavailableError
from knowledge_base.index.generations import FRESH_FOR, Generations, is_missing_index
from knowledge_base.keyspace import NAMESPACES_KEY, SWITCHED_OFF, Keyspace
from knowledge_base.types import NamespaceReport, NamespaceStats, Progress

logger = logging.getLogger(__name__)

LOOKED_AT_ONCE = 100
"""Namespaces that one round trip asks about."""

SCANNED_AT_ONCE = 1_000
"""Keys of the whole server that one page of a scan looks at."""

UNLINKED_AT_ONCE = 200
"""Keys that one command removes; the server takes their memory back beside its other work."""

DROP = "drop"
"""Why a namespace is off that is being dropped."""

OFF_SECONDS = 2 * FRESH_FOR
"""How long a namespace is off at least: by then no process takes it for live any more."""


class Namespaces:
    """Lists namespaces, and drops them.

    Args:
        manager: The connections.
        generations: Which generation of each namespace is live.
        admission: The places of jobs.
        wait: Seconds to wait for a place.
    """

    def __init__(
        self, manager: AsyncRedisManager, generations: Generations, admission: Admission, *, wait: float
    ) -> None:
        self._manager = manager
        self._generations = generations
        self._admission = admission
        self._wait = wait
        self._switch_off = LuaScript("knowledge_base.admin", "switch_namespace_off", repeatable=True)
        self._switch_on = LuaScript("knowledge_base.admin", "switch_namespace_on", repeatable=True)

    async def all(self) -> list[NamespaceStats]:
        """Returns what is in each namespace, in order of name."""
        names = await self._generations.namespaces()
        found: list[NamespaceStats] = []
        with job():
            for begin in range(0, len(names), LOOKED_AT_ONCE):
                found += await self._read(names[begin : begin + LOOKED_AT_ONCE])
        return found

    async def one(self, namespace: str) -> NamespaceStats | None:
        """Returns what is in a namespace, or None when it does not exist.

        Args:
            namespace: The namespace.
        """
        with job():
            found = await self._read([namespace])
        return found[0] if found else None

    async def drop(self, namespace: str, progress: Progress | None) -> NamespaceReport:
        """Removes a namespace with everything in it.

        It is switched off first: writers are refused from then on, and readers within a second, until it is gone;
        thereafter whoever writes begins a new one.

        Args:
            namespace: The namespace; one that is half dropped already goes as well.
            progress: Called after each page with how many keys are removed so far.

        Returns:
            What was there, and how many keys were removed.

        Raises:
            UnavailableError: Redis could not be reached; the namespace stays off, and the same call goes on.
        """
        begun = time.monotonic()
        async with self._admission.place(self._wait):
            with job():
                there = await self.one(namespace)
                await self.switch_off(namespace, secrets.token_hex(8), DROP)
                keys = await self.remove(namespace, progress)
        return {
            "namespace": namespace,
            "target": None,
            "facts": there["facts"] if there else 0,
            "documents": there["documents"] if there else 0,
            "keys": keys,
            "took_s": round(time.monotonic() - begun, 3),
        }

    async def switch_off(self, namespace: str, token: str, purpose: str) -> bool:
        """Lets no process change a namespace, or take it for live, from now on.

        Args:
            namespace: The namespace.
            token: Names the caller, for ``switch_on``.
            purpose: What for; only dropping may take over what is off for something else.

        Returns:
            Whether it exists.

        Raises:
            UnavailableError: It is off for something else.
        """
        client = await self._manager.main()
        reply = await self._switch_off(client, [Keyspace(namespace).generation], [SWITCHED_OFF, token, purpose])
        self._generations.forget(namespace)
        if reply == "other":
            raise UnavailableError(f"namespace {namespace!r} is being dropped or renamed; that call must end first")
        return bool(reply == "ok")

    async def switch_on(self, namespace: str, token: str) -> bool:
        """Takes back that a namespace was switched off.

        Args:
            namespace: The namespace.
            token: As given to ``switch_off``.

        Returns:
            Whether it is live again; not when somebody else has switched it off since.
        """
        client = await self._manager.main()
        reply = await self._switch_on(client, [Keyspace(namespace).generation], [SWITCHED_OFF, token])
        self._generations.forget(namespace)
        return bool(reply)

    async def remove(self, namespace: str, progress: Progress | None) -> int:
        """Removes all keys and indices of a namespace that is switched off, and its entry.

        Args:
            namespace: The namespace.
            progress: Called after each page with how many keys are removed so far.

        Returns:
            How many keys were removed.
        """
        begun = time.monotonic()
        await self._drop_indices(namespace)
        removed = await self._unlink(namespace, 0, progress)
        # Whoever began before it was off, and had to wait, is refused meanwhile; what he left behind goes as well.
        await asyncio.sleep(max(0.0, begun + OFF_SECONDS - time.monotonic()))
        removed += await self._unlink(namespace, removed, progress)
        client = await self._manager.main()
        pipeline = client.pipeline(transaction=False)
        pipeline.srem(NAMESPACES_KEY, namespace)
        pipeline.unlink(Keyspace(namespace).generation)
        _, last = await pipeline.execute(repeatable=True)
        self._generations.forget(namespace)
        await self._complete_successor(namespace)
        logger.info("dropped a namespace", extra={"knowledge_namespace": namespace, "keys": removed})
        return removed + int(last)

    async def _read(self, namespaces: Sequence[str]) -> list[NamespaceStats]:
        client = await self._manager.main()
        pipeline = client.pipeline(transaction=False)
        for namespace in namespaces:
            keys = Keyspace(namespace)
            pipeline.hmget(keys.generation, ["number", "model", "dimension"])
            pipeline.zcard(keys.facts)
            pipeline.zcard(keys.documents)
            pipeline.hget(keys.counters, "passages")
            pipeline.zcard(keys.pending)
        replies = await pipeline.execute(raise_on_error=False)
        if replies and all(isinstance(reply, Exception) for reply in replies):
            raise replies[0]
        found = [_stats(namespace, replies[5 * at : 5 * at + 5]) for at, namespace in enumerate(namespaces)]
        return [one for one in found if one is not None]

    async def _drop_indices(self, namespace: str) -> None:
        client = await self._manager.main()
        for name in await self._indices(namespace):
            try:
                await client.execute_command("FT.DROPINDEX", name)
            except ResponseError as error:
                if not is_missing_index(error):
                    raise

    async def _indices(self, namespace: str) -> list[str]:
        client = await self._manager.main()
        keys = Keyspace(namespace)
        try:
            names: list[str] = await client.execute_command("FT._LIST")
        except PermissionDeniedError:
            # Whoever may not list them knows at least those that are, or were just now, in use.
            number, build = await client.hmget(keys.generation, ["number_before", "build"])  # type: ignore[misc]
            if number is None:
                return []
            builds = range(1, int(build or 1) + 1)
            return [name(int(number), one) for one in builds for name in (keys.text_index, keys.vector_index)]
        return [name for name in names if name.startswith(keys.root)]

    async def _unlink(self, namespace: str, before: int, progress: Progress | None) -> int:
        keys = Keyspace(namespace)
        removed = 0
        client = await self._manager.main()
        async for found in self._pages(f"{keys.root}*"):
            names = [name for name in found if name.startswith(keys.root) and name != keys.generation]
            for begin in range(0, len(names), UNLINKED_AT_ONCE):
                removed += int(await client.unlink(*names[begin : begin + UNLINKED_AT_ONCE]))
            if names and progress is not None:
                call_outside(progress, before + removed, before + removed)
        return removed

    async def _pages(self, pattern: str) -> AsyncIterator[list[str]]:
        client = await self._manager.main()
        cursor: Any = -1
        while cursor:
            cursor, names = await client.scan(max(int(cursor), 0), match=pattern, count=SCANNED_AT_ONCE)
            yield names

    async def _complete_successor(self, namespace: str) -> None:
        # A writer that had its generation from before makes the record anew, but neither index nor entry.
        with contextlib.suppress(KnowledgeBaseError):
            generation = await self._generations.current(namespace)
            if generation is not None:
                await self._generations.make_whole(generation)


def _stats(namespace: str, replies: Sequence[Any]) -> NamespaceStats | None:
    # A key that something else has written to concerns its namespace only.
    generation, facts, documents, passages, pending = (
        None if isinstance(reply, Exception) else reply for reply in replies
    )
    number, model, dimension = generation or (None, None, None)
    if number is None:
        return None
    return {
        "namespace": namespace,
        "facts": int(facts or 0),
        "documents": int(documents or 0),
        "passages": int(passages or 0),
        "pending": int(pending or 0),
        "embedding_model": model,
        "dimension": int(dimension) if dimension else None,
        "state": "off" if number == SWITCHED_OFF else "live",
    }
