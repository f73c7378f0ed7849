"""Search: by meaning and by words at the same time, fused, checked against the facts, and refined."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from knowledge_base.connection.admission import Admission
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.shared_reads import SharedReads
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.facts.records import FactRecord
from knowledge_base.facts.repository import FactRepository
from knowledge_base.index.candidate import Candidates
from knowledge_base.index.filters import FACTS_ONLY, FilterCompiler
from knowledge_base.index.generations import Generations
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import PartName
from knowledge_base.retrieval.candidates import CandidateFinder, Found, SearchRequest
from knowledge_base.retrieval.fusion import Ranked, Ranking, by_similarity, by_words, convex_combination
from knowledge_base.retrieval.passage_reader import PassageReader
from knowledge_base.retrieval.refinement import PLAIN, RankedFacts, Refinement, SearchOptions, Shown
from knowledge_base.settings import RetrievalSettings
from knowledge_base.types import Fact, SearchHit, SearchMode, SearchResults

NOTHING = Candidates([], 0, [])
ATTEMPTS = 3
"""Searches until enough is shown of what was found: it may have been changed just then."""

INLINE_CANDIDATES = 500
"""So many candidates are ranked on the event loop; more, which take it milliseconds, in a thread."""

HITS_AT_ONCE = 50
"""Hits that are read and put together before the event loop gets its turn; so many take it a few milliseconds."""

RANKING_SECONDS = 5.0
"""Longest wait for a thread that ranks."""


class Searcher:
    """Finds passages.

    Args:
        manager: The connections.
        repository: Where facts are kept.
        passages: Chooses what is shown of them.
        generations: Where each namespace's passages are.
        finder: Asks the retrievers.
        compiler: Turns filters into query text.
        threads: Where many candidates are ranked.
        admission: The places of those who search.
        refinement: Reranks, fades and spreads hits.
        settings: How hits are found and fused.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        repository: FactRepository,
        passages: PassageReader,
        generations: Generations,
        finder: CandidateFinder,
        compiler: FilterCompiler,
        threads: WorkloadThreads,
        admission: Admission,
        refinement: Refinement,
        settings: RetrievalSettings,
    ) -> None:
        self._reads = SharedReads(manager, "search")
        self._repository = repository
        self._passages = passages
        self._generations = generations
        self._finder = finder
        self._compiler = compiler
        self._threads = threads
        self._admission = admission
        self._refinement = refinement
        self._settings = settings

    async def search(self, request: SearchRequest, wait: float, options: SearchOptions = PLAIN) -> SearchResults:
        """Returns the best hits that the caller may see.

        Args:
            request: The search.
            wait: Seconds to wait for its turn at most.
            options: What is wanted beyond the ranking.

        Raises:
            OverloadedError: Too many searches wait already, or its turn did not come in time.
            InvalidInputError: The filter cannot be applied, or no usable reranker is there that is asked for.
            IndexMismatchError: The namespace was built with another embedding model.
            ServerRequirementError: A package is missing that the reranker needs.
            UnavailableError: No retriever of the mode could answer.
        """
        started = time.monotonic()
        self._refinement.require(options)
        pool = self._refinement.pool(options, request.top_k)
        depth = max(self._settings.candidates, 2 * request.top_k, pool)
        prepared = await self._finder.prepare(request)
        async with self._admission.place(wait):
            for attempt in range(ATTEMPTS):
                # Where the age of facts counts, a deeper candidate may come before a near one.
                enough = pool if attempt == 0 and options.recency is None else None
                found = await self._finder.find(prepared, depth, enough)
                ranking = await self._ranked(request.mode, found.retrieved, depth)
                ranked, ages = await self._refinement.faded(request.namespace, ranking, options)
                if request.min_score is not None and not self._refinement.reranks(options):
                    ranked = ranked.at_least(request.min_score)
                shown = [] if found.generation is None else await self._shown(found.generation, request, ranked, pool)
                if _is_enough(found, ranking, ranked, shown, pool):
                    break
        hits, unavailable = await self._refinement.refined(found.generation, request, options, shown, ages)
        return {
            "hits": hits,
            "mode": request.mode,
            "degraded": found.degraded + unavailable,
            "complete": found.complete,
            "took_ms": (time.monotonic() - started) * 1000,
        }

    async def facts_by_words(
        self, namespace: str, query: str, principals: Sequence[str], filters: Any, *, limit: int, offset: int
    ) -> list[Fact]:
        """Returns facts that hold some of a query's words, best first.

        Args:
            namespace: Where to look.
            query: The words.
            principals: Who is asking.
            filters: What they must match, or None.
            limit: How many at most.
            offset: How many to skip.

        Raises:
            InvalidInputError: The filter cannot be applied.
            UnavailableError: Redis could not be reached.
        """
        scope = f"({self._compiler.compile(filters, principals)} {FACTS_ONLY})"
        generation = await self._generations.current(namespace)
        if generation is None:
            return []
        wanted = offset + limit
        depth = max(self._settings.candidates, 2 * wanted)
        ranked = by_words(await self._finder.by_words(generation, query, scope, depth)).part(0, 2 * wanted)
        records = await self._repository.read(namespace, [item.fact_id for item in ranked], principals)
        current = [
            record.to_fact(namespace)
            for item, record in zip(ranked, records, strict=False)
            if record is not None and record.document_id is None and record.revision == item.revision
        ]
        return current[offset:wanted]

    async def _ranked(self, mode: SearchMode, retrieved: dict[str, Candidates], depth: int) -> Ranking:
        if sum(map(len, retrieved.values())) <= INLINE_CANDIDATES:
            return self._rank(mode, retrieved, depth)
        return await self._threads.to_thread(
            self._rank, mode, retrieved, depth, step="ranking candidates", limit=RANKING_SECONDS
        )

    def _rank(self, mode: SearchMode, retrieved: dict[str, Candidates], depth: int) -> Ranking:
        if mode == "vector":
            return by_similarity(retrieved.get("vector", NOTHING))
        if mode == "text":
            return by_words(retrieved.get("text", NOTHING))
        words, meaning = retrieved.get("text", NOTHING), retrieved.get("vector", NOTHING)
        return convex_combination(words, meaning, weight=self._settings.vector_weight, depth=depth)

    async def _shown(
        self, generation: Generation, request: SearchRequest, ranked: RankedFacts, most: int
    ) -> list[Shown]:
        shown: list[Shown] = []
        begin = 0
        while begin < len(ranked) and len(shown) < most:
            end = begin + min(HITS_AT_ONCE, most - len(shown))
            shown += await self._checked(generation, request, ranked.part(begin, end))
            begin = end
        return shown

    async def _checked(self, generation: Generation, request: SearchRequest, ranked: Sequence[Ranked]) -> list[Shown]:
        fact_ids = [item.fact_id for item in ranked]
        facts = self._repository.labels(request.namespace, fact_ids)
        read = await self._reads.rows([facts, self._passages.hashes(generation, ranked)])
        records = await self._repository.visible(fact_ids, read[0], request.principals)
        texts = await self._passages.chosen(generation, request.query, ranked, read[1])
        return [
            Shown(_hit(item, record, *passage), PartName(item.fact_id, item.revision, passage[0]))
            for item, record, passage in zip(ranked, records, texts, strict=True)
            if record is not None and record.revision == item.revision and passage is not None
        ]


def _is_enough(found: Found, ranking: Ranking, ranked: RankedFacts, shown: Sequence[Shown], wanted: int) -> bool:
    """Tells whether another search would show no more."""
    if found.limited and len(shown) < wanted:
        # What a threshold left out is followed by what it leaves out as well.
        return len(ranked) < len(ranking)
    return bool(shown) or not len(ranked)


def _hit(item: Ranked, record: FactRecord, position: int, text: str) -> SearchHit:
    return {
        "fact_id": record.fact_id,
        "document_id": record.document_id,
        "content": text,
        "score": item.score,
        "scores": {retriever: candidate.score for retriever, candidate in item.found.items()},
        "metadata": record.metadata,
        "tags": record.tags,
        "source": record.source,
        "position": position,
    }
