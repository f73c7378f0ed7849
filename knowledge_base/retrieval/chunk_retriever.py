"""``ChunkRetriever``: the passages that a prompt needs, within a threshold and a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

from knowledge_base.connection.admission import Admission
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.facts.records import FactRecord
from knowledge_base.index.candidate import Candidates
from knowledge_base.index.schema import Generation
from knowledge_base.retrieval.candidates import CandidateFinder, Found, SearchRequest
from knowledge_base.retrieval.chunk_candidates import PassageCandidate, PassageRanking, expanded
from knowledge_base.retrieval.chunk_metrics import Stages, operation_metrics
from knowledge_base.retrieval.chunk_passages import ChunkPassages
from knowledge_base.retrieval.chunk_selection import Chunk, ChunkSelection, Cost
from knowledge_base.retrieval.tokens import Count, TokenCounter
from knowledge_base.settings import RetrievalConfig, RetrievalSettings
from knowledge_base.telemetry import hooks
from knowledge_base.types import ChunkWithContext, RAGOperationMetrics

COMPARED_SECTIONS = 5
"""The words of so many sections are compared with the query, or of as many as chunks are wanted."""

PASSAGES_BY_WORDS = 40
"""So many passages found by words are ranked, or twice as many as are wanted; more find nothing better."""

ATTEMPTS = 2
"""Searches until something is chosen of what was found: all of it may have been changed just then."""

READ_AT_LEAST = 8
"""Passages that are read and offered together."""

NOTHING = Candidates([], 0, [])

RANKING_SECONDS = 5.0
CHOOSING_SECONDS = 10.0

NOTHING_FOUND = "nothing found"
NOTHING_SIMILAR = "nothing above the threshold"
NOTHING_FITS = "nothing fits into the budget"

CostOf: TypeAlias = Callable[[Count], Cost]
"""Makes, of the function that counts tokens, the one that says what a chunk takes of the budget."""


class Retrieval(NamedTuple):
    """What was retrieved."""

    chunks: list[Chunk]
    results: list[ChunkWithContext]
    """The same chunks, as callers get them."""
    metrics: RAGOperationMetrics
    reason: str | None
    """Why there are no chunks; None where there are some."""


class ChunkRetriever:
    """Retrieves chunks.

    Args:
        finder: Asks the retrievers.
        admission: The places of those who search.
        passages: Reads passages, and the facts that they are from.
        ranking: Ranks what was found.
        tokens: Counts tokens.
        threads: Where passages are ranked and chosen.
        settings: How many candidates are asked for.
    """

    def __init__(
        self,
        finder: CandidateFinder,
        admission: Admission,
        passages: ChunkPassages,
        ranking: PassageRanking,
        tokens: TokenCounter,
        threads: WorkloadThreads,
        settings: RetrievalSettings,
    ) -> None:
        self._finder = finder
        self._admission = admission
        self._passages = passages
        self._ranking = ranking
        self._tokens = tokens
        self._threads = threads
        self._settings = settings

    async def retrieve(
        self, request: SearchRequest, config: RetrievalConfig, wait: float, cost_of: CostOf | None = None
    ) -> Retrieval:
        """Returns the best chunks that the caller may see, and tells the listeners of ``telemetry`` about it.

        Args:
            request: The search, in mode "hybrid".
            config: What is wanted.
            wait: Seconds to wait for its turn at most.
            cost_of: What a chunk takes of the budget; without one, the tokens of its content.

        Raises:
            OverloadedError: Too many searches wait already, or its turn did not come in time.
            InvalidInputError: The filter cannot be applied.
            IndexMismatchError: The namespace was built with another embedding model.
            UnavailableError: No retriever could answer.
        """
        stages = Stages()
        count = await self._tokens.load()
        with stages.stage("embedding"):
            prepared = await self._finder.prepare(request)
        with stages.stage("waiting"):
            await self._admission.enter(wait)
        try:
            for _ in range(ATTEMPTS):
                with stages.stage("searching"):
                    found = await self._finder.find(prepared, max(self._settings.candidates, 2 * config.max_chunks))
                with stages.stage("ranking"):
                    candidates = await self._ranked(request.query, found, config)
                similar = [one for one in candidates if one.similarity >= config.similarity_threshold]
                selection = ChunkSelection(config, (cost_of or _content_cost)(count))
                with stages.stage("choosing"):
                    if found.generation is not None:
                        await self._choose(found.generation, request, similar, selection, config)
                if not similar or selection.refused or not selection.is_empty:
                    break
            with stages.stage("choosing"):
                chunks, results = await self._threads.to_thread(
                    _finished, selection, count, step="merging passages", limit=CHOOSING_SECONDS
                )
        finally:
            self._admission.leave()
        metrics = operation_metrics(
            [one.similarity for one in candidates],
            config.similarity_threshold,
            results,
            found.degraded,
            stages,
            complete=found.complete,
        )
        hooks.emit(hooks.RETRIEVAL, metrics)
        return Retrieval(chunks, results, metrics, None if results else _reason(metrics, selection))

    async def _ranked(self, query: str, found: Found, config: RetrievalConfig) -> list[PassageCandidate]:
        if found.generation is None:
            return []
        nearest = found.retrieved.get("vector", NOTHING)
        sections = expanded(found.retrieved.get("text", NOTHING), max(PASSAGES_BY_WORDS, 2 * config.max_chunks))
        near = {candidate.node_id for candidate in nearest}
        only_by_words = {name for section in sections for name in section.passages if name.node_id not in near}
        several = [section for section in sections if len(section.passages) > 1]
        compared = {
            name for section in several[: max(COMPARED_SECTIONS, config.max_chunks)] for name in section.passages
        }
        stored = await self._passages.stored(
            found.generation,
            vectors=only_by_words if found.vector is not None else set(),
            # Without vectors, or before they are there, it is the words that say how similar a passage is.
            texts=only_by_words | compared,
        )
        rank = partial(
            self._ranking.ranked,
            found.words,
            nearest,
            sections,
            stored,
            found.vector,
            background=found.background,
            compared=compared,
        )
        return await self._threads.to_thread(rank, step="ranking passages", limit=RANKING_SECONDS)

    async def _choose(
        self,
        generation: Generation,
        request: SearchRequest,
        candidates: Sequence[PassageCandidate],
        selection: ChunkSelection,
        config: RetrievalConfig,
    ) -> None:
        size = max(READ_AT_LEAST, config.max_chunks)
        for begin in range(0, len(candidates), size):
            some = candidates[begin : begin + size]
            read = await self._passages.with_facts(
                generation, [one.name for one in some], request.principals, neighbours=config.merge_neighbours
            )
            current = [one for one in some if _is_current(one, read.records)]
            refused = selection.refused
            chosen = await self._threads.to_thread(
                selection.offer, current, *read, step="choosing passages", limit=CHOOSING_SECONDS
            )
            if selection.is_full or (not chosen and selection.refused > refused):
                # What comes after these is worse, and would hardly fit.
                return


def _is_current(candidate: PassageCandidate, records: dict[str, FactRecord]) -> bool:
    record = records.get(candidate.name.fact_id)
    return record is not None and record.revision == candidate.name.revision


def _content_cost(count: Count) -> Cost:
    return lambda chunk: count(chunk.content)


def _finished(selection: ChunkSelection, count: Count) -> tuple[list[Chunk], list[ChunkWithContext]]:
    chunks = selection.chunks()
    return chunks, [chunk.with_tokens(count(chunk.content)) for chunk in chunks]


def _reason(metrics: RAGOperationMetrics, selection: ChunkSelection) -> str:
    if selection.refused:
        return NOTHING_FITS
    return NOTHING_SIMILAR if metrics["candidates"] and not metrics["above_threshold"] else NOTHING_FOUND
