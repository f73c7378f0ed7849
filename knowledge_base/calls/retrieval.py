"""The calls that find something."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from knowledge_base.calls.base import Calls
from knowledge_base.facts import validation
from knowledge_base.retrieval.candidates import SearchRequest
from knowledge_base.types import SearchMode, SearchResults

if TYPE_CHECKING:
    from llama_index.core.vector_stores.types import MetadataFilters


class RetrievalCalls(Calls):
    """Search; each method checks its arguments, opens the deadline, and asks one collaborator."""

    async def search(
        self,
        query: str,
        top_k: int = 10,
        *,
        mode: SearchMode = "hybrid",
        namespace: str | None = None,
        principals: Iterable[str] | None = None,
        filters: Mapping[str, Any] | MetadataFilters | None = None,
        min_score: float | None = None,
        timeout: float | None = None,
    ) -> SearchResults:
        """Returns the best passages, one a fact.

        Args:
            query: What is asked, in the user's words; nothing in it is taken for an operator.
            top_k: How many hits at most.
            mode: "hybrid" (by meaning and words), "vector" (by meaning) or "text" (by words).
            min_score: The least ``score`` of a hit, from 0 to 1.

        Returns:
            The hits, best first. ``degraded`` names the retrievers of a hybrid search that could not answer.

        Raises:
            IndexMismatchError: The namespace was built with another embedding model.
            EmbeddingUnavailableError: In mode "vector", the model gave no vector.
        """
        limits = self.settings.limits
        validation.checked_choice("mode", mode, validation.MODES)
        self._filters.clause(filters)
        request = SearchRequest(
            namespace=self._namespace(namespace),
            query=validation.checked_text("query", query, limits.query_chars),
            mode=mode,
            top_k=validation.checked_number("top_k", top_k, 1, limits.top_k),
            principals=self._principals(principals),
            filters=filters,
            min_score=validation.checked_score(min_score),
        )
        async with self._services.call("search", timeout, self.settings.timeouts.search) as services:
            return await services.searcher.search(request, self.settings.timeouts.search)
