"""The indexer: gives stored passages their vectors, at once or later.

What waits is recorded in Redis with the fact, so that any process may complete what another one left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import Context
from typing import NamedTuple

from knowledge_base.connection.deadline import deadline
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import Call, LuaScript
from knowledge_base.embedding.service import EmbeddingService
from knowledge_base.errors import EmbeddingUnavailableError, IndexMismatchError, KnowledgeBaseError
from knowledge_base.index.generations import Generations
from knowledge_base.index.schema import Generation
from knowledge_base.index.vector_index import EmbeddedPassage, VectorIndex
from knowledge_base.keyspace import Keyspace, PartName

logger = logging.getLogger(__name__)

BATCH = 32
"""Facts that the background takes at a time."""

PASSAGES_AT_ONCE = 128
"""Passages that are embedded and written before what they complete is settled."""

REFUSED_MS = 300_000
"""How long a fact is left alone that the model refused while it took others."""

LEASE_MS = 60_000
"""How long a fact that was taken is left to whoever took it."""

LOOKING_SECONDS = 10.0
"""Budget for finding out what waits."""

BATCH_SECONDS = 120.0
"""Budget for indexing one batch."""

IDLE_SECONDS = 2.0
"""Pause of the background when nothing waits."""

CANCELLATIONS = 4
"""How often the background is told to end."""

MOST_BACKOFF = 15.0
"""Longest pause in seconds after a failure."""


class PassageSet(NamedTuple):
    """The passages of one revision of a fact."""

    fact_id: str
    revision: str
    texts: Sequence[str]


def now_ms() -> int:
    """Returns the time as milliseconds since 1970, as stored in Redis."""
    return time.time_ns() // 1_000_000


class Indexer:
    """Embeds passages and writes their vectors.

    Args:
        manager: The connections.
        generations: Where each namespace's passages live.
        embedding: Makes the vectors.
        vectors: Writes them.
        sweep: Removes from a generation what has expired.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        generations: Generations,
        embedding: EmbeddingService,
        vectors: VectorIndex,
        sweep: Callable[[Generation], Awaitable[None]],
    ) -> None:
        self._manager = manager
        self._generations = generations
        self._embedding = embedding
        self._vectors = vectors
        self._sweep = sweep
        self._claim = LuaScript("knowledge_base.index", "claim")
        self._settle = LuaScript("knowledge_base.index", "settle")
        self._wake: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._left: dict[str, set[str]] = {}

    async def generation(self, namespace: str) -> Generation:
        """Returns the generation that is written to, made for the configured model on the first write.

        Args:
            namespace: The namespace.

        Raises:
            IndexMismatchError: The index was built with another model or dimension.
            EmbeddingUnavailableError: The model's dimension is not known and cannot be asked for.
        """
        known = await self._generations.current(namespace)
        identity = await self._embedding.identity()
        generation = known or await self._generations.ensure(namespace, identity.model, identity.dimension)
        if (generation.model, generation.dimension) != identity:
            raise IndexMismatchError(namespace, f"{identity.model}/{identity.dimension}", generation.identity)
        if known is not None:
            await self._generations.ensure(namespace, identity.model, identity.dimension)
        return generation

    async def embed(self, generation: Generation, sets: Sequence[PassageSet]) -> None:
        """Embeds passages and writes their vectors; settles nothing.

        Args:
            generation: Where to.
            sets: The passages.

        Raises:
            UnavailableError: The model or Redis could not be reached.
        """
        names = [PartName(item.fact_id, item.revision, at) for item in sets for at in range(len(item.texts))]
        texts = [text for item in sets for text in item.texts]
        for begin in range(0, len(texts), PASSAGES_AT_ONCE):
            some = slice(begin, begin + PASSAGES_AT_ONCE)
            vectors = await self._embedding.embed_passages(texts[some])
            rows = [EmbeddedPassage(*row) for row in zip(names[some], texts[some], vectors, strict=True)]
            await self._vectors.insert(generation, rows)

    async def settle(self, generation: Generation, sets: Sequence[PassageSet]) -> list[bool]:
        """Marks facts as indexed whose vectors are there; takes back what came too late.

        Args:
            generation: Where the vectors were written.
            sets: The passages.

        Returns:
            For each, whether the fact is indexed now.
        """
        keys = Keyspace(generation.namespace)
        client = await self._manager.main()
        calls: list[Call] = [
            (
                [keys.fact(item.fact_id), keys.pending],
                [
                    item.fact_id,
                    item.revision,
                    len(item.texts),
                    f"{generation.passage_prefix}:{item.fact_id}:{item.revision}:",
                ],
            )
            for item in sets
        ]
        replies = [await self._settle(client, *calls[0])] if len(calls) == 1 else await self._settle.many(client, calls)
        return [reply == 1 for reply in replies]

    async def index(self, generation: Generation, sets: Sequence[PassageSet]) -> list[bool]:
        """Embeds passages, writes their vectors and marks the facts as indexed.

        Args:
            generation: Where to.
            sets: The passages.

        Returns:
            For each, whether the fact is indexed now.

        Raises:
            UnavailableError: The model or Redis could not be reached; the facts stay recorded as pending.
        """
        indexed: list[bool] = []
        for group in _groups(sets):
            await self.embed(generation, group)
            indexed += await self.settle(generation, group)
        return indexed

    def leave(self, namespace: str, fact_ids: Sequence[str]) -> None:
        """Leaves facts that are recorded as pending to the background, which takes them at once.

        Args:
            namespace: Where they are.
            fact_ids: The facts.
        """
        self._left.setdefault(namespace, set()).update(fact_ids)
        if self._wake is not None:
            self._wake.set()

    def start(self) -> None:
        """Starts the background task, free of the caller's deadline and context."""
        if self._task is None or self._task.done():
            self._wake = asyncio.Event()
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._run(), name="kb-indexer", context=Context())

    async def close(self, within: float) -> None:
        """Ends the background task; what it had taken is taken again, at the latest when its lease ends.

        Args:
            within: Seconds to wait at most.
        """
        if self._task is None:
            return
        # More than once, since a model of the caller's may swallow a cancellation.
        for _ in range(CANCELLATIONS):
            self._task.cancel()
            ended, _pending = await asyncio.wait({self._task}, timeout=within / CANCELLATIONS)
            if ended:
                break
        self._task = None
        if self._left:
            # Whoever comes next need not wait until the lease of this process ends.
            with contextlib.suppress(KnowledgeBaseError):
                async with deadline("leaving pending facts", within / CANCELLATIONS):
                    await self._take_over()

    async def _run(self) -> None:
        failures = 0
        every_namespace = True
        while True:
            try:
                await self._index_pending(every_namespace)
                failures = 0
            except KnowledgeBaseError as error:
                failures += 1
                logger.info("indexing waits", extra={"reason": type(error).__name__, "failures": failures})
            except Exception as error:  # noqa: BLE001 - see below
                # The task must outlive whatever the model or the driver comes up with; their texts may quote content.
                failures += 1
                logger.error("indexing failed", extra={"reason": type(error).__name__, "failures": failures})
            backoff = min(MOST_BACKOFF, 0.5 * 2**failures) if failures else 0.0
            every_namespace = not await self._pause(backoff)

    async def _pause(self, backoff: float) -> bool:
        assert self._wake is not None
        if backoff:
            # Jitter, so that processes which failed together do not come back together.
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            return False
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    async def _index_pending(self, every_namespace: bool) -> None:
        async with deadline("finding pending facts", LOOKING_SECONDS):
            stirred = await self._take_over()
            namespaces = await self._generations.namespaces() if every_namespace else sorted(stirred)
        failure: KnowledgeBaseError | None = None
        for namespace in namespaces:
            try:
                await self._sweep_expired(namespace)
                while await self._index_batch(namespace):
                    continue
            except KnowledgeBaseError as error:
                failure = error
        if failure is not None:
            raise failure

    async def _sweep_expired(self, namespace: str) -> None:
        async with deadline("removing expired facts", LOOKING_SECONDS):
            generation = await self._generations.current(namespace)
            if generation is not None:
                await self._sweep(generation)

    async def _take_over(self) -> list[str]:
        client = await self._manager.main()
        stirred = list(self._left)
        for namespace in stirred:
            ids = self._left[namespace]
            await client.zadd(Keyspace(namespace).pending, dict.fromkeys(ids, now_ms()), xx=True)
            self._left.pop(namespace)
        return stirred

    async def _index_batch(self, namespace: str) -> bool:
        async with deadline("indexing pending facts", BATCH_SECONDS):
            client = await self._manager.main()
            keys = Keyspace(namespace)
            now = now_ms()
            claimed: list[str] = await self._claim(client, [keys.pending], [now, now + LEASE_MS, BATCH])
            if not claimed:
                return False
            try:
                generation = await self.generation(namespace)
                sets = await self._read(generation, claimed)
                await self._index_all_it_can(generation, sets)
            except BaseException:
                with contextlib.suppress(KnowledgeBaseError):
                    await client.zadd(keys.pending, dict.fromkeys(claimed, now_ms()), xx=True)
                raise
            return len(claimed) == BATCH

    async def _index_all_it_can(self, generation: Generation, sets: Sequence[PassageSet]) -> None:
        try:
            await self.index(generation, sets)
            return
        except EmbeddingUnavailableError:
            if len(sets) == 1:
                raise
        # Perhaps the model refuses one of them only: it must not hold up the others.
        refused: list[str] = []
        for item in sets:
            try:
                await self.index(generation, [item])
            except EmbeddingUnavailableError:
                refused.append(item.fact_id)
        if len(refused) == len(sets):
            raise EmbeddingUnavailableError("the embedding model failed for every pending fact")
        if refused:
            logger.warning("the model refuses facts", extra={"facts": len(refused)})
            client = await self._manager.main()
            later = now_ms() + REFUSED_MS
            await client.zadd(Keyspace(generation.namespace).pending, dict.fromkeys(refused, later), xx=True)

    async def _read(self, generation: Generation, fact_ids: Sequence[str]) -> list[PassageSet]:
        client = await self._manager.main()
        keys = Keyspace(generation.namespace)
        pipeline = client.pipeline(transaction=False)
        for fact_id in fact_ids:
            pipeline.hmget(keys.fact(fact_id), ["revision", "passages"])
        sets: list[PassageSet] = []
        names: list[PartName] = []
        gone: list[str] = []
        for fact_id, (revision, count) in zip(fact_ids, await pipeline.execute(), strict=True):
            if revision is None:
                gone.append(fact_id)
                continue
            names += [PartName(fact_id, revision, position) for position in range(int(count))]
        if gone:
            await client.zrem(keys.pending, *gone)
        for name in names:
            pipeline.hget(f"{generation.passage_prefix}:{name.node_id}", "text")
        texts: dict[tuple[str, str], list[str]] = {}
        for name, text in zip(names, await pipeline.execute(), strict=True):
            if text is not None:
                texts.setdefault((name.fact_id, name.revision), []).append(text)
        for (fact_id, revision), found in texts.items():
            sets.append(PassageSet(fact_id, revision, found))
        return sets


def _groups(sets: Sequence[PassageSet]) -> Iterator[list[PassageSet]]:
    group: list[PassageSet] = []
    passages = 0
    for item in sets:
        if group and passages + len(item.texts) > PASSAGES_AT_ONCE:
            yield group
            group, passages = [], 0
        group.append(item)
        passages += len(item.texts)
    if group:
        yield group
