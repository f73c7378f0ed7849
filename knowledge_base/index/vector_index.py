"""Vectors in and out of the index, through LlamaIndex in worker threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import redis
from redis.exceptions import ResponseError

from knowledge_base.connection.batching import Batcher, Lane
from knowledge_base.connection.driver_errors import driver_cause, translated
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.embedding.asked import Vector
from knowledge_base.embedding.service import EmbeddingService
from knowledge_base.errors import KnowledgeBaseError, UnavailableError
from knowledge_base.heavy_imports import import_heavy
from knowledge_base.index.candidate import Candidates
from knowledge_base.index.counts import Counts
from knowledge_base.index.generations import GenerationMovedError, Generations, is_missing_index
from knowledge_base.index.schema import Generation
from knowledge_base.index.scope_size import ScopeSizes, knn_attributes
from knowledge_base.keyspace import PartName

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding

Result = TypeVar("Result")
MOST_OPEN_INDICES = 1_000
QUERY_STEP = "LlamaIndex query"

QUERY_THREADS = 2
QUERIES_TOGETHER = 8
"""Queries that share a thread's turn and a round trip; the server is busy with them for some milliseconds."""


class EmbeddedPassage(NamedTuple):
    """A passage with its vector."""

    name: PartName
    text: str
    vector: Vector


Nearest: TypeAlias = tuple[list[str], list[float]]
"""The keys of passages and their cosine similarities, best first."""


@dataclass(frozen=True, slots=True, eq=False)
class VectorQuery:
    """What one search asks for."""

    generation: Generation
    vector: Sequence[float]
    scope: str
    top_k: int
    attributes: str
    """How the server is to find them."""


class VectorIndex:
    """The LlamaIndex index of every namespace.

    Args:
        manager: The connections and worker threads.
        embedding: Whose model LlamaIndex is given.
        generations: Told when an index has vanished.
        timeout: Seconds that one call may take.
        most_waiting: Round trips that may wait for their turn.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        embedding: EmbeddingService,
        generations: Generations,
        *,
        timeout: float,
        most_waiting: int,
    ) -> None:
        self._manager = manager
        self._embedding = embedding
        self._generations = generations
        self._counts = Counts(manager)
        self._sizes = ScopeSizes(self._counts)
        self._open: dict[tuple[Generation, redis.Redis], VectorStoreIndex] = {}
        self._lock = threading.Lock()
        self._timeout = timeout
        # The server answers one query after another, so that more round trips at a time would only wait there.
        self._lane: Lane[VectorQuery, Nearest] = Lane(QUERY_THREADS, QUERIES_TOGETHER)
        self._queries = Batcher(
            QUERY_STEP,
            self._send,
            [self._lane],
            at_once=QUERY_THREADS,
            wait=0.0,
            most_waiting=most_waiting,
            breaker=manager.thread_breakers["index"],
        )

    async def preload(self) -> None:
        """Imports LlamaIndex's vector store, which the first call would have to wait for."""
        await self._manager.in_thread("importing LlamaIndex", lambda _: _passage_store())

    async def insert(self, generation: Generation, passages: Sequence[EmbeddedPassage]) -> None:
        """Writes vectors beside their passages.

        Args:
            generation: Where to.
            passages: At least one.

        Raises:
            UnavailableError: Redis could not be reached, or not in time.
        """
        rows = [(passage.name.node_id, passage.name.fact_id, passage.text, passage.vector) for passage in passages]

        def work(store: Any, index: VectorStoreIndex) -> None:
            store.insert(index, rows)

        await self._in_thread("LlamaIndex insert", generation, work)

    async def query(self, generation: Generation, vector: Sequence[float], scope: str, top_k: int) -> Candidates:
        """Returns the nearest passages, best first.

        Args:
            generation: Where to look.
            vector: The query's vector.
            scope: Compiled filter text.
            top_k: How many.

        Raises:
            UnavailableError: Redis could not be reached, or not in time.
        """
        size = await self._sizes.size(generation.vector_index, scope)
        query = VectorQuery(generation, vector, scope, top_k, knn_attributes(size, top_k))
        try:
            found = await self._found(query)
        except ResponseError as error:
            if not is_missing_index(error):
                raise
            whole = await self._made_whole(generation)
            try:
                found = await self._found(replace(query, generation=whole))
            except ResponseError as again:
                if is_missing_index(again):
                    raise UnavailableError("the search index has vanished once more; retry in a moment") from again
                raise
        keys, similarities = found
        return Candidates(keys, len(generation.passage_prefix) + 1, similarities)

    async def close(self) -> None:
        """Ends the queries that are under way."""
        await self._counts.close()
        await self._queries.close()

    async def _found(self, query: VectorQuery) -> Nearest:
        return (await self._queries.results(self._lane, [query], self._timeout))[0]

    async def _send(self, queries: Sequence[VectorQuery], begun: Callable[[], None]) -> Sequence[Nearest | Exception]:
        model = (await self._embedding.load()).model
        begun()

        def run(client: redis.Redis) -> list[Nearest | Exception]:
            asked = [
                (self._opened(one.generation, client, model), one.vector, one.scope, one.top_k, one.attributes)
                for one in queries
            ]
            found: list[Nearest | Exception] = _passage_store().retrieve(client, asked)
            return found

        return [_told(outcome) for outcome in await self._attempt(QUERY_STEP, run)]

    async def _in_thread(
        self, step: str, generation: Generation, work: Callable[[Any, VectorStoreIndex], Result]
    ) -> Result:
        model = (await self._embedding.load()).model

        def run(live: Generation, client: redis.Redis) -> Result:
            return work(_passage_store(), self._opened(live, client, model))

        try:
            return await self._attempt(step, partial(run, generation))
        except ResponseError as error:
            if not is_missing_index(error):
                raise
        whole = await self._made_whole(generation)
        try:
            return await self._attempt(step, partial(run, whole))
        except ResponseError as error:
            if is_missing_index(error):
                raise UnavailableError("the search index has vanished once more; retry in a moment") from error
            raise

    async def _made_whole(self, generation: Generation) -> Generation:
        whole = await self._generations.make_whole(generation)
        if whole.number != generation.number:
            raise GenerationMovedError(generation.namespace)
        return whole

    def _opened(self, generation: Generation, client: redis.Redis, model: BaseEmbedding) -> VectorStoreIndex:
        with self._lock:
            index = self._open.get((generation, client))
            if index is None:
                if len(self._open) >= MOST_OPEN_INDICES:
                    self._open.clear()
                opened: VectorStoreIndex = _passage_store().open_index(generation, client, model)
                index = self._open[generation, client] = opened
            return index

    async def _attempt(self, step: str, run: Callable[[redis.Redis], Result]) -> Result:
        try:
            return await self._manager.in_thread(step, run)
        except KnowledgeBaseError:
            raise
        except Exception as error:
            # LlamaIndex and its libraries wrap what the server answered.
            cause = driver_cause(error)
            if isinstance(cause, ResponseError) and cause is not error:
                raise cause from error
            raise


def _told(outcome: Nearest | Exception) -> Nearest | Exception:
    if isinstance(outcome, Exception):
        return translated(outcome, QUERY_STEP) or outcome
    return outcome


def _passage_store() -> Any:
    return import_heavy("knowledge_base.index.passage_store")
