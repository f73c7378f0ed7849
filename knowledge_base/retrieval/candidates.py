"""Candidates: what the retrievers find for a query, by words and by meaning, before it is ranked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from knowledge_base.connection.deadline import share_of_deadline
from knowledge_base.embedding.embeddings import Embeddings
from knowledge_base.errors import UnavailableError
from knowledge_base.index.analysis import Analyzer
from knowledge_base.index.candidate import Candidates
from knowledge_base.index.filters import FilterCompiler
from knowledge_base.index.generations import Generations
from knowledge_base.index.schema import Generation
from knowledge_base.index.text_index import TextIndex
from knowledge_base.index.text_query import telling_stems
from knowledge_base.index.timeout_policy import TimeoutPolicy
from knowledge_base.index.vector_index import VectorIndex
from knowledge_base.types import SearchMode


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


class PreparedQuery(NamedTuple):
    """A query that is ready to be sent to the retrievers."""

    generation: Generation | None
    """Where to look; None where nothing was ever written."""
    query: str
    mode: SearchMode
    scope: str
    """Compiled filter text."""
    vector: Sequence[float] | None
    """The query's vector; None in mode "text", and where the model gave none."""
    failure: UnavailableError | None
    """Why a hybrid search has no vector."""


class Found(NamedTuple):
    """What the retrievers found."""

    generation: Generation | None
    retrieved: dict[str, Candidates]
    """By retriever, best first: "text" finds sections, "vector" finds passages."""
    degraded: list[str]
    """Retrievers of a hybrid search that could not answer."""
    complete: bool
    """False when the server may have cut an answer short."""
    vector: Sequence[float] | None
    """The query's vector."""


class CandidateFinder:
    """Asks the retrievers of a search's mode, at the same time.

    Args:
        generations: Where each namespace's passages are.
        embeddings: Make the query's vector.
        vectors: Finds by meaning.
        texts: Finds by words.
        policy: Says whether the server may cut an answer short.
        analyzer: Gives the query's stems.
        compiler: Turns filters into query text.
        query_terms: Words of a query that are sent to full text search at most.
        vector_share: Share of a hybrid search's budget after which words alone answer.
    """

    def __init__(
        self,
        generations: Generations,
        embeddings: Embeddings,
        vectors: VectorIndex,
        texts: TextIndex,
        policy: TimeoutPolicy,
        analyzer: Analyzer,
        compiler: FilterCompiler,
        *,
        query_terms: int,
        vector_share: float,
    ) -> None:
        self._generations = generations
        self._embeddings = embeddings
        self._vectors = vectors
        self._texts = texts
        self._policy = policy
        self._analyzer = analyzer
        self._compiler = compiler
        self._query_terms = query_terms
        self._vector_share = vector_share

    async def prepare(self, request: SearchRequest) -> PreparedQuery:
        """Makes the query's vector, which may take as long as a slow endpoint does: hold no place meanwhile.

        Args:
            request: The search.

        Raises:
            InvalidInputError: The filter cannot be applied.
            IndexMismatchError: The namespace was built with another embedding model.
            UnavailableError: Redis could not be reached; in mode "vector", the model gave no vector.
        """
        scope = self._compiler.compile(request.filters, request.principals)
        generation = await self._generations.current(request.namespace)
        vector: Sequence[float] | None = None
        failure: UnavailableError | None = None
        if generation is not None and request.mode == "vector":
            vector = await self._query_vector(generation, request.query)
        elif generation is not None and request.mode == "hybrid":
            try:
                async with share_of_deadline("embedding the query", self._vector_share):
                    vector = await self._query_vector(generation, request.query)
            except UnavailableError as error:
                failure = error
        return PreparedQuery(generation, request.query, request.mode, scope, vector, failure)

    async def find(self, prepared: PreparedQuery, depth: int) -> Found:
        """Returns the candidates of each retriever.

        Args:
            prepared: What ``prepare`` gave.
            depth: Candidates of each retriever at most.

        Raises:
            UnavailableError: No retriever of the mode could answer.
        """
        generation = prepared.generation
        if generation is None:
            return Found(None, {}, [], True, None)
        lasted: list[float] = []
        retrieved, degraded = await self._retrieve(generation, prepared, depth, lasted)
        cuts_after = await self._policy.cuts_after()
        complete = cuts_after is None or max(lasted, default=0.0) < cuts_after
        return Found(generation, retrieved, degraded, complete, prepared.vector)

    async def by_words(self, generation: Generation, query: str, scope: str, depth: int) -> Candidates:
        """Returns the sections that hold some of a query's words, best first.

        Args:
            generation: Where to look.
            query: The words.
            scope: Compiled filter text.
            depth: How many at most.

        Raises:
            UnavailableError: Redis could not be reached.
        """
        return await self._by_words(generation, query, scope, depth, [])

    async def _query_vector(self, generation: Generation, query: str) -> Sequence[float]:
        # Before the model is asked, which may be away: another one's vectors would be of no use.
        service = await self._embeddings.serving(generation.model, generation.dimension)
        await service.require(generation.namespace, generation.model, generation.dimension)
        vector = await service.embed_query(query, generation.namespace)
        await service.require(generation.namespace, generation.model, generation.dimension)
        return vector

    async def _retrieve(
        self, generation: Generation, prepared: PreparedQuery, depth: int, lasted: list[float]
    ) -> tuple[dict[str, Candidates], list[str]]:
        query, scope, vector = prepared.query, prepared.scope, prepared.vector
        if prepared.mode == "vector":
            assert vector is not None
            return {"vector": await self._by_meaning(generation, vector, scope, depth, lasted)}, []
        if vector is None:
            degraded = [] if prepared.failure is None else ["vector"]
            return {"text": await self._by_words(generation, query, scope, depth, lasted)}, degraded
        # Words first: where ranks are equal, a match of the user's own words goes before one of meaning.
        answers = await asyncio.gather(
            self._by_words(generation, query, scope, depth, lasted),
            self._by_meaning_in_time(generation, vector, scope, depth, lasted),
            return_exceptions=True,
        )
        retrieved: dict[str, Candidates] = {}
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
        self, generation: Generation, vector: Sequence[float], scope: str, depth: int, lasted: list[float]
    ) -> Candidates:
        async with share_of_deadline("searching by meaning", self._vector_share):
            return await self._by_meaning(generation, vector, scope, depth, lasted)

    async def _by_meaning(
        self, generation: Generation, vector: Sequence[float], scope: str, depth: int, lasted: list[float]
    ) -> Candidates:
        asked = time.monotonic()
        found = await self._vectors.query(generation, vector, scope, depth)
        lasted.append(time.monotonic() - asked)
        return found

    async def _by_words(
        self, generation: Generation, query: str, scope: str, depth: int, lasted: list[float]
    ) -> Candidates:
        stems = telling_stems(self._analyzer.query_stems(query), self._query_terms, scope)
        asked = time.monotonic()
        found = await self._texts.ranked(generation, stems, scope, depth)
        lasted.append(time.monotonic() - asked)
        return found
