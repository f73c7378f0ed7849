"""``ContextBuilder``: numbered passages for a prompt, with citations, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.retrieval.candidates import SearchRequest
from knowledge_base.retrieval.chunk_retriever import NOTHING_FITS, ChunkRetriever
from knowledge_base.retrieval.chunk_selection import Chunk, Cost
from knowledge_base.retrieval.context_text import BETWEEN, citation, context_text, passage_text
from knowledge_base.retrieval.tokens import Count, TokenCounter
from knowledge_base.settings import RetrievalConfig
from knowledge_base.types import Context

WRITING_SECONDS = 10.0

UNAVAILABLE = "unavailable: "
"""Before the error's text in the ``reason`` of a context that could not be built."""


@dataclass(frozen=True, slots=True)
class ContextRequest:
    """The checked arguments of one context."""

    search: SearchRequest
    """What to search for, which ``standalone_query`` gave."""
    config: RetrievalConfig
    token_budget: int


class ContextBuilder:
    """Builds contexts.

    Args:
        retriever: Finds the passages.
        tokens: Counts tokens.
        threads: Where texts are written and counted.
        wait: Seconds to wait for a search's turn at most.
    """

    def __init__(
        self, retriever: ChunkRetriever, tokens: TokenCounter, threads: WorkloadThreads, *, wait: float
    ) -> None:
        self._retriever = retriever
        self._tokens = tokens
        self._threads = threads
        self._wait = wait

    async def build(self, request: ContextRequest) -> Context:
        """Returns the numbered passages; see ``ChunkRetriever.retrieve`` for the errors.

        Args:
            request: What is asked; of its two budgets the smaller one counts, for the text as it stands.
        """
        budget = min(request.token_budget, request.config.token_budget)
        config = request.config.model_copy(update={"token_budget": budget})
        retrieval = await self._retriever.retrieve(
            request.search, config, self._wait, lambda count: _numbered_cost(count, config.max_chunks)
        )
        count = await self._tokens.load()
        written = await self._threads.to_thread(
            _written, retrieval.chunks, budget, count, step="writing the context", limit=WRITING_SECONDS
        )
        reason = None if written.chunks else retrieval.reason or NOTHING_FITS
        return {
            "text": written.text,
            "citations": [citation(number, chunk) for number, chunk in enumerate(written.chunks, start=1)],
            "tokens": written.tokens,
            "query": request.search.query,
            "degraded": retrieval.metrics["degraded"],
            "complete": retrieval.metrics["complete"],
            "reason": reason,
        }


def empty_context(query: str, error: Exception) -> Context:
    """Returns the context of a question for which nothing could be looked up.

    Args:
        query: What was to be searched for.
        error: Why not.
    """
    return {
        "text": "",
        "citations": [],
        "tokens": 0,
        "query": query,
        "degraded": [],
        "complete": False,
        "reason": f"{UNAVAILABLE}{error}",
    }


class _Written(NamedTuple):
    text: str
    tokens: int
    chunks: Sequence[Chunk]


def _numbered_cost(count: Count, most: int) -> Cost:
    # The last number is the longest.
    return lambda chunk: count(passage_text(most, chunk) + BETWEEN)


def _written(chunks: Sequence[Chunk], budget: int, count: Count) -> _Written:
    while chunks:
        text = context_text(chunks)
        tokens = count(text)
        if tokens <= budget:
            return _Written(text, tokens, chunks)
        # An LLM's tokenizer may count a whole otherwise than its parts.
        chunks = chunks[:-1]
    return _Written("", 0, [])
