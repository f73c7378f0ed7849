"""The background: completes what waits for vectors, whoever left it, and removes what has expired."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import Context

from redis.exceptions import ResponseError

from knowledge_base.connection.deadline import deadline
from knowledge_base.connection.hashes import read_hashes
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import job
from knowledge_base.embedding.embeddings import Embeddings
from knowledge_base.embedding.service import is_embedding_failure
from knowledge_base.errors import CircuitOpenError, KnowledgeBaseError, UnavailableError
from knowledge_base.index.generations import Generations
from knowledge_base.index.indexer import Indexer, PassageSet, passage_groups
from knowledge_base.index.pending import PendingFacts, Work
from knowledge_base.index.retired import RetiredGenerations
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import Keyspace, PartName

logger = logging.getLogger(__name__)

BATCH = 32
"""Facts that are taken at a time."""

READ_PASSAGES = 1_000
"""Passages that are read at a time, those of one document apart."""

LOOKING_SECONDS = 10.0
"""Budget for finding out what waits, and for removing what has expired."""

GROUP_SECONDS = 120.0
"""Budget for indexing what is embedded and settled together."""

IDLE_SECONDS = 2.0
"""Pause when nothing waits."""

LOOKS_AT_LEAST, LOOKS_AT_MOST = 512, 2_000
"""Namespaces looked at after each pause; 1 000 take the event loop some 25 ms, in small pieces."""

LOOKS_FOR_ALL = 5
"""Pauses after which every namespace was looked at, up to 10 000 of them."""

CANCELLATIONS = 4
"""How often the task is told to end."""

MOST_BACKOFF = 15.0
"""Longest pause in seconds after a failure."""

MOST_BACKOFF_OPEN = 2.0
"""The longest while a circuit is open."""


class BackgroundIndexer:
    """One task that gives vectors to whatever waits for them, in any namespace.

    Args:
        manager: The connections.
        generations: Where each namespace's passages live.
        embeddings: Tell a fact that the model refuses from a model that is away.
        indexer: Gives passages their vectors.
        pending: The record of what waits.
        retired: Drops generations that nobody searches any more.
        sweep: Removes from a generation what has expired.
        collect: Removes from a namespace what documents have left over.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        generations: Generations,
        embeddings: Embeddings,
        indexer: Indexer,
        pending: PendingFacts,
        retired: RetiredGenerations,
        sweep: Callable[[Generation], Awaitable[None]],
        collect: Callable[[str], Awaitable[int]],
    ) -> None:
        self._manager = manager
        self._generations = generations
        self._embeddings = embeddings
        self._indexer = indexer
        self._pending = pending
        self._retired = retired
        self._sweep = sweep
        self._collect = collect
        self._wake: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._left: dict[str, set[str]] = {}
        self._unseen: list[str] = []
        self._looks = LOOKS_AT_LEAST
        self._failure: str | None = None
        self._looked = -IDLE_SECONDS
        self._resting: dict[str, tuple[float, int]] = {}

    @property
    def has_died(self) -> bool:
        """Whether the task was started and has ended by itself."""
        return self._task is not None and self._task.done()

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
        if self._task is None or self._task.done():
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
            with contextlib.suppress(KnowledgeBaseError, ResponseError):
                async with deadline("leaving pending facts", within / CANCELLATIONS):
                    await self._release_left()

    async def _run(self) -> None:
        failures, pause = 0, 0.0
        with job():
            while True:
                try:
                    await self._work()
                    failures, pause = 0, 0.0
                except Exception as error:  # noqa: BLE001 - see below
                    # The task must outlive whatever the model or the driver comes up with; texts may quote content.
                    failures += 1
                    self._log(error, failures)
                    pause = _backoff(failures, error)
                await self._pause(pause)

    def _log(self, error: Exception, failures: int) -> None:
        self._failure = type(error).__name__
        is_ours = isinstance(error, KnowledgeBaseError)
        level, event = (logging.INFO, "indexing waits") if is_ours else (logging.ERROR, "indexing failed")
        logger.log(level, event, extra={"reason": self._failure, "failures": failures})

    async def _pause(self, seconds: float) -> None:
        assert self._wake is not None
        if seconds:
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_SECONDS):
                await self._wake.wait()
        self._wake.clear()

    async def _work(self) -> None:
        async with deadline("finding pending facts", LOOKING_SECONDS):
            namespaces = await self._release_left()
            # Not each time: whoever stores without a pause would make it look everywhere without a pause.
            if time.monotonic() - self._looked >= IDLE_SECONDS:
                namespaces = await self._next_namespaces(namespaces)
                self._looked = time.monotonic()
            due = [work for work in await self._pending.due(namespaces) if not self._is_resting(work.namespace)]
        failure: Exception | None = None
        done = 0
        while due:
            busy: list[Work] = []
            # One batch of each by turns, so that a large namespace does not hold up the others.
            for work in due:
                try:
                    if await self._do(work):
                        busy.append(
                            Work(
                                work.namespace,
                                indexing=True,
                                expiry=False,
                                inserts=False,
                                retired=False,
                                leftovers=False,
                            )
                        )
                    self._resting.pop(work.namespace, None)
                    done += 1
                except Exception as error:  # noqa: BLE001 - one namespace must not hold up the others
                    self._let_rest(work.namespace, error)
                    failure = error
            due = busy
        if failure is None and not self._resting:
            self._failure = None
        elif failure is not None and done:
            self._log(failure, failures=1)
        elif failure is not None:
            raise failure

    def _is_resting(self, namespace: str) -> bool:
        return time.monotonic() < self._resting.get(namespace, (0.0, 0))[0]

    def _let_rest(self, namespace: str, error: Exception) -> None:
        failures = self._resting.get(namespace, (0.0, 0))[1] + 1
        self._resting[namespace] = (time.monotonic() + _backoff(failures, error), failures)

    async def _next_namespaces(self, first: Sequence[str]) -> list[str]:
        if not self._unseen:
            self._unseen = await self._generations.namespaces()
            enough = -(-len(self._unseen) // LOOKS_FOR_ALL)
            self._looks = max(LOOKS_AT_LEAST, min(LOOKS_AT_MOST, enough))
        some, self._unseen = self._unseen[: self._looks], self._unseen[self._looks :]
        return [*first, *(namespace for namespace in some if namespace not in first)]

    async def _release_left(self) -> list[str]:
        namespaces: list[str] = []
        for namespace in [name for name in self._left if not self._is_resting(name)]:
            fact_ids = self._left.pop(namespace)
            namespaces.append(namespace)
            try:
                await self._pending.release(namespace, fact_ids)
            except ResponseError as error:
                # They are on record, and are taken when their lease ends.
                self._let_rest(namespace, error)
                self._log(error, failures=1)
            except BaseException:
                self.leave(namespace, list(fact_ids))
                raise
        return namespaces

    async def _do(self, work: Work) -> bool:
        if work.expiry or work.inserts:
            async with deadline("removing what has expired", LOOKING_SECONDS):
                generation = await self._generations.current(work.namespace)
                if generation is not None and work.expiry:
                    await self._sweep(generation)
                if generation is not None and work.inserts:
                    await self._pending.collect(generation)
        if work.retired:
            async with deadline("dropping an old index", GROUP_SECONDS):
                await self._retired.drop_due(work.namespace)
        if work.leftovers:
            async with deadline("removing what documents have left over", GROUP_SECONDS):
                await self._collect(work.namespace)
        return work.indexing and await self._index_batch(work.namespace)

    async def _index_batch(self, namespace: str) -> bool:
        async with deadline("finding pending facts", LOOKING_SECONDS):
            claimed = await self._pending.claim(namespace, BATCH)
        if not claimed:
            return False
        mine = set(claimed)
        try:
            with self._pending.held(namespace, mine):
                async with deadline("reading pending facts", LOOKING_SECONDS):
                    generation = await self._indexer.generation(namespace)
                    names = await self._passages_of(generation, claimed)
                for some in _in_portions(names):
                    async with deadline("reading pending facts", LOOKING_SECONDS):
                        sets = await self._read(generation, some, mine)
                    for group in passage_groups(sets):
                        # What a group has got when its time is over, it need not get again.
                        async with deadline("indexing pending facts", GROUP_SECONDS):
                            await self._index_group(generation, group, mine)
        except BaseException:
            with contextlib.suppress(KnowledgeBaseError, ResponseError):
                async with deadline("leaving pending facts", LOOKING_SECONDS):
                    await self._pending.release(namespace, mine)
            raise
        return len(claimed) == BATCH

    async def _index_group(self, generation: Generation, group: Sequence[PassageSet], mine: set[str]) -> None:
        try:
            await self._indexer.index(generation, group, only_missing=True)
        except UnavailableError as error:
            if not is_embedding_failure(error):
                raise
            # If the model answers otherwise, it refuses one of them, which must not hold up the others.
            await self._require_model(generation)
            if len(group) == 1:
                await self._put_off(generation.namespace, group[0].fact_id, str(error), mine)
                return
            for item in group:
                await self._index_group(generation, [item], mine)

    async def _require_model(self, generation: Generation) -> None:
        service = await self._embeddings.serving(generation.model, generation.dimension)
        try:
            await service.probe()
        except CircuitOpenError as refused:
            # The circuit may be open for the facts' sake only.
            await asyncio.sleep(refused.retry_after)
            await service.probe()

    async def _put_off(self, namespace: str, fact_id: str, reason: str, mine: set[str]) -> None:
        mine.discard(fact_id)
        is_parked = await self._pending.refused(namespace, fact_id, reason)
        extra = {"knowledge_namespace": namespace, "fact_id": fact_id}
        if is_parked:
            logger.warning("gave up giving a fact its vectors; see kb check", extra=extra)
        else:
            logger.info("the model refuses a fact", extra=extra)

    async def _passages_of(self, generation: Generation, fact_ids: Sequence[str]) -> list[list[PartName]]:
        client = await self._manager.main()
        facts = [Keyspace(generation.namespace).fact(fact_id) for fact_id in fact_ids]
        revisions = [row async for rows in read_hashes(client, facts, ["revision", "passages"]) for row in rows]
        names: list[list[PartName]] = []
        gone: list[str] = []
        for fact_id, (revision, count) in zip(fact_ids, revisions, strict=True):
            if revision is None or count is None:
                gone.append(fact_id)
                continue
            names.append([PartName(fact_id, revision, position) for position in range(int(count))])
        if gone:
            await self._pending.forget(generation.namespace, gone)
        return names

    async def _read(self, generation: Generation, names: Sequence[PartName], mine: set[str]) -> list[PassageSet]:
        client = await self._manager.main()
        passages = [f"{generation.passage_prefix}:{name.node_id}" for name in names]
        found = [row[0] async for rows in read_hashes(client, passages, ["text"]) for row in rows]
        texts: dict[tuple[str, str], list[str | None]] = {}
        for name, text in zip(names, found, strict=True):
            texts.setdefault((name.fact_id, name.revision), []).append(text)
        sets: list[PassageSet] = []
        for (fact_id, revision), parts in texts.items():
            whole = [part for part in parts if part is not None]
            if len(whole) == len(parts):
                sets.append(PassageSet(fact_id, revision, whole))
            else:
                # Unless it was changed just now, something else has written to its passages.
                await self._put_off(generation.namespace, fact_id, "some of its passages are missing", mine)
        return sets


def _in_portions(facts: Sequence[Sequence[PartName]]) -> Iterator[list[PartName]]:
    # A document may have thousands of passages, and a batch dozens of documents.
    portion: list[PartName] = []
    for names in facts:
        if portion and len(portion) + len(names) > READ_PASSAGES:
            yield portion
            portion = []
        portion += names
    if portion:
        yield portion


def _backoff(failures: int, error: Exception) -> float:
    # Jitter, so that processes which failed together do not come back together.
    jitter = random.uniform(0.5, 1.0)  # noqa: S311 - no secret
    if isinstance(error, CircuitOpenError):
        # Somebody else's probe may close it any moment, and to ask again costs next to nothing.
        return min(MOST_BACKOFF_OPEN, max(0.1, error.retry_after)) * jitter
    return min(MOST_BACKOFF, 0.5 * 2.0 ** min(failures, 10)) * jitter
