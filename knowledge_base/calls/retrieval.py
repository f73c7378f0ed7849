"""The calls that find something."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from knowledge_base.calls.base import Calls
from knowledge_base.errors import InvalidInputError
from knowledge_base.facts import validation
from knowledge_base.retrieval.candidates import SearchRequest
from knowledge_base.retrieval.refinement import SearchOptions
from knowledge_base.types import SearchMode, SearchResults

if TYPE_CHECKING:
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.vector_stores.types import MetadataFilters

LONGEST_HALF_LIFE = 100 * 365 * 86_400.0
"""Of recency, in seconds."""


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
        rerank: bool | BaseNodePostprocessor | None = None,
        diversity: float | None = None,
        recency: float | timedelta | None = None,
        timeout: float | None = None,
    ) -> SearchResults:
        """Returns the best passages, one a fact.

        The options work in this order: recency, reranking, ``min_score``, diversity; then ``top_k`` are left.

        Args:
            query: What is asked, in the user's words; nothing in it is taken for an operator.
            top_k: How many hits at most.
            mode: "hybrid" (by meaning and words), "vector" (by meaning) or "text" (by words).
            min_score: The least ``score`` of a hit, from 0 to 1.
            rerank: None: by the reranker of the settings or the constructor, if there is one; False: not; True: there
                must be one; or a LlamaIndex node postprocessor for this call.
            diversity: How much hits that resemble better ones give way to others, from 0 (not at all) to 1.
            recency: A half-life in seconds or as a ``timedelta``: what was last changed that long ago counts half.

        Returns:
            The hits, best first. ``degraded`` names what could not answer: retrievers of a hybrid search, or "rerank".

        Raises:
            InvalidInputError: With ``rerank=True``, no usable reranker is there.
            ServerRequirementError: With ``rerank=True``, a package is missing that the reranker needs.
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
        options = SearchOptions(
            rerank=rerank if rerank is None or isinstance(rerank, bool) else checked_reranker("rerank", rerank),
            diversity=validation.checked_share("diversity", diversity) or 0.0,
            recency=None if recency is None else validation.checked_seconds("recency", recency, LONGEST_HALF_LIFE),
        )
        async with self._services.call("search", timeout, self.settings.timeouts.search) as services:
            return await services.searcher.search(request, self.settings.timeouts.search, options)


def checked_reranker(field: str, value: BaseNodePostprocessor) -> BaseNodePostprocessor:
    """Returns a reranker that a caller has given.

    Args:
        field: The argument's name.
        value: What the caller passed.

    Raises:
        InvalidInputError: It is no LlamaIndex node postprocessor, or a class of them.
    """
    # By its method: the class is in a module that takes seconds to import.
    if isinstance(value, type) or not callable(getattr(value, "postprocess_nodes", None)):
        raise InvalidInputError(field, f"must be a LlamaIndex node postprocessor, not {type(value).__name__}")
    return value
