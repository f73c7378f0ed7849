"""``KnowledgeBase``: everything that callers await, group by group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knowledge_base.calls.admin import AdminCalls
from knowledge_base.calls.answers import AnswerCalls
from knowledge_base.calls.backup import BackupCalls
from knowledge_base.calls.documents import DocumentCalls
from knowledge_base.calls.facts import FactCalls
from knowledge_base.calls.housekeeping import HousekeepingCalls
from knowledge_base.calls.jobs import JobCalls
from knowledge_base.calls.retrieval import RetrievalCalls, checked_reranker
from knowledge_base.connection.deadline import deadline
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.services import Services
from knowledge_base.settings import Settings

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM
    from llama_index.core.postprocessor.types import BaseNodePostprocessor


class KnowledgeBase(
    FactCalls, DocumentCalls, RetrievalCalls, AnswerCalls, AdminCalls, HousekeepingCalls, JobCalls, BackupCalls
):
    """Facts in Redis, found again by meaning and by words.

    Nothing is done before ``start()``, which the first call implies. Every call takes ``timeout``, its whole budget
    in seconds; without one, ``Settings.timeouts`` has it. ``namespace`` is ``Settings.namespace`` where none is given.
    ``principals`` says who is asking: a fact that has principals is only seen by a caller who brings one of them.
    ``filters`` is a mapping, as ``docs/how-to/search.md`` shows, or LlamaIndex ``MetadataFilters``.

    All calls may raise ``InvalidInputError`` for a refused argument, ``OperationTimeoutError`` when their budget is
    spent, ``UnavailableError`` when Redis cannot be reached, ``CircuitOpenError`` when it could not be reached
    repeatedly, and ``OverloadedError`` when too much is waiting.

    Args:
        settings: All settings; from the environment where none are given.
        redis: A connection manager to share; closed by whoever made it.
        embed_model: A LlamaIndex embedding to use instead of the one that the settings name.
        next_embed_model: A LlamaIndex embedding that the base is being moved to; see ``rebuild_search_index``.
        llm: A LlamaIndex LLM to answer questions instead of the one that the settings name.
        reranker: A LlamaIndex node postprocessor to rerank hits with instead of the one that the settings name.

    Raises:
        InvalidInputError: What is given as reranker is none, or the URL names another database than 0.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        redis: AsyncRedisManager | None = None,
        embed_model: BaseEmbedding | None = None,
        next_embed_model: BaseEmbedding | None = None,
        llm: LLM | None = None,
        reranker: BaseNodePostprocessor | None = None,
    ) -> None:
        chosen = settings or (redis.settings if redis is not None else Settings())
        super().__init__(
            chosen,
            Services(
                chosen,
                redis=redis,
                embed_model=embed_model,
                next_embed_model=next_embed_model,
                llm=llm,
                reranker=None if reranker is None else checked_reranker("reranker", reranker),
            ),
        )

        self._embed_model = embed_model

    def _beside(self, settings: Settings) -> KnowledgeBase:
        return KnowledgeBase(settings, embed_model=self._embed_model)

    async def start(self) -> None:
        """Connects, begins to load the embedding model, and starts to index what was left pending.

        Raises:
            UnavailableError: Redis cannot be reached; the next call tries again.
            PermissionDeniedError: Redis refused the user or password.
            ServerRequirementError: The embedded server cannot run here.
        """
        async with deadline("start", self.settings.timeouts.start):
            await self._services.start()
        self._services.preload()

    async def close(self) -> None:
        """Ends every task, thread and connection within ``timeouts.close``; unfinished indexing goes on elsewhere."""
        await self._services.close()

    async def __aenter__(self) -> KnowledgeBase:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
