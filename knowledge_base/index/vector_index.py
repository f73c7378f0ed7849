"""Vectors in and out of the index, through LlamaIndex in worker threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import redis
from redis.exceptions import ResponseError

from knowledge_base.connection.driver_errors import driver_cause
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.embedding.service import EmbeddingService, Vector
from knowledge_base.errors import KnowledgeBaseError, UnavailableError
from knowledge_base.heavy_imports import import_heavy
from knowledge_base.index.generations import Generations, is_missing_index
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import PartName

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex

Result = TypeVar("Result")
MOST_OPEN_INDICES = 1_000


class EmbeddedPassage(NamedTuple):
    """A passage with its vector."""

    name: PartName
    text: str
    vector: Vector


class Candidate(NamedTuple):
    """A passage or section that a retriever found, and the score it gave."""

    name: PartName
    score: float


class VectorIndex:
    """The LlamaIndex index of every namespace.

    Args:
        manager: The connections and worker threads.
        embedding: Whose model LlamaIndex is given.
        generations: Told when an index has vanished.
    """

    def __init__(self, manager: AsyncRedisManager, embedding: EmbeddingService, generations: Generations) -> None:
        self._manager = manager
        self._embedding = embedding
        self._generations = generations
        self._open: dict[tuple[Generation, redis.Redis], VectorStoreIndex] = {}
        self._lock = threading.Lock()

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

    async def query(self, generation: Generation, vector: Vector, scope: str, top_k: int) -> list[Candidate]:
        """Returns the nearest passages, best first.

        Args:
            generation: Where to look.
            vector: The query's vector.
            scope: Compiled filter text.
            top_k: How many.

        Raises:
            UnavailableError: Redis could not be reached, or not in time.
        """

        def work(store: Any, index: VectorStoreIndex) -> list[tuple[str, float]]:
            found: list[tuple[str, float]] = store.retrieve(index, vector, scope, top_k)
            return found

        found = await self._in_thread("LlamaIndex query", generation, work)
        skipped = len(generation.passage_prefix) + 1
        return [Candidate(PartName.parse(key[skipped:]), score) for key, score in found]

    async def _in_thread(
        self, step: str, generation: Generation, work: Callable[[Any, VectorStoreIndex], Result]
    ) -> Result:
        model = (await self._embedding.load()).model

        def run(live: Generation, client: redis.Redis) -> Result:
            passage_store = _passage_store()
            with self._lock:
                index = self._open.get((live, client))
                if index is None:
                    if len(self._open) >= MOST_OPEN_INDICES:
                        self._open.clear()
                    index = self._open[live, client] = passage_store.open_index(live, client, model)
            return work(passage_store, index)

        try:
            return await self._attempt(step, partial(run, generation))
        except ResponseError as error:
            if not is_missing_index(error):
                raise
        whole = await self._generations.make_whole(generation)
        try:
            return await self._attempt(step, partial(run, whole))
        except ResponseError as error:
            if is_missing_index(error):
                raise UnavailableError("the search index has vanished once more; retry in a moment") from error
            raise

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


def _passage_store() -> Any:
    return import_heavy("knowledge_base.index.passage_store")
