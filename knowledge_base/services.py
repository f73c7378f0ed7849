"""What a ``KnowledgeBase`` is made of, and the order in which it starts and stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from knowledge_base.admin.integrity import IntegrityCheck
from knowledge_base.answers.answerer import Answerer
from knowledge_base.connection.admission import Admission
from knowledge_base.connection.deadline import deadline
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.embedding.service import EmbeddingService
from knowledge_base.errors import InvalidInputError, KnowledgeBaseError, UnavailableError
from knowledge_base.facts.bulk import BulkWriter
from knowledge_base.facts.parts import PartMaker
from knowledge_base.facts.reader import FactReader
from knowledge_base.facts.repository import FactRepository
from knowledge_base.facts.validation import checked_seconds
from knowledge_base.facts.writer import FactWriter
from knowledge_base.heavy_imports import freeze_imports
from knowledge_base.index.analysis import Analyzer
from knowledge_base.index.background import BackgroundIndexer
from knowledge_base.index.filters import FilterCompiler
from knowledge_base.index.generations import Generations
from knowledge_base.index.indexer import Indexer
from knowledge_base.index.passages import PassageSplitter
from knowledge_base.index.pending import PendingFacts
from knowledge_base.index.text_index import TextIndex
from knowledge_base.index.timeout_policy import TimeoutPolicy
from knowledge_base.index.vector_index import VectorIndex
from knowledge_base.readiness import Readiness
from knowledge_base.retrieval.candidates import CandidateFinder
from knowledge_base.retrieval.chunk_candidates import PassageRanking
from knowledge_base.retrieval.chunk_passages import ChunkPassages
from knowledge_base.retrieval.chunk_retriever import ChunkRetriever
from knowledge_base.retrieval.context_builder import ContextBuilder
from knowledge_base.retrieval.passage_reader import PassageReader
from knowledge_base.retrieval.searcher import Searcher
from knowledge_base.retrieval.tokens import TokenCounter
from knowledge_base.settings import Settings, names_database_zero
from knowledge_base.statistics import Statistics
from knowledge_base.types import Health, PoolStats

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM

logger = logging.getLogger(__name__)

LOADING_SECONDS = 30.0
SPLITTING_THREADS = 1
SPLITTING_WAITING = 1_000
RANKING_THREADS = 2


class Collaborators:
    """Everything that is bound to an event loop.

    Args:
        settings: All settings.
        manager: The connections.
        embed_model: The caller's own embedding, or None.
        llm: The caller's own LLM, or None.
    """

    def __init__(
        self, settings: Settings, manager: AsyncRedisManager, embed_model: BaseEmbedding | None, llm: LLM | None
    ) -> None:
        limits = settings.limits
        analyzer = Analyzer()
        compiler = FilterCompiler(limits.filter_clauses)
        self.splitting = WorkloadThreads("splitting", threads=SPLITTING_THREADS, waiting=SPLITTING_WAITING)
        self.ranking = WorkloadThreads("ranking", threads=RANKING_THREADS, waiting=limits.waiting_searches)
        self.embedding = EmbeddingService(
            settings.embedding,
            timeout=settings.timeouts.embedding,
            breaker=settings.breaker,
            model=embed_model,
            manager=manager,
        )
        self.generations = Generations(manager)
        self.vectors = VectorIndex(
            manager,
            self.embedding,
            self.generations,
            timeout=settings.timeouts.llama_index,
            most_waiting=limits.index_waiting,
        )
        texts = TextIndex(manager, self.generations)
        self.repository = FactRepository(
            manager, self.splitting, keep_history=limits.history, lease=settings.indexing.lease
        )
        self.pending = PendingFacts(manager, settings.indexing)
        indexer = Indexer(
            manager,
            self.generations,
            self.embedding,
            self.vectors,
            self.pending,
            # The other half of the threads is for searches.
            inserts=max(1, limits.index_threads // 2),
            insert_timeout=settings.timeouts.llama_index,
        )
        self.background = BackgroundIndexer(
            manager, self.generations, self.embedding, indexer, self.pending, self.repository.sweep
        )
        self.reader = FactReader(self.repository, texts, self.generations, compiler)
        self.splitter = PassageSplitter(settings.chunking, self.splitting, analyzer)
        parts = PartMaker(self.splitter, self.embedding, self.splitting, settings.timeouts.document)
        self.writer = FactWriter(self.repository, parts, indexer, self.background, settings.timeouts, limits)
        self.bulk = BulkWriter(
            self.writer,
            parts,
            self.repository,
            self.reader,
            indexer,
            self.background,
            self.generations,
            settings.timeouts,
            limits,
        )
        self.finder = CandidateFinder(
            self.generations,
            self.embedding,
            self.vectors,
            texts,
            TimeoutPolicy(manager),
            analyzer,
            compiler,
            query_terms=limits.query_terms,
            vector_share=settings.retrieval.vector_share,
        )
        self.searches = Admission("searches", limits.concurrent_searches, limits.waiting_searches)
        self.searcher = Searcher(
            manager,
            self.repository,
            PassageReader(analyzer),
            self.generations,
            self.finder,
            compiler,
            self.ranking,
            self.searches,
            settings.retrieval,
        )
        self.tokens = TokenCounter(self.ranking, model=settings.llm.model, llm=llm)
        self.chunks = ChunkRetriever(
            self.finder,
            self.searches,
            ChunkPassages(manager, self.repository),
            PassageRanking(analyzer, settings.retrieval.rrf_k),
            self.tokens,
            self.ranking,
            settings.retrieval,
        )
        self.contexts = ContextBuilder(self.chunks, self.tokens, self.ranking, wait=settings.timeouts.context)
        self.answerer = Answerer(
            settings.llm,
            self.contexts,
            self.tokens,
            timeout=settings.timeouts.llm,
            breaker=settings.breaker,
            llm=llm,
        )

        def pools() -> dict[str, PoolStats]:
            admissions = {
                "searches": self.searches,
                "stores": self.writer.admission,
                "jobs": self.bulk.admission,
            }
            used = {name: admission.stats() for name, admission in admissions.items()}
            threads = self.splitting.stats() | self.ranking.stats() | self.answerer.stats()
            return manager.stats() | self.embedding.stats() | threads | used

        self.statistics = Statistics(manager, self.repository, self.generations, self.embedding, self.answerer, pools)
        self.readiness = Readiness(manager, self.generations, self.embedding, texts, self.background, pools)
        self.integrity = IntegrityCheck(self.statistics, self.pending, self.background)


class Services:
    """Starts the collaborators with the first call, and stops them.

    Args:
        settings: All settings.
        redis: A manager to share, or None for one of our own.
        embed_model: The caller's own embedding, or None.
        llm: The caller's own LLM, or None.

    Raises:
        InvalidInputError: The URL names another database than 0.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        redis: AsyncRedisManager | None,
        embed_model: BaseEmbedding | None,
        llm: LLM | None = None,
    ) -> None:
        url = redis.settings.redis_url if redis is not None else settings.redis_url
        if url is not None and not names_database_zero(url):
            raise InvalidInputError(
                "redis_url (KB_REDIS_URL)", "names another database than 0; the query engine indexes no other"
            )
        self._settings = settings
        self._shared = redis
        self._manager = redis or AsyncRedisManager(settings)
        self._embed_model = embed_model
        self._llm = llm
        self._collaborators: Collaborators | None = None
        self._loading: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._closing: asyncio.Future[None] | None = None

    async def start(self) -> Collaborators:
        """Returns the collaborators, connected; does next to nothing when they are.

        Raises:
            UnavailableError: Redis cannot be reached, or the base is closed.
            PermissionDeniedError: Redis refused the user or password.
            ServerRequirementError: The embedded server cannot run here.
        """
        collaborators = self._collaborate()
        await self._manager.start()
        self._refuse_when_closed()
        collaborators.background.start()
        return collaborators

    @asynccontextmanager
    async def call(self, operation: str, timeout: float | None, default: float) -> AsyncIterator[Collaborators]:
        """Opens the deadline of a public call, and gives it the collaborators; see ``start`` for the errors.

        Args:
            operation: The call, as named in errors.
            timeout: Its budget in seconds, as the caller gave it.
            default: Its budget when the caller gave none.

        Raises:
            InvalidInputError: The timeout is no duration.
            OperationTimeoutError: The budget was spent.
        """
        budget = default if timeout is None else checked_seconds("timeout", timeout)
        try:
            async with deadline(operation, budget):
                yield await self.start()
        except ResponseError as error:
            # The server's text may quote keys and values; it stays in the cause.
            raise KnowledgeBaseError(
                f"Redis refused a command of {operation}: something else has written to this namespace's keys"
            ) from error

    def preload(self) -> None:
        """Begins to load what the first search by meaning would have to wait for."""
        if self._loading is None:
            loop = asyncio.get_running_loop()
            loading = self._preload(self._collaborate())
            self._loading = loop.create_task(loading, name="kb-loading", context=Context())

    async def health(self, limit: float) -> Health:
        """Says which part is ill; starts what is not started.

        Args:
            limit: Seconds for all parts, which are looked at at the same time.
        """
        collaborators = self._collaborate()
        return await collaborators.readiness.health(self._settings.namespace, limit)

    async def close(self) -> None:
        """Ends every task, thread and connection within ``timeouts.close``."""
        self._refuse_another_loop()
        if self._closing is None:
            self._closed = True
            self._closing = asyncio.ensure_future(self._close())
        # Whoever gives up waiting does not leave it half closed.
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        budget = self._settings.timeouts.close
        closing: list[Coroutine[Any, Any, Any]] = []
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._collaborators is not None:
            await self._collaborators.background.close(budget / 8)
            closing = [
                self._collaborators.embedding.close(budget / 2),
                self._collaborators.vectors.close(),
                self._collaborators.splitting.close(budget / 2),
                self._collaborators.ranking.close(budget / 2),
                self._collaborators.answerer.close(budget / 2),
            ]
        if self._shared is None:
            closing.append(self._manager.close())
        # Each is closed, whatever comes of the others.
        outcomes = await asyncio.gather(*closing, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise UnavailableError("this knowledge base is closed; make a new one")

    def _refuse_another_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise KnowledgeBaseError("this knowledge base belongs to another event loop; make one in each loop")
        self._loop = loop

    def _collaborate(self) -> Collaborators:
        self._refuse_when_closed()
        self._refuse_another_loop()
        if self._collaborators is None:
            self._collaborators = Collaborators(self._settings, self._manager, self._embed_model, self._llm)
        return self._collaborators

    async def _preload(self, collaborators: Collaborators) -> None:
        try:
            # The quickest first: all of them wait for their turn to import.
            await collaborators.tokens.load()
            await collaborators.embedding.load()
            await collaborators.vectors.preload()
            await collaborators.splitter.preload()
            await collaborators.answerer.preload()
            if self._settings.freeze_imports:
                await collaborators.splitting.to_thread(freeze_imports, step="loading", limit=LOADING_SECONDS)
        except Exception as error:  # noqa: BLE001 - whoever needs them loads them again and is told what is wrong
            logger.info("loading failed", extra={"reason": type(error).__name__})
