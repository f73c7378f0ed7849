"""Rebuilding a search index beside the live one, while everybody goes on searching and storing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from functools import partial

from redis.exceptions import OutOfMemoryError, ResponseError

from knowledge_base.admin.rebuild.check import RebuildCheck
from knowledge_base.admin.rebuild.filler import Filler
from knowledge_base.connection.deadline import deadline
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import call_outside, job
from knowledge_base.documents.records import DocumentArchive
from knowledge_base.embedding.embeddings import Embeddings
from knowledge_base.errors import KnowledgeBaseError, UnavailableError
from knowledge_base.facts.remake import FactRemaker
from knowledge_base.index.generations import FRESH_FOR, Generations
from knowledge_base.index.indexer import Indexer
from knowledge_base.index.namespace_languages import NamespaceLanguages
from knowledge_base.index.next_generation import LEASE_SECONDS, NextGeneration, RebuildLostError
from knowledge_base.index.retired import RetiredGenerations
from knowledge_base.index.schema import Generation
from knowledge_base.index.text_index import TextIndex
from knowledge_base.index.vector_index import VectorIndex
from knowledge_base.types import Progress, RebuildReport

logger = logging.getLogger(__name__)

PAGE = 400
"""Facts that are copied before the record says how far the rebuild is."""

CAUGHT_UP = 100
"""Changed facts that are copied before the switch is tried again."""

SWITCHES = 10_000
"""Tries to switch between two changes."""

PATIENCE = 120.0
"""Seconds for which steps that fail are tried again and again, while none succeeds."""

PAUSE = 1.0
"""Seconds between such tries."""

CLEANUP_SECONDS = 5.0
"""Budget for ending a rebuild that has failed or was cancelled."""


class IndexRebuild:
    """Builds a new generation of a namespace's index and makes it the live one.

    Args:
        manager: The connections.
        generations: Which index is live.
        embeddings: The model that the index is built for.
        indexer: Gives passages vectors where the model changes.
        vectors: Searches by meaning what was built.
        texts: Searches by words what was built.
        remaker: Makes parts of facts anew.
        documents: Makes parts of documents anew.
        retired: Drops the old generation.
        languages: Counts the languages of what was built.
        longest_search: Seconds that a search may take which began before the switch.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        generations: Generations,
        embeddings: Embeddings,
        indexer: Indexer,
        vectors: VectorIndex,
        texts: TextIndex,
        remaker: FactRemaker,
        documents: DocumentArchive,
        retired: RetiredGenerations,
        languages: NamespaceLanguages,
        *,
        longest_search: float,
    ) -> None:
        self._manager = manager
        self._generations = generations
        self._embeddings = embeddings
        self._indexer = indexer
        self._check = RebuildCheck(manager, generations, vectors, texts)
        self._remaker = remaker
        self._documents = documents
        self._retired = retired
        self._languages = languages
        self._grace = longest_search + 2 * FRESH_FOR
        self._under_way: set[NextGeneration] = set()
        self._closing = asyncio.Event()

    async def close(self, within: float) -> None:
        """Ends the rebuilds of this process; others may go on with them at once.

        Args:
            within: Seconds to wait at most.
        """
        self._closing.set()
        with suppress(KnowledgeBaseError, ResponseError):
            async with deadline("leaving a rebuild", within):
                await asyncio.gather(*(upcoming.release() for upcoming in self._under_way), return_exceptions=True)

    async def run(self, namespace: str, progress: Progress | None) -> RebuildReport:
        """Rebuilds the index of a namespace.

        Args:
            namespace: The namespace.
            progress: Called with how many facts and documents are done and how many there are.

        Raises:
            UnavailableError: Another process rebuilds it already, or Redis or the model could not be reached: what
                was built stays, and the next call goes on from there.
            KnowledgeBaseError: The new index was found wanting; the live one is as it was.
        """
        with job():
            begun = time.monotonic()
            await self._retired.drop_due(namespace)
            self._generations.forget(namespace)
            live = await self._generations.current(namespace)
            identity = await self._embeddings.target.identity()
            if live is None:
                return _report(namespace, None, None, None, begun, resumed=False)
            upcoming = NextGeneration(self._manager, live, identity.model, identity.dimension, self._generations.cut)
            async with self._owning(upcoming):
                resumed = await self._begin(upcoming)
                filler = await self._build(upcoming, progress)
            report = _report(namespace, live, upcoming, filler, begun, resumed=resumed)
            # A count that is too high costs a query some words that are not found.
            with suppress(KnowledgeBaseError, ResponseError):
                await self._languages.recount(upcoming.generation)
            await self._drop_old(live)
            return report

    async def _begin(self, upcoming: NextGeneration) -> bool:
        beginning = await upcoming.begin()
        if beginning == "stale":
            await upcoming.give_up()
            await self._retired.drop_due(upcoming.live.namespace)
            beginning = await upcoming.begin()
        extra = {"knowledge_namespace": upcoming.live.namespace, "generation": upcoming.generation.number}
        logger.info("rebuild of a search index %s", beginning, extra=extra)
        return beginning == "resumed"

    async def _build(self, upcoming: NextGeneration, progress: Progress | None) -> Filler:
        recorded = await self._generations.recorded_cut(upcoming.live.namespace)
        filler = Filler(
            self._manager,
            self._indexer,
            self._embeddings.target,
            self._remaker,
            self._documents,
            upcoming,
            recuts=recorded not in (None, self._generations.cut),
        )
        failing_since: float | None = None
        while True:
            done = upcoming.done
            try:
                await self._attempt(upcoming, filler, progress)
                return filler
            except UnavailableError as error:
                if await _has_switched(upcoming):
                    # Only the reply was lost.
                    return filler
                if self._closing.is_set():
                    raise UnavailableError(
                        "the knowledge base was closed during a rebuild; kb reindex goes on from there"
                    ) from error
                if isinstance(error, RebuildLostError) or _is_full(error):
                    raise
                if failing_since is None or upcoming.done > done:
                    failing_since = time.monotonic()
                if time.monotonic() - failing_since > PATIENCE:
                    raise
                logger.info("rebuild of a search index waits", extra={"reason": type(error).__name__})
                await self._pause(PAUSE)

    async def _attempt(self, upcoming: NextGeneration, filler: Filler, progress: Progress | None) -> None:
        await self._generations.create(upcoming.generation)
        await self._fill(upcoming, filler, progress)
        await self._check.run(upcoming, partial(self._catch_up, upcoming, filler))
        await self._switch(upcoming, filler)

    async def _fill(self, upcoming: NextGeneration, filler: Filler, progress: Progress | None) -> None:
        while page := await filler.page(upcoming.cursor, PAGE):
            await filler.fill([fact_id for fact_id, _ in page])
            upcoming.cursor, upcoming.done = int(page[-1][1]), upcoming.done + len(page)
            total = max(upcoming.done, await filler.total())
            await upcoming.advance(cursor=upcoming.cursor, done=upcoming.done, total=total)
            if progress is not None:
                call_outside(progress, upcoming.done, total)

    async def _catch_up(self, upcoming: NextGeneration, filler: Filler) -> None:
        while changed := await upcoming.changed(CAUGHT_UP):
            await filler.fill(changed)
            if len(changed) < CAUGHT_UP:
                return

    async def _switch(self, upcoming: NextGeneration, filler: Filler) -> None:
        for _ in range(SWITCHES):
            if await upcoming.switch(self._grace):
                self._generations.forget(upcoming.live.namespace)
                extra = {"knowledge_namespace": upcoming.live.namespace, "generation": upcoming.generation.number}
                logger.info("switched to a rebuilt search index", extra=extra)
                return
            await self._catch_up(upcoming, filler)
        raise UnavailableError("facts change faster than they can be copied; run the rebuild when there is less to do")

    async def _drop_old(self, live: Generation) -> None:
        # Every search that began with the old one has ended by then. Should this process end before, another drops it.
        await self._pause(self._grace)
        if not self._closing.is_set():
            await self._retired.drop_due(live.namespace)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    @asynccontextmanager
    async def _owning(self, upcoming: NextGeneration) -> AsyncIterator[None]:
        renewal = asyncio.get_running_loop().create_task(_renew(upcoming), name="kb-rebuild", context=Context())
        self._under_way.add(upcoming)
        try:
            yield
        except RebuildLostError:
            raise
        except UnavailableError as error:
            # What is built is not built in vain, unless it takes the memory that others need.
            await _end(upcoming.give_up() if _is_full(error) else upcoming.release())
            raise
        except BaseException:
            await _end(upcoming.give_up())
            raise
        finally:
            self._under_way.discard(upcoming)
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)


async def _has_switched(upcoming: NextGeneration) -> bool:
    with suppress(UnavailableError):
        return await upcoming.has_switched()
    return False


async def _renew(upcoming: NextGeneration) -> None:
    with job():
        while True:
            await asyncio.sleep(LEASE_SECONDS / 5)
            # What cannot be renewed is lost only when the lease ends; the next step says so.
            with suppress(KnowledgeBaseError, ResponseError):
                async with deadline("renewing the lease of a rebuild", LEASE_SECONDS / 3):
                    await upcoming.advance()


async def _end(ending: object) -> None:
    async def end() -> None:
        with job(), suppress(KnowledgeBaseError, ResponseError):
            async with deadline("ending a rebuild", CLEANUP_SECONDS):
                await ending  # type: ignore[misc]

    # It goes on when the caller is cancelled once more.
    await asyncio.shield(asyncio.get_running_loop().create_task(end(), context=Context()))


def _is_full(error: BaseException | None) -> bool:
    # A script says it in words of its own.
    while error is not None:
        if isinstance(error, OutOfMemoryError) or (isinstance(error, ResponseError) and "OOM" in str(error)):
            return True
        error = error.__cause__
    return False


def _report(
    namespace: str,
    live: Generation | None,
    upcoming: NextGeneration | None,
    filler: Filler | None,
    begun: float,
    *,
    resumed: bool,
) -> RebuildReport:
    return {
        "namespace": namespace,
        "generation": None if upcoming is None else upcoming.generation.number,
        "replaced": None if live is None else live.number,
        "model": None if upcoming is None else upcoming.generation.model,
        "dimension": None if upcoming is None else upcoming.generation.dimension,
        "facts": 0 if upcoming is None else upcoming.done,
        "embedded": 0 if filler is None else filler.embedded,
        "resumed": resumed,
        "took_s": time.monotonic() - begun,
    }
