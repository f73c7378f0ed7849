"""The calls that bring passages into a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from knowledge_base.calls.base import Calls
from knowledge_base.errors import InvalidInputError, UnavailableError
from knowledge_base.facts import validation
from knowledge_base.retrieval.candidates import SearchRequest
from knowledge_base.retrieval.context_builder import ContextRequest, empty_context
from knowledge_base.retrieval.context_history import checked_history, standalone_query
from knowledge_base.settings import RetrievalConfig
from knowledge_base.telemetry import hooks
from knowledge_base.types import ChatMessage, ChunkWithContext, Context, OnError, RAGOperationMetrics

if TYPE_CHECKING:
    from llama_index.core.vector_stores.types import MetadataFilters

MOST_TOKENS = 1_000_000

ON_ERROR: tuple[str, ...] = get_args(OnError)


class ContextCalls(Calls):
    """Chunks and contexts; each method checks its arguments, opens the deadline, and asks one collaborator."""

    async def retrieve_chunks_from_text(
        self,
        query: str,
        config: RetrievalConfig | None = None,
        *,
        namespace: str | None = None,
        principals: Iterable[str] | None = None,
        filters: Mapping[str, Any] | MetadataFilters | None = None,
        on_metrics: Callable[[RAGOperationMetrics], None] | None = None,
        timeout: float | None = None,
    ) -> list[ChunkWithContext]:
        """Returns the best passages for a prompt, within a threshold and a budget of tokens.

        Passages that stand side by side come as one chunk; identical ones come once.

        Args:
            query: What is asked, in the user's words; nothing in it is taken for an operator.
            config: What is wanted; without one, ``RetrievalConfig()``.
            on_metrics: Called with the metrics of this retrieval, when it is done.

        Returns:
            The chunks, best first; an empty list when nothing reaches the threshold or fits into the budget.

        Raises:
            IndexMismatchError: The namespace was built with another embedding model.
        """
        if on_metrics is not None:
            hooks.check_listener("on_metrics", on_metrics)
        wanted = _checked_config(config)
        request = self._search_request(query, wanted, namespace, principals, filters)
        limit = self.settings.timeouts.retrieve
        async with self._services.call("retrieve_chunks_from_text", timeout, limit) as services:
            retrieval = await services.chunks.retrieve(request, wanted, limit)
        if on_metrics is not None:
            hooks.tell(on_metrics, hooks.RETRIEVAL, retrieval.metrics)
        return retrieval.results

    async def build_context(
        self,
        query: str,
        *,
        history: Iterable[ChatMessage] = (),
        token_budget: int = 2_000,
        config: RetrievalConfig | None = None,
        namespace: str | None = None,
        principals: Iterable[str] | None = None,
        filters: Mapping[str, Any] | MetadataFilters | None = None,
        on_error: OnError = "raise",
        timeout: float | None = None,
    ) -> Context:
        """Returns numbered passages for a prompt, and what stands behind each number.

        Args:
            query: What the user asks now.
            history: The conversation before it, oldest first; a question that leaves out what was said before is
                searched for with the words of the questions before it.
            token_budget: Tokens of the text at most, numbers and all; of this and ``config.token_budget`` the smaller
                one counts.
            config: Which passages are wanted; without one, ``RetrievalConfig()``.
            on_error: "raise", or "empty" for an empty context, which says why, instead of an ``UnavailableError``.

        Returns:
            The context. Without text, ``reason`` says why.

        Raises:
            IndexMismatchError: The namespace was built with another embedding model.
        """
        validation.checked_choice("on_error", on_error, ON_ERROR)
        request = self._context_request(query, history, token_budget, config, namespace, principals, filters)
        try:
            async with self._services.call("build_context", timeout, self.settings.timeouts.context) as services:
                return await services.contexts.build(request)
        except UnavailableError as error:
            if on_error == "raise":
                raise
            return empty_context(request.search.query, error)

    def _context_request(
        self,
        query: str,
        history: Iterable[ChatMessage],
        token_budget: int,
        config: RetrievalConfig | None,
        namespace: str | None,
        principals: Iterable[str] | None,
        filters: Mapping[str, Any] | MetadataFilters | None,
    ) -> ContextRequest:
        wanted = _checked_config(config)
        budget = validation.checked_number("token_budget", token_budget, 1, MOST_TOKENS)
        request = self._search_request(query, wanted, namespace, principals, filters)
        messages = checked_history(history, self.settings.limits)
        standalone = standalone_query(request.query, messages, self.settings.limits.query_chars)
        return ContextRequest(replace(request, query=standalone), wanted, budget)

    def _search_request(
        self,
        query: str,
        config: RetrievalConfig,
        namespace: str | None,
        principals: Iterable[str] | None,
        filters: Mapping[str, Any] | MetadataFilters | None,
    ) -> SearchRequest:
        self._filters.clause(filters)
        return SearchRequest(
            namespace=self._namespace(namespace),
            query=validation.checked_text("query", query, self.settings.limits.query_chars),
            mode="hybrid",
            top_k=config.max_chunks,
            principals=self._principals(principals),
            filters=filters,
        )


def _checked_config(config: Any) -> RetrievalConfig:
    if config is None:
        return RetrievalConfig()
    if not isinstance(config, RetrievalConfig):
        raise InvalidInputError("config", f"must be a RetrievalConfig, not {type(config).__name__}")
    return config
