"""Candidates: what the retrievers find for a query, by words and by meaning, before it is ranked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from knowledge_base.connection.deadline import share_of_deadline
from knowledge_base.embedding.embeddings import Embeddings
from knowledge_base.errors import UnavailableError
from knowledge_base.index.candidate import Candidates
from knowledge_base.index.filters import FilterCompiler
from knowledge_base.index.generations import Generations
from knowledge_base.index.index_size import IndexSize
from knowledge_base.index.namespace_languages import NamespaceLanguages
from knowledge_base.index.polyglot import NO_WORDS, Polyglot, QueryWords
from knowledge_base.index.schema import Generation
from knowledge_base.index.text_index import TextIndex
from knowledge_base.index.timeout_policy import TimeoutPolicy
from knowledge_base.index.vector_index import VectorIndex
from knowledge_base.retrieval.match import full_match, meaning_matches, word_matches
from knowledge_base.types import SearchMode

FEW = 20
"""Passages that are asked for at least where few facts are enough: some of them may be of the same fact, or changed."""

CROWDED_FOR = 60.0
"""Seconds for which it is remembered that few passages were of too few facts."""

MOST_CROWDED = 1_000
"""Namespaces of which that is remembered."""


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
    background: float = 0.0
    """Cosine similarity of texts that have nothing in common."""


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
    words: QueryWords = NO_WORDS
    """What of the query was searched for; nothing in mode "vector"."""
    language: str | None = None
    """Of the query, as a Snowball name; None when it is not known, and in mode "vector"."""
    background: float = 0.0
    """Cosine similarity of texts that have nothing in common."""
    limited: bool = False
    """Whether deeper candidates may be left: the search ended with what it was told is enough."""


class Crowded:
    """Namespaces in which a few passages were of too few facts lately: there, one deep search is quicker than two.

    Args:
        clock: Monotonic seconds; tests bring their own.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[Generation, float] = {}

    def holds(self, generation: Generation) -> bool:
        """Tells whether a namespace is one of them.

        Args:
            generation: Its live generation.
        """
        return self._until.get(generation, 0.0) > self._clock()

    def add(self, generation: Generation) -> None:
        """Remembers a namespace for a while.

        Args:
            generation: Its live generation.
        """
        if len(self._until) >= MOST_CROWDED:
            self._until.clear()
        self._until[generation] = self._clock() + CROWDED_FOR


class CandidateFinder:
    """Asks the retrievers of a search's mode, at the same time.

    Args:
        generations: Where each namespace's passages are.
        embeddings: Make the query's vector.
        vectors: Finds by meaning.
        texts: Finds by words.
        sizes: Say how many sections there are.
        policy: Says whether the server may cut an answer short.
        polyglot: Gives the query's stems.
        languages: Knows the languages of namespaces.
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
        sizes: IndexSize,
        policy: TimeoutPolicy,
        polyglot: Polyglot,
        languages: NamespaceLanguages,
        compiler: FilterCompiler,
        *,
        query_terms: int,
        vector_share: float,
    ) -> None:
        self._generations = generations
        self._embeddings = embeddings
        self._vectors = vectors
        self._texts = texts
        self._sizes = sizes
        self._policy = policy
        self._polyglot = polyglot
        self._languages = languages
        self._compiler = compiler
        self._query_terms = query_terms
        self._vector_share = vector_share
        self._crowded = Crowded()

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
        background = 0.0
        if generation is not None and request.mode == "vector":
            vector, background = await self._query_vector(generation, request.query)
        elif generation is not None and request.mode == "hybrid":
            try:
                async with share_of_deadline("embedding the query", self._vector_share):
                    vector, background = await self._query_vector(generation, request.query)
            except UnavailableError as error:
                failure = error
        return PreparedQuery(generation, request.query, request.mode, scope, vector, failure, background)

    async def find(self, prepared: PreparedQuery, depth: int, enough: int | None = None) -> Found:
        """Returns the candidates of each retriever.

        Args:
            prepared: What ``prepare`` gave.
            depth: Candidates of each retriever at most.
            enough: How many facts are enough in mode "vector", which is as good with few candidates, and quicker.

        Raises:
            UnavailableError: No retriever of the mode could answer.
        """
        generation = prepared.generation
        if generation is None:
            return Found(None, {}, [], True, None)
        lasted: list[float] = []
        words = NO_WORDS if prepared.mode == "vector" else await self._words(generation, prepared.query)
        limited = False
        if prepared.mode == "vector" and enough is not None:
            nearest, limited = await self._nearest_facts(generation, prepared, depth, enough, lasted)
            retrieved, degraded = {"vector": nearest}, list[str]()
        else:
            retrieved, degraded = await self._retrieve(generation, prepared, words, depth, lasted)
        cuts_after = await self._policy.cuts_after()
        complete = cuts_after is None or max(lasted, default=0.0) < cuts_after
        vector, background = prepared.vector, prepared.background
        return Found(generation, retrieved, degraded, complete, vector, words, words.language, background, limited)

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
        return await self._by_words(generation, await self._words(generation, query), scope, depth, [])

    async def _words(self, generation: Generation, query: str) -> QueryWords:
        return self._polyglot.query(query, await self._languages.of(generation.namespace))

    async def _asked(self, generation: Generation, words: QueryWords) -> Sequence[str]:
        if len(words.analyzers) == 1:
            return words.stems
        return words.asked(await self._texts.frequencies(generation, words.stems))

    async def _query_vector(self, generation: Generation, query: str) -> tuple[Sequence[float], float]:
        # Before the model is asked, which may be away: another one's vectors would be of no use.
        service = await self._embeddings.serving(generation.model, generation.dimension)
        await service.require(generation.namespace, generation.model, generation.dimension)
        vector = await service.embed_query(query, generation.namespace)
        await service.require(generation.namespace, generation.model, generation.dimension)
        return vector, service.background

    async def _retrieve(
        self, generation: Generation, prepared: PreparedQuery, words: QueryWords, depth: int, lasted: list[float]
    ) -> tuple[dict[str, Candidates], list[str]]:
        scope, vector = prepared.scope, prepared.vector
        if prepared.mode == "vector":
            return {"vector": await self._by_meaning(generation, prepared, depth, lasted)}, []
        if vector is None:
            degraded = [] if prepared.failure is None else ["vector"]
            return {"text": await self._by_words(generation, words, scope, depth, lasted)}, degraded
        # Words first: where ranks are equal, a match of the user's own words goes before one of meaning.
        answers = await asyncio.gather(
            self._by_words(generation, words, scope, depth, lasted),
            self._by_meaning_in_time(generation, prepared, depth, lasted),
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

    async def _nearest_facts(
        self, generation: Generation, prepared: PreparedQuery, depth: int, enough: int, lasted: list[float]
    ) -> tuple[Candidates, bool]:
        few = max(FEW, 2 * enough)
        if few < depth and not self._crowded.holds(generation):
            nearest = await self._by_meaning(generation, prepared, few, lasted)
            if len(nearest) < few:
                return nearest, False
            if len(set(nearest.owners)) >= enough:
                return nearest, True
            self._crowded.add(generation)
        return await self._by_meaning(generation, prepared, depth, lasted), False

    async def _by_meaning_in_time(
        self, generation: Generation, prepared: PreparedQuery, depth: int, lasted: list[float]
    ) -> Candidates:
        async with share_of_deadline("searching by meaning", self._vector_share):
            return await self._by_meaning(generation, prepared, depth, lasted)

    async def _by_meaning(
        self, generation: Generation, prepared: PreparedQuery, depth: int, lasted: list[float]
    ) -> Candidates:
        assert prepared.vector is not None
        asked = time.monotonic()
        found = await self._vectors.query(generation, prepared.vector, prepared.scope, depth)
        lasted.append(time.monotonic() - asked)
        return found.matching(meaning_matches(found.scores, prepared.background))

    async def _by_words(
        self, generation: Generation, words: QueryWords, scope: str, depth: int, lasted: list[float]
    ) -> Candidates:
        wanted = await self._asked(generation, words)
        stems, found = await self._ranked(generation, wanted, scope, depth, lasted)
        left_out = words.left_out(wanted) if len(found) < depth else []
        if left_out:
            # Whatever passes the filter may be in a language whose forms are rare in the namespace.
            more, others = await self._ranked(generation, left_out, scope, depth, lasted)
            stems, found = stems | more, found.followed_by(others, depth)
        if not found:
            return found
        # A word counts once, in however many languages it is searched for.
        full = full_match(min(sum(stems.values()), len(words.forms)), await self._sizes.sections(generation))
        return found.matching(word_matches(found.scores, full))

    async def _ranked(
        self, generation: Generation, wanted: Sequence[str], scope: str, depth: int, lasted: list[float]
    ) -> tuple[dict[str, int], Candidates]:
        stems = await self._texts.telling(generation, wanted, self._query_terms, scope)
        asked = time.monotonic()
        found = await self._texts.ranked(generation, stems, scope, depth)
        lasted.append(time.monotonic() - asked)
        return stems, found
