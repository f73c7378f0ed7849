"""Copying a namespace beside traffic, and renaming it: a copy, a last look while it is off, and the old one goes."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from knowledge_base.admin.housekeeping.namespaces import Namespaces
from knowledge_base.admin.housekeeping.whole_facts import WholeFacts
from knowledge_base.connection.admission import Admission
from knowledge_base.connection.hashes import read_hashes
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import Argument, LuaScript
from knowledge_base.connection.workload import call_outside, job
from knowledge_base.documents.records import DocumentArchive
from knowledge_base.documents.repository import DocumentRepository
from knowledge_base.errors import InvalidInputError, KnowledgeBaseError, UnavailableError
from knowledge_base.facts.repository import FactRepository
from knowledge_base.facts.restore import FactRestorer
from knowledge_base.index.generations import Generations
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import SWITCHED_OFF, Keyspace
from knowledge_base.types import NamespaceReport, Progress

PAGE = 32
"""Facts that are copied at a time."""

COMPARED_AT_ONCE = 1_000
LONGEST_PAUSE = 0.1
"""Seconds that others have the server for themselves after a page, at most."""

LEASE_MS = 60_000
"""Milliseconds that a copy is left to whoever is at it; renewed with each page."""

ROUNDS = 20
"""How often a namespace that is off is compared with its copy until they agree."""

COMPARED = ("version", "created_at", "updated_at", "digest", "expires_at")
"""Fields that are alike when a fact, or a document, is."""
REFUSALS = {
    "exists": "exists already; choose another name, or drop it first",
    "other": "is being filled from another namespace; drop it first",
}


class _Copy:
    """One copy under way."""

    def __init__(
        self, source: Generation, target: Generation, token: str, progress: Progress | None, *, is_verified: bool
    ) -> None:
        self.source = source
        self.target = target
        self.token = token
        self.is_verified = is_verified
        self.done = 0
        self.total = 0
        self._progress = progress

    def advance(self, by: int) -> None:
        self.done += by
        if self._progress is not None:
            call_outside(self._progress, self.done, max(self.done, self.total))


class NamespaceCopies:
    """Copies and renames namespaces.

    Facts are read and written anew, each in one atomic step, instead of copying keys: what is copied while others
    write is never half of anything, counts and indices of the copy are right at each moment, and it works between the
    shards of a cluster.

    Args:
        manager: The connections.
        generations: Which generation of each namespace is live.
        namespaces: Switches namespaces off, and removes them.
        facts: Reads facts with all that is kept of them.
        restorer: Writes them.
        archive: Reads and writes documents.
        repository: Deletes from a copy what has gone meanwhile.
        documents: The same for documents.
        admission: The places of jobs.
        wait: Seconds to wait for a place.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        generations: Generations,
        namespaces: Namespaces,
        facts: WholeFacts,
        restorer: FactRestorer,
        archive: DocumentArchive,
        repository: FactRepository,
        documents: DocumentRepository,
        admission: Admission,
        *,
        wait: float,
    ) -> None:
        self._manager = manager
        self._generations = generations
        self._namespaces = namespaces
        self._facts = facts
        self._restorer = restorer
        self._archive = archive
        self._repository = repository
        self._documents = documents
        self._admission = admission
        self._wait = wait
        self._claim_copy = LuaScript("knowledge_base.admin", "claim_copy", repeatable=True)
        self._release_copy = LuaScript("knowledge_base.admin", "release_copy", repeatable=True)

    async def copy(self, source: str, target: str, progress: Progress | None) -> NamespaceReport:
        """Copies facts with ids, versions, times, history and vectors, and documents.

        Args:
            source: Where from; it may be changed meanwhile.
            target: Where to; must not exist, unless the same copy was broken off before, which is gone on with.
            progress: Called with how many facts and documents are done and how many there are.

        Raises:
            InvalidInputError: There is no such source, or the target exists.
            UnavailableError: Somebody else is copying there, or Redis could not be reached: the same call goes on.
        """
        begun = time.monotonic()
        async with self._admission.place(self._wait):
            with job():
                async with self._claimed(await self._live(source), target, progress) as copy:
                    await self._fill(copy)
                return await self._report(source, target, begun, keys=0)

    async def rename(self, source: str, target: str, progress: Progress | None) -> NamespaceReport:
        """Moves everything of a namespace to another name.

        The source is copied while it is in use. Then it is switched off for as long as it takes to copy what was
        changed meanwhile and to see that both agree, and removed.

        Args:
            source: The old name.
            target: The new name; must not exist, unless the same call was broken off before, which is gone on with.
            progress: Called with how many facts and documents are done and how many there are.

        Raises:
            InvalidInputError: There is no such source, or the target exists.
            UnavailableError: Somebody else is at it, or Redis could not be reached: the same call goes on.
            KnowledgeBaseError: The copy is not like the source, which was switched on again.
        """
        begun = time.monotonic()
        async with self._admission.place(self._wait):
            with job():
                keys = 0
                live = await self._moved_before(source, target)
                live = live or await self._live(source, purpose=_renaming_to(target))
                async with self._claimed(live, target, progress) as copy:
                    if not copy.is_verified:
                        await self._move(copy)
                    # Broken off from here on, the same call only has this left to do.
                    await self._namespaces.switch_off(source, copy.token, _renaming_to(target))
                    keys = await self._namespaces.remove(source, None)
                return await self._report(source, target, begun, keys=keys)

    async def _moved_before(self, source: str, target: str) -> Generation | None:
        """Returns where everything is by now, when nothing is left of the source but that was not noted."""
        client = await self._manager.main()
        keys = Keyspace(target)
        copied_from, verified = await client.hmget(keys.copying, ["source", "verified"])  # type: ignore[misc]
        if copied_from != source or not verified or await client.exists(Keyspace(source).generation):
            return None
        moved = await self._live(target)
        return replace(moved, namespace=source)

    async def _live(self, namespace: str, *, purpose: str | None = None) -> Generation:
        client = await self._manager.main()
        recorded = await client.hmget(  # type: ignore[misc]
            Keyspace(namespace).generation, ["number", "number_before", "off_for", "model", "dimension", "build"]
        )
        number, before, off_for, model, dimension, build = recorded
        if number is None:
            raise InvalidInputError("source", f"there is no namespace {namespace!r}")
        if number == SWITCHED_OFF and off_for != purpose:
            raise UnavailableError(f"namespace {namespace!r} is being dropped or renamed; that call must end first")
        return Generation(namespace, int(before or number), model or "", int(dimension or 0), int(build or 1))

    @asynccontextmanager
    async def _claimed(self, source: Generation, target: str, progress: Progress | None) -> AsyncIterator[_Copy]:
        token = secrets.token_hex(8)
        is_verified = await self._claim(source.namespace, target, token)
        is_done = False
        try:
            made = await self._generations.ensure(target, source.model, source.dimension)
            yield _Copy(source, made, token, progress, is_verified=is_verified)
            is_done = True
        finally:
            keys = Keyspace(target)
            client = await self._manager.main()
            await self._release_copy(client, [keys.copying, keys.copied], [token, int(is_done)])

    async def _claim(self, source: str, target: str, token: str, *, verified: bool = False) -> bool:
        client = await self._manager.main()
        keys = Keyspace(target)
        arguments: list[Argument] = [source, token, LEASE_MS, int(verified)]
        reply = await self._claim_copy(client, [keys.copying, keys.generation], arguments)
        if reply in REFUSALS:
            raise InvalidInputError("target", REFUSALS[reply])
        if reply == "busy":
            raise UnavailableError(f"somebody else is copying to {target!r} just now; retry")
        return bool(reply == "verified")

    async def _renew(self, copy: _Copy) -> None:
        # Whoever has lost it must not write, and not remove anything.
        await self._claim(copy.source.namespace, copy.target.namespace, copy.token)

    async def _require_source(self, copy: _Copy) -> None:
        """Refuses to go on when somebody has begun to drop the source: what is missing there says nothing then."""
        client = await self._manager.main()
        keys = Keyspace(copy.source.namespace)
        number, owner = await client.hmget(keys.generation, ["number", "off_by"])  # type: ignore[misc]
        if number != str(copy.source.number) and (number, owner) != (SWITCHED_OFF, copy.token):
            raise UnavailableError(f"namespace {copy.source.namespace!r} was changed as a whole meanwhile; begin anew")

    async def _move(self, copy: _Copy) -> None:
        source = copy.source.namespace
        await self._fill(copy)
        await self._namespaces.switch_off(source, copy.token, _renaming_to(copy.target.namespace))
        try:
            await self._settle(copy)
            await self._require_source(copy)
            await self._claim(source, copy.target.namespace, copy.token, verified=True)
        except BaseException:
            await self._namespaces.switch_on(source, copy.token)
            raise

    async def _fill(self, copy: _Copy) -> None:
        client = await self._manager.main()
        keys = Keyspace(copy.source.namespace)
        copy.total = int(await client.zcard(keys.facts)) + int(await client.zcard(keys.documents))
        for listed, write in ((keys.facts, self._copy_facts), (keys.documents, self._copy_documents)):
            async for ids in self._walked(listed, PAGE):
                await write(copy, ids)
                copy.advance(len(ids))
        # What was changed or deleted in the meantime, once.
        await self._agree(copy)

    async def _walked(self, listed: str, size: int) -> AsyncIterator[list[str]]:
        """Yields what is listed now, the oldest first: who keeps pace with the writers never comes to an end."""
        client = await self._manager.main()
        newest = await client.zrange(listed, 0, 0, desc=True, withscores=True)
        last = newest[0][1] if newest else 0.0
        seq = 0.0
        while seq < last:
            rows = await client.zrangebyscore(listed, f"({seq:.0f}", f"{last:.0f}", 0, size, withscores=True)
            if not rows:
                return
            yield [one for one, _ in rows]
            seq = rows[-1][1]

    async def _copy_facts(self, copy: _Copy, fact_ids: Sequence[str]) -> None:
        await self._renew(copy)
        entries = await self._facts.read(copy.source, fact_ids)
        if not entries:
            return
        client = await self._manager.main()
        # Before they are there: what is there must be known as copied.
        await client.sadd(  # type: ignore[misc]
            Keyspace(copy.target.namespace).copied, *(entry.fact_id for entry in entries)
        )
        begun = time.monotonic()
        for outcome in await self._restorer.restore(copy.target, entries, on_conflict="overwrite"):
            if isinstance(outcome, Exception):
                raise outcome
        # A third of the server's time is for others.
        await asyncio.sleep(min(LONGEST_PAUSE, (time.monotonic() - begun) / 2))

    async def _copy_documents(self, copy: _Copy, document_ids: Sequence[str]) -> None:
        client = await self._manager.main()
        source, target = Keyspace(copy.source.namespace), Keyspace(copy.target.namespace)
        for document_id in document_ids:
            await self._renew(copy)
            seq = await client.zscore(source.documents, document_id)
            if seq is None:
                continue
            # One may have megabytes of text.
            page = await self._archive.read(source.namespace, seq - 1, 1, vectors_of=copy.source)
            for entry in page.entries:
                await client.sadd(target.copied, entry["id"])  # type: ignore[misc]
                await self._archive.restore(copy.target, entry, on_conflict="overwrite")

    async def _settle(self, copy: _Copy) -> None:
        for _ in range(ROUNDS):
            if await self._agree(copy):
                return
        raise KnowledgeBaseError("the copy does not become like its source; the source is as it was")

    async def _agree(self, copy: _Copy) -> bool:
        """Mends what differs; returns whether nothing did."""
        source, target = Keyspace(copy.source.namespace), Keyspace(copy.target.namespace)
        client = await self._manager.main()
        agree = True
        async for ids in self._copied(target):
            names = [source.fact(one) for one in ids]
            there = [row[0] async for rows in read_hashes(client, names, ["revision"]) for row in rows]
            gone = [one for one, revision in zip(ids, there, strict=True) if revision is None]
            agree = await self._forget(copy, gone) and agree
        for listed, mend in ((source.facts, self._copy_facts), (source.documents, self._copy_documents)):
            async for ids in self._walked(listed, COMPARED_AT_ONCE):
                changed = await self._changed(copy, ids)
                for begin in range(0, len(changed), PAGE):
                    await mend(copy, changed[begin : begin + PAGE])
                agree = agree and not changed
        return agree

    async def _copied(self, target: Keyspace) -> AsyncIterator[list[str]]:
        client = await self._manager.main()
        cursor = -1
        while cursor:
            cursor, ids = await client.sscan(target.copied, max(cursor, 0), count=COMPARED_AT_ONCE)
            yield ids

    async def _forget(self, copy: _Copy, gone: Sequence[str]) -> bool:
        if not gone:
            return True
        await self._renew(copy)
        await self._require_source(copy)
        client = await self._manager.main()
        target = Keyspace(copy.target.namespace)
        names = [target.fact(one) for one in gone]
        rows = [row async for some in read_hashes(client, names, ["document", "principals"]) for row in some]
        for one, (document, principals) in zip(gone, rows, strict=True):
            callers = json.loads(principals or "[]")
            if document:
                await self._documents.delete(copy.target, one, callers, None)
            elif principals is not None:
                await self._repository.delete(copy.target, one, callers, None)
        await client.srem(target.copied, *gone)  # type: ignore[misc]
        return False

    async def _changed(self, copy: _Copy, ids: Sequence[str]) -> list[str]:
        client = await self._manager.main()
        found = []
        for generation in (copy.source, copy.target):
            keys = Keyspace(generation.namespace)
            names = [keys.fact(one) for one in ids]
            found.append([row async for rows in read_hashes(client, names, COMPARED) for row in rows])
        now = self._repository.now()
        return [
            one
            for one, old, new in zip(ids, *found, strict=True)
            if old[0] is not None and list(old) != list(new) and not 0 < int(old[-1] or 0) <= now
        ]

    async def _report(self, source: str, target: str, begun: float, *, keys: int) -> NamespaceReport:
        there = await self._namespaces.one(target)
        return {
            "namespace": source,
            "target": target,
            "facts": there["facts"] if there else 0,
            "documents": there["documents"] if there else 0,
            "keys": keys,
            "took_s": round(time.monotonic() - begun, 3),
        }


def _renaming_to(target: str) -> str:
    return f"rename to {target}"
