"""The order in which a ``KnowledgeBase`` starts and stops, and what each public call begins with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from knowledge_base.collaborators import Collaborators
from knowledge_base.connection.deadline import deadline
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.errors import InvalidInputError, KnowledgeBaseError, UnavailableError
from knowledge_base.facts.validation import checked_seconds
from knowledge_base.heavy_imports import freeze_imports
from knowledge_base.settings import Settings, names_database_zero
from knowledge_base.types import Health

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

logger = logging.getLogger(__name__)

LOADING_SECONDS = 30.0


class Services:
    """Starts the collaborators with the first call, and stops them.

    Args:
        settings: All settings.
        redis: A manager to share, or None for one of our own.
        embed_model: The caller's own embedding, or None.
        next_embed_model: The caller's own embedding that the base is being moved to, or None.
        llm: The caller's own LLM, or None.
        reranker: The caller's own reranker, or None.

    Raises:
        InvalidInputError: The URL names another database than 0.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        redis: AsyncRedisManager | None,
        embed_model: BaseEmbedding | None,
        next_embed_model: BaseEmbedding | None = None,
        llm: LLM | None = None,
        reranker: BaseNodePostprocessor | None = None,
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
        self._next_embed_model = next_embed_model
        self._llm = llm
        self._reranker = reranker
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
            await self._collaborators.jobs.close(budget / 4)
            await self._collaborators.rebuild.close(budget / 8)
            await self._collaborators.background.close(budget / 8)
            closing = [
                self._collaborators.embeddings.close(budget / 2),
                self._collaborators.indexer.close(),
                self._collaborators.vectors.close(),
                self._collaborators.texts.close(),
                self._collaborators.extractor.close(budget / 2),
                self._collaborators.folders.close(budget / 2),
                self._collaborators.splitting.close(budget / 2),
                self._collaborators.transfer.close(budget / 2),
                self._collaborators.ranking.close(budget / 2),
                self._collaborators.answerer.close(budget / 2),
                self._collaborators.reranker.close(budget / 2),
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
            self._collaborators = Collaborators(
                self._settings, self._manager, self._embed_model, self._next_embed_model, self._llm, self._reranker
            )
        return self._collaborators

    async def _preload(self, collaborators: Collaborators) -> None:
        try:
            # The quickest first: all of them wait for their turn to import.
            await collaborators.tokens.load()
            await collaborators.embeddings.load()
            await collaborators.vectors.preload()
            await collaborators.splitter.preload()
            await collaborators.reranker.preload()
            await collaborators.answerer.preload()
            if self._settings.freeze_imports:
                await collaborators.splitting.to_thread(freeze_imports, step="loading", limit=LOADING_SECONDS)
        except Exception as error:  # noqa: BLE001 - whoever needs them loads them again and is told what is wrong
            logger.info("loading failed", extra={"reason": type(error).__name__})
