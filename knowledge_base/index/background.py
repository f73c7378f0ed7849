"""The background: completes what waits for vectors, whoever left it, and removes what has expired."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context

from knowledge_base.connection.deadline import deadline
from knowledge_base.connection.hashes import read_hashes
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import job
from knowledge_base.embedding.service import EmbeddingService, is_embedding_failure
from knowledge_base.errors import KnowledgeBaseError, UnavailableError
from knowledge_base.index.generations import Generations
from knowledge_base.index.indexer import Indexer, PassageSet, passage_groups
from knowledge_base.index.pending import PendingFacts, Work
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import Keyspace, PartName

logger = logging.getLogger(__name__)

BATCH = 32
"""Facts that are taken at a time."""

LOOKING_SECONDS = 10.0
"""Budget for finding out what waits, and for removing what has expired."""

BATCH_SECONDS = 120.0
"""Budget for indexing one batch."""

IDLE_SECONDS = 2.0
"""Pause when nothing waits."""

LOOKS_AT_LEAST = 128
"""Namespaces looked at after each pause."""

LOOKS_FOR_ALL = 15
"""Pauses after which every namespace was looked at, however many there are."""

CANCELLATIONS = 4
"""How often the task is told to end."""

MOST_BACKOFF = 15.0
"""Longest pause in seconds after a failure."""


class BackgroundIndexer:
    """One task that gives vectors to whatever waits for them, in any namespace.

    Args:
        manager: The connections.
        generations: Where each namespace's passages live.
        embedding: Tells a fact that the model refuses from a model that is away.
        indexer: Gives passages their vectors.
        pending: The record of what waits.
        sweep: Removes from a generation what has expired.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        generations: Generations,
        embedding: EmbeddingService,
        indexer: Indexer,
        pending: PendingFacts,
        sweep: Callable[[Generation], Awaitable[None]],
    ) -> None:
        self._manager = manager
        self._generations = generations
        self._embedding = embedding
        self._indexer = indexer
        self._pending = pending
        self._sweep = sweep
        self._wake: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._left: dict[str, set[str]] = {}
        self._unseen: list[str] = []
        self._looks = LOOKS_AT_LEAST
        self._failure: str | None = None

    @property
    def is_running(self) -> bool:
        """Whether the task runs."""
        return self._task is not None and not self._task.done()

    @property
    def failure(self) -> str | None:
        """Name of the error for which it waits at present, or None."""
        return self._failure

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
        """Starts the task, free of the caller's deadline and context."""
        if not self.is_running:
            self._wake = asyncio.Event()
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._run(), name="kb-indexer", context=Context())

    async def close(self, within: float) -> None:
        """Ends the task; what it had taken is taken again, at the latest when its lease ends.

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
                    await self._release_left()

    async def _run(self) -> None:
        failures = 0
        was_woken = False
        with job():
            while True:
                try:
                    await self._work(only_what_was_left=was_woken)
                    failures, self._failure = 0, None
                except KnowledgeBaseError as error:
                    failures, self._failure = failures + 1, type(error).__name__
                    logger.info("indexing waits", extra={"reason": self._failure, "failures": failures})
                except Exception as error:  # noqa: BLE001 - see below
                    # The task must outlive whatever the model or the driver comes up with; texts may quote content.
                    failures, self._failure = failures + 1, type(error).__name__
                    logger.error("indexing failed", extra={"reason": self._failure, "failures": failures})
                was_woken = await self._pause(failures)

    async def _pause(self, failures: int) -> bool:
        assert self._wake is not None
        if failures:
            # Jitter, so that processes which failed together do not come back together.
            backoff = min(MOST_BACKOFF, 0.5 * 2.0 ** min(failures, 10))
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            return False
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    async def _work(self, *, only_what_was_left: bool) -> None:
        async with deadline("finding pending facts", LOOKING_SECONDS):
            left = await self._release_left()
            namespaces = left if only_what_was_left else await self._next_namespaces(left)
            due = await self._pending.due(namespaces)
        failure: KnowledgeBaseError | None = None
        while due:
            busy: list[Work] = []
            # One batch of each by turns, so that a large namespace does not hold up the others.
            for work in due:
                try:
                    if await self._do(work):
                        busy.append(Work(work.namespace, indexing=True, expiry=False, inserts=False))
                except KnowledgeBaseError as error:
                    failure = error
            due = busy
        if failure is not None:
            raise failure

    async def _next_namespaces(self, first: Sequence[str]) -> list[str]:
        if not self._unseen:
            self._unseen = await self._generations.namespaces()
            self._looks = max(LOOKS_AT_LEAST, -(-len(self._unseen) // LOOKS_FOR_ALL))
        some, self._unseen = self._unseen[: self._looks], self._unseen[self._looks :]
        return [*first, *(namespace for namespace in some if namespace not in first)]

    async def _release_left(self) -> list[str]:
        namespaces = list(self._left)
        for namespace in namespaces:
            await self._pending.release(namespace, list(self._left[namespace]))
            self._left.pop(namespace)
        return namespaces

    async def _do(self, work: Work) -> bool:
        if work.expiry or work.inserts:
            async with deadline("removing what has expired", LOOKING_SECONDS):
                generation = await self._generations.current(work.namespace)
                if generation is not None and work.expiry:
                    await self._sweep(generation)
                if generation is not None and work.inserts:
                    await self._pending.collect(generation)
        return work.indexing and await self._index_batch(work.namespace)

    async def _index_batch(self, namespace: str) -> bool:
        async with deadline("indexing pending facts", BATCH_SECONDS):
            claimed = await self._pending.claim(namespace, BATCH)
            if not claimed:
                return False
            try:
                with self._pending.held(namespace, claimed):
                    generation = await self._indexer.generation(namespace)
                    sets = await self._read(generation, claimed)
                    await self._index_all_it_can(generation, sets)
            except BaseException:
                with contextlib.suppress(KnowledgeBaseError):
                    await self._pending.release(namespace, claimed)
                raise
            return len(claimed) == BATCH

    async def _index_all_it_can(self, generation: Generation, sets: Sequence[PassageSet]) -> None:
        for group in passage_groups(sets):
            try:
                await self._indexer.index(generation, group)
            except UnavailableError as error:
                if not is_embedding_failure(error):
                    raise
                # Perhaps the model refuses one of them only: it must not hold up the others.
                await self._index_one_by_one(generation, group)

    async def _index_one_by_one(self, generation: Generation, sets: Sequence[PassageSet]) -> None:
        for item in sets:
            try:
                await self._indexer.index(generation, [item])
            except UnavailableError as error:
                if not is_embedding_failure(error):
                    raise
                await self._embedding.probe()
                await self._put_off(generation.namespace, item.fact_id, str(error))

    async def _put_off(self, namespace: str, fact_id: str, reason: str) -> None:
        is_parked = await self._pending.refused(namespace, fact_id, reason)
        extra = {"knowledge_namespace": namespace, "fact_id": fact_id}
        if is_parked:
            logger.warning("gave up giving a fact its vectors; see kb check", extra=extra)
        else:
            logger.info("the model refuses a fact", extra=extra)

    async def _read(self, generation: Generation, fact_ids: Sequence[str]) -> list[PassageSet]:
        client = await self._manager.main()
        facts = [Keyspace(generation.namespace).fact(fact_id) for fact_id in fact_ids]
        revisions = [row async for rows in read_hashes(client, facts, ["revision", "passages"]) for row in rows]
        names: list[PartName] = []
        gone: list[str] = []
        for fact_id, (revision, count) in zip(fact_ids, revisions, strict=True):
            if revision is None or count is None:
                gone.append(fact_id)
                continue
            names += [PartName(fact_id, revision, position) for position in range(int(count))]
        if gone:
            await self._pending.forget(generation.namespace, gone)
        passages = [f"{generation.passage_prefix}:{name.node_id}" for name in names]
        found = [row[0] async for rows in read_hashes(client, passages, ["text"]) for row in rows]
        texts: dict[tuple[str, str], list[str]] = {}
        for name, text in zip(names, found, strict=True):
            if text is not None:
                texts.setdefault((name.fact_id, name.revision), []).append(text)
        return [PassageSet(fact_id, revision, parts) for (fact_id, revision), parts in texts.items()]
