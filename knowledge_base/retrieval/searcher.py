"""Search: by meaning and by words at the same time, fused, and checked against the facts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from knowledge_base.connection.admission import Admission
from knowledge_base.connection.deadline import share_of_deadline
from knowledge_base.embedding.service import EmbeddingService
from knowledge_base.errors import IndexMismatchError, UnavailableError
from knowledge_base.facts.records import FactRecord
from knowledge_base.facts.repository import FactRepository
from knowledge_base.index.analysis import Analyzer
from knowledge_base.index.filters import FilterCompiler
from knowledge_base.index.generations import Generations
from knowledge_base.index.schema import Generation
from knowledge_base.index.text_index import TextIndex
from knowledge_base.index.text_query import telling_stems
from knowledge_base.index.timeout_policy import TimeoutPolicy
from knowledge_base.index.vector_index import Candidate, VectorIndex
from knowledge_base.retrieval.fusion import Ranked, by_similarity, by_words, reciprocal_rank_fusion
from knowledge_base.retrieval.passage_reader import PassageReader
from knowledge_base.settings import Limits, RetrievalSettings
from knowledge_base.types import Fact, SearchHit, SearchMode, SearchResults


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """The checked arguments of one search."""

    namespace: str
    query: str
    mode: SearchMode
    top_k: int
    principals: Sequence[str]
    filters: Any = None
    min_score: float | None = None


class Searcher:
    """Finds passages.

    Args:
        repository: Where facts are kept.
        passages: Reads what is shown of them.
        generations: Where each namespace's passages are.
        embedding: Makes the query's vector.
        vectors: Finds by meaning.
        texts: Finds by words.
        policy: Says whether the server may cut an answer short.
        analyzer: Gives the query's stems.
        compiler: Turns filters into query text.
        settings: How hits are found and fused.
        limits: The limits.
    """

    def __init__(
        self,
        repository: FactRepository,
        passages: PassageReader,
        generations: Generations,
        embedding: EmbeddingService,
        vectors: VectorIndex,
        texts: TextIndex,
        policy: TimeoutPolicy,
        analyzer: Analyzer,
        compiler: FilterCompiler,
        settings: RetrievalSettings,
        limits: Limits,
    ) -> None:
        self._repository = repository
        self._passages = passages
        self._generations = generations
        self._embedding = embedding
        self._vectors = vectors
        self._texts = texts
        self._policy = policy
        self._analyzer = analyzer
        self._compiler = compiler
        self._settings = settings
        self._limits = limits
        self.admission = Admission("searches", limits.concurrent_searches, limits.waiting_searches)

    async def search(self, request: SearchRequest, wait: float) -> SearchResults:
        """Returns the best hits that the caller may see.

        Args:
            request: The search.
            wait: Seconds to wait for its turn at most.

        Raises:
            OverloadedError: Too many searches wait already, or its turn did not come in time.
            InvalidInputError: The filter cannot be applied.
            IndexMismatchError: The namespace was built with another embedding model.
            UnavailableError: No retriever of the mode could answer.
        """
        started = time.monotonic()
        async with self.admission.place(wait):
            results = await self._search(request)
        results["took_ms"] = (time.monotonic() - started) * 1000
        return results

    async def _search(self, request: SearchRequest) -> SearchResults:
        scope = self._compiler.compile(request.filters, request.principals)
        generation = await self._generations.current(request.namespace)
        retrieved: dict[str, list[Candidate]] = {}
        degraded: list[str] = []
        complete = True
        if generation is not None:
            lasted: list[float] = []
            retrieved, degraded = await self._retrieve(generation, request, scope, lasted)
            cuts_after = await self._policy.cuts_after()
            complete = cuts_after is None or max(lasted, default=0.0) < cuts_after
        # Between the steps, each of which takes milliseconds for thousands of candidates, the event loop gets its turn.
        await asyncio.sleep(0)
        ranked = self._ranked(request.mode, retrieved)
        await asyncio.sleep(0)
        if request.min_score is not None:
            ranked = [item for item in ranked if item.score >= request.min_score]
        hits = [] if generation is None else await self._hits(generation, request, ranked)
        return {
            "hits": hits,
            "mode": request.mode,
            "degraded": degraded,
            "complete": complete,
            "took_ms": 0.0,
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
        scope = self._compiler.compile(filters, principals)
        generation = await self._generations.current(namespace)
        if generation is None:
            return []
        wanted = offset + limit
        depth = max(self._settings.candidates, 2 * wanted)
        ranked = by_words(await self._by_words(generation, query, scope, depth, []))
        records = await self._repository.read(namespace, [item.fact_id for item in ranked[: 2 * wanted]], principals)
        current = [
            record.to_fact(namespace)
            for item, record in zip(ranked, records, strict=False)
            if record is not None and record.revision == item.revision
        ]
        return current[offset:wanted]

    async def _retrieve(
        self, generation: Generation, request: SearchRequest, scope: str, lasted: list[float]
    ) -> tuple[dict[str, list[Candidate]], list[str]]:
        query, depth = request.query, max(self._settings.candidates, 2 * request.top_k)
        if request.mode == "text":
            return {"text": await self._by_words(generation, query, scope, depth, lasted)}, []
        if request.mode == "vector":
            return {"vector": await self._by_meaning(generation, query, scope, depth, lasted)}, []
        # Words first: where ranks are equal, a match of the user's own words goes before one of meaning.
        answers = await asyncio.gather(
            self._by_words(generation, query, scope, depth, lasted),
            self._by_meaning_in_time(generation, query, scope, depth, lasted),
            return_exceptions=True,
        )
        retrieved: dict[str, list[Candidate]] = {}
        failed: dict[str, UnavailableError] = {}
        for name, answer in zip(("text", "vector"), answers, strict=True):
            if isinstance(answer, UnavailableError):
                failed[name] = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                retrieved[name] = answer
        if not retrieved:
            raise failed["text"]
        return retrieved, list(failed)

    async def _by_meaning_in_time(
        self, generation: Generation, query: str, scope: str, depth: int, lasted: list[float]
    ) -> list[Candidate]:
        async with share_of_deadline("searching by meaning", self._settings.vector_share):
            return await self._by_meaning(generation, query, scope, depth, lasted)

    async def _by_meaning(
        self, generation: Generation, query: str, scope: str, depth: int, lasted: list[float]
    ) -> list[Candidate]:
        vector = await self._embedding.embed_query(query)
        identity = await self._embedding.identity()
        if identity != (generation.model, generation.dimension):
            raise IndexMismatchError(
                generation.namespace, f"{identity.model}/{identity.dimension}", generation.identity
            )
        asked = time.monotonic()
        found = await self._vectors.query(generation, vector, scope, depth)
        lasted.append(time.monotonic() - asked)
        return found

    async def _by_words(
        self, generation: Generation, query: str, scope: str, depth: int, lasted: list[float]
    ) -> list[Candidate]:
        stems = telling_stems(self._analyzer.query_stems(query), self._limits.query_terms, scope)
        asked = time.monotonic()
        found = await self._texts.ranked(generation, stems, scope, depth)
        lasted.append(time.monotonic() - asked)
        return found

    def _ranked(self, mode: SearchMode, retrieved: dict[str, list[Candidate]]) -> list[Ranked]:
        if mode == "vector":
            return by_similarity(retrieved.get("vector", []))
        if mode == "text":
            return by_words(retrieved.get("text", []))
        return reciprocal_rank_fusion(retrieved, self._settings.rrf_k)

    async def _hits(self, generation: Generation, request: SearchRequest, ranked: Sequence[Ranked]) -> list[SearchHit]:
        hits: list[SearchHit] = []
        begin = 0
        while begin < len(ranked) and len(hits) < request.top_k:
            end = begin + request.top_k - len(hits)
            hits += await self._checked_hits(generation, request, ranked[begin:end])
            begin = end
        return hits

    async def _checked_hits(
        self, generation: Generation, request: SearchRequest, ranked: Sequence[Ranked]
    ) -> list[SearchHit]:
        records, texts = await asyncio.gather(
            self._repository.read(request.namespace, [item.fact_id for item in ranked], request.principals),
            self._passages.read(generation, request.query, ranked),
        )
        return [
            _hit(item, record, *passage)
            for item, record, passage in zip(ranked, records, texts, strict=True)
            if record is not None and record.revision == item.revision and passage is not None
        ]


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
