"""Writing whole facts as they were elsewhere: ids, versions, times, history and vectors included."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from knowledge_base.clock import now_ms
from knowledge_base.connection.giving_way import giving_way
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import Argument, Call, LuaScript
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.facts.draft import revision
from knowledge_base.facts.parts import FactParts
from knowledge_base.facts.requests import base_request
from knowledge_base.facts.validation import encoded_json
from knowledge_base.index.generations import GenerationMovedError
from knowledge_base.index.indexer import Indexer, PassageSet
from knowledge_base.index.schema import VECTOR_FIELD, Generation
from knowledge_base.keyspace import Keyspace, PartName

OnConflict: TypeAlias = Literal["skip", "overwrite", "newer", "error"]
"""What becomes of a fact whose id is taken: the old one stays, the new one replaces it, the one that was changed last
wins, or it is reported."""

FACTS_AT_ONCE = 32
VECTORS_AT_ONCE = 64
"""Facts, and vectors, that one round trip carries; each fact is a script of its own, so that others come between."""

VECTORS_IN_SCRIPT = 16
"""Vectors that the script of one fact writes; a vector takes the server half a millisecond. Those of a longer fact
follow one by one."""

FACT_WEIGHT = 500
"""Characters that take about as long as the fields of a fact that are short."""

INLINE_CHARACTERS = 50_000
"""Characters of facts that are encoded on the event loop; more would stall it."""

ENCODING_SECONDS = 30.0
"""Longest wait for a thread that encodes."""

WRITTEN = frozenset({"restored", "replaced"})
"""What a script says of a fact that it has written."""


class WholeFact(NamedTuple):
    """A fact with all that is kept of it."""

    fact_id: str
    content: str
    metadata: Mapping[str, Any]
    tags: Sequence[str]
    source: str | None
    principals: Sequence[str]
    version: int
    created_at: int
    updated_at: int
    expires_at: int | None
    history: Sequence[str]
    """Its earlier versions as the list in Redis holds them, newest first."""
    parts: FactParts
    """What ``PartMaker`` made of it."""
    vectors: Sequence[bytes] | None = None
    """For each passage its vector as float32; None when it has to be embedded."""
    displaces: str = ""
    """The fact whose content it takes away; whoever names one gives that fact another content."""

    @property
    def revision(self) -> str:
        """The name that its parts carry."""
        return revision(self.version, self.parts.digest, len(self.parts.passages))

    @property
    def passage_set(self) -> PassageSet:
        """Its passages, for the indexer."""
        return PassageSet(self.fact_id, self.revision, self.parts.passages)


class Restored(NamedTuple):
    """What a script says became of a fact, and the version that is there now."""

    status: Literal["restored", "replaced", "same", "kept", "conflict", "duplicate", "expired"]
    fact_id: str
    version: int
    indexed: bool
    stands: bool = False
    """Of a duplicate: whether another version of the fact itself is there, and stays."""

    @property
    def is_written(self) -> bool:
        """Whether the fact was written."""
        return self.status in WRITTEN


class FactRestorer:
    """Writes whole facts, each in one atomic step, many in a round trip.

    Args:
        manager: The connections.
        indexer: Marks facts as indexed whose vectors follow them.
        threads: Where requests are made.
        keep_history: Earlier versions kept of each fact.
        lease: Seconds that the caller has to index what comes without vectors, before the background takes it.
        now: The time in milliseconds since 1970; tests bring their own.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        indexer: Indexer,
        threads: WorkloadThreads,
        *,
        keep_history: int,
        lease: float,
        now: Callable[[], int] = now_ms,
    ) -> None:
        self._manager = manager
        self._indexer = indexer
        self._threads = threads
        self._keep_history = keep_history
        self._lease_ms = int(lease * 1000)
        self._now = now
        self._restore = LuaScript("knowledge_base.facts", "shared", "restore", repeatable=True)

    async def restore(
        self,
        generation: Generation,
        entries: Sequence[WholeFact],
        *,
        on_conflict: OnConflict = "skip",
        dry_run: bool = False,
    ) -> list[Restored | Exception]:
        """Writes facts; each stands or falls by itself.

        Args:
            generation: The live generation, which has the dimension of the vectors.
            entries: Facts of its namespace, in the order in which they are to stand there.
            on_conflict: What becomes of those whose id is taken by another fact.
            dry_run: Whether to change nothing, and to say only what would become of each.

        Returns:
            For each, what became of it or the error that it failed with: ``GenerationMovedError`` when the generation
            is not the live one any more. What was written without vectors is recorded as pending.

        Raises:
            UnavailableError: Redis could not be reached; what was written meanwhile is there, and may come again.
        """
        outcomes: list[Restored | Exception] = []
        for group in _groups(entries):
            asked = (generation, group, on_conflict, dry_run)
            if sum(map(_weight, group)) <= INLINE_CHARACTERS:
                # The way to a thread, in which the next facts are being cut, would take longer.
                calls = self._calls(*asked)
            else:
                calls = await self._threads.to_thread(
                    self._calls, *asked, step="encoding facts", limit=ENCODING_SECONDS
                )
            replies = await self._restore.many(await self._manager.main(), calls)
            written = [_outcome(reply, generation) for reply in replies]
            outcomes += written if dry_run else await self._followed(generation, group, written)
            await asyncio.sleep(0)
        return outcomes

    def _calls(
        self, generation: Generation, group: Sequence[WholeFact], on_conflict: OnConflict, dry_run: bool
    ) -> list[Call]:
        keys = Keyspace(generation.namespace)
        calls: list[Call] = []
        for entry in giving_way(group):
            arguments: list[Argument] = [encoded_json(self._request(generation, entry, on_conflict, dry_run))]
            if entry.vectors is not None and not _is_long(entry):
                arguments += entry.vectors
            calls.append(([keys.fact(entry.fact_id)], arguments))
        return calls

    def _request(
        self, generation: Generation, entry: WholeFact, on_conflict: OnConflict, dry_run: bool
    ) -> dict[str, Any]:
        now = self._now()
        return {
            **base_request(generation, now),
            "generation": {
                "number": str(generation.number),
                "model": generation.model,
                "dimension": str(generation.dimension),
                "build": str(generation.build),
            },
            "mode": on_conflict,
            "dry_run": dry_run,
            "fact_id": entry.fact_id,
            "digest": entry.parts.digest,
            "content": entry.content,
            "metadata": encoded_json(entry.metadata),
            "tags": encoded_json(entry.tags),
            "source": entry.source or "",
            "principals": encoded_json(entry.principals),
            "document": "",
            "displaces": entry.displaces,
            "version": str(entry.version),
            "created_at": str(entry.created_at),
            "updated_at": str(entry.updated_at),
            "expires_at": "" if entry.expires_at is None else str(entry.expires_at),
            "history": entry.history[: self._keep_history],
            "revision": entry.revision,
            "labels": entry.parts.labels,
            "passages": entry.parts.passages,
            "sections": entry.parts.sections,
            "due": str(now + self._lease_ms),
            # Names this very request, in case it comes twice.
            "nonce": secrets.token_hex(6),
        }

    async def _followed(
        self, generation: Generation, group: Sequence[WholeFact], outcomes: Sequence[Restored | Exception]
    ) -> list[Restored | Exception]:
        followed: list[Restored | Exception] = []
        for entry, outcome in zip(group, outcomes, strict=True):
            is_written = isinstance(outcome, Restored) and outcome.is_written
            if is_written and entry.vectors is not None and _is_long(entry):
                await self._write_vectors(generation, entry)
                (indexed,) = await self._indexer.settle(generation, [entry.passage_set])
                outcome = outcome._replace(indexed=indexed)  # type: ignore[union-attr]
            followed.append(outcome)
        return followed

    async def _write_vectors(self, generation: Generation, entry: WholeFact) -> None:
        client = await self._manager.main()
        assert entry.vectors is not None
        for begin in range(0, len(entry.vectors), VECTORS_AT_ONCE):
            pipeline = client.pipeline(transaction=False)
            for at, vector in enumerate(entry.vectors[begin : begin + VECTORS_AT_ONCE], begin):
                name = PartName(entry.fact_id, entry.revision, at)
                pipeline.execute_command("HSET", f"{generation.passage_prefix}:{name.node_id}", VECTOR_FIELD, vector)
            await pipeline.execute(repeatable=True)


def _is_long(entry: WholeFact) -> bool:
    return len(entry.parts.passages) > VECTORS_IN_SCRIPT


def _weight(entry: WholeFact) -> int:
    parts = entry.parts
    texts = (entry.content, *entry.history, *parts.labels.values(), *parts.passages)
    return sum(map(len, texts)) + FACT_WEIGHT


def _groups(entries: Sequence[WholeFact]) -> Iterator[Sequence[WholeFact]]:
    begin, vectors = 0, 0
    for end, entry in enumerate(entries):
        own = len(entry.parts.passages)
        if end > begin and (end - begin >= FACTS_AT_ONCE or vectors + own > VECTORS_AT_ONCE):
            yield entries[begin:end]
            begin, vectors = end, 0
        vectors += own
    if begin < len(entries):
        yield entries[begin:]


def _outcome(reply: Any, generation: Generation) -> Restored | Exception:
    if isinstance(reply, Exception):
        return reply
    if reply[0] == "moved":
        return GenerationMovedError(generation.namespace)
    status, fact_id, version, *rest = reply
    if status == "duplicate":
        return Restored(status, fact_id, int(version), False, stands=rest == ["1"])
    return Restored(status, fact_id, int(version), rest == ["1"])
