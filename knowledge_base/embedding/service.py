"""``EmbeddingService``: the one way to a vector, for indexing and search alike."""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from knowledge_base.connection.admission import Admission
from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.connection.deadline import current_deadline, enter_step
from knowledge_base.connection.worker_threads import WorkerThreads
from knowledge_base.embedding.models import LoadedModel, load_model
from knowledge_base.errors import EmbeddingUnavailableError, KnowledgeBaseError, OperationTimeoutError
from knowledge_base.settings import BreakerSettings, EmbeddingSettings
from knowledge_base.types import BreakerStats, PoolStats

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

Vector = list[float]

STEP = "the embedding model"
"""A request to the model, as named in errors."""

KEPT_FREE_FOR_QUERIES = 5
"""Of so many concurrent requests, one is never for passages."""

PROBE = "ready?"
"""A text that every model can embed."""


class EmbeddingIdentity(NamedTuple):
    """Which vectors belong together: those of one model and one dimension."""

    model: str
    dimension: int


class EmbeddingService:
    """Embeds queries and passages with bounded concurrency, off the event loop.

    Args:
        settings: The model, and how hard it is used.
        timeout: Seconds for one request.
        breaker: When a failing model is left alone.
        model: A LlamaIndex embedding to use instead of the one that the settings name.
        clock: Monotonic seconds; tests bring their own.
    """

    def __init__(
        self,
        settings: EmbeddingSettings,
        *,
        timeout: float,
        breaker: BreakerSettings,
        model: BaseEmbedding | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._timeout = timeout
        self._given = model
        self._clock = clock
        self._breaker = CircuitBreaker("embedding", breaker, clock=clock)
        requests, waiting = settings.max_concurrent_requests, settings.max_waiting_requests
        # Who asks waits for an answer; passages do not: they leave room, and threads, for queries.
        self._query_threads = WorkerThreads("query embedding", threads=settings.threads, waiting=waiting)
        self._passage_threads = WorkerThreads("passage embedding", threads=settings.threads, waiting=waiting)
        self._admission = Admission("the embedding model", requests, waiting)
        kept_free = max(1, requests // KEPT_FREE_FOR_QUERIES) if requests > 1 else 0
        self._passage_admission = Admission("the embedding model", requests - kept_free, waiting)
        self._loading = asyncio.Lock()
        self._loaded: LoadedModel | None = None
        self._dimension: int | None = None
        # Arrays, since the garbage collector would look at each number of so many lists in each of its full runs.
        self._cache: OrderedDict[str, tuple[float, array[float]]] = OrderedDict()

    async def load(self) -> LoadedModel:
        """Returns the model, loaded in a thread by the first call.

        Raises:
            ServerRequirementError: A package is missing.
            InvalidInputError: The settings do not name a usable model.
            OperationTimeoutError: Loading took too long.
        """
        if self._loaded is None:
            async with self._loading:
                if self._loaded is None:
                    self._loaded = await self._query_threads.to_thread(
                        load_model,
                        self._settings,
                        self._timeout,
                        self._given,
                        step="loading the embedding model",
                        limit=self._timeout,
                    )
                    self._dimension = self._loaded.dimension
                    # Another model may start threads and processes, which would inherit the priority.
                    self._passage_threads.yielding = self._loaded.is_local
        return self._loaded

    async def identity(self) -> EmbeddingIdentity:
        """Returns model and dimension, asking the model for a vector where nothing else tells.

        Raises:
            EmbeddingUnavailableError: The model did not answer; ``embedding.dimension`` makes the question needless.
        """
        loaded = await self.load()
        if self._dimension is None:
            vectors = await self._request(loaded, ["dimension"], query=False, awaited=True)
            dimension = len(vectors[0]) if vectors else 0
            _check(vectors, 1, dimension)
            self._dimension = dimension
        return EmbeddingIdentity(loaded.name, self._dimension)

    async def may_make(self, model: str, dimension: int) -> bool:
        """Tells whether vectors of a model and dimension may be this one's, without asking it for one.

        Args:
            model: Identity of the model.
            dimension: Length of its vectors.
        """
        loaded = await self.load()
        return loaded.name == model and self._dimension in (None, dimension)

    async def embed_query(self, text: str) -> Vector:
        """Returns the vector of a query, from the cache where it is known.

        Args:
            text: The query.

        Raises:
            EmbeddingUnavailableError: The model failed, or gave no usable vector.
            CircuitOpenError: The model failed repeatedly and is left alone.
            OverloadedError: Too many requests wait already.
            OperationTimeoutError: It took too long.
        """
        known = self._cache.get(text)
        if known is not None and self._clock() - known[0] < self._settings.cache_ttl:
            self._cache.move_to_end(text)
            return known[1].tolist()
        vector = (await self._embed([text], query=True))[0]
        if self._settings.cache_size:
            self._cache[text] = (self._clock(), array("d", vector))
            self._cache.move_to_end(text)
            if len(self._cache) > self._settings.cache_size:
                self._cache.popitem(last=False)
        return vector

    async def embed_passages(self, texts: Sequence[str]) -> list[Vector]:
        """Returns the vectors of passages, in their order; see ``embed_query`` for the errors.

        Args:
            texts: The passages; sent in batches.
        """
        if not texts:
            return []
        loaded = await self.load()
        size = min(self._settings.batch_size, loaded.batch or self._settings.batch_size)
        batches = [list(texts[start : start + size]) for start in range(0, len(texts), size)]
        # One probe alone decides; beside it the other requests would be refused, and it be cancelled with them.
        begin = 0 if self._breaker.state == "closed" else 1
        found = [vector for batch in batches[:begin] for vector in await self._embed(batch, query=False)]
        # No more at a time than can be worked at, so that few passages need not wait for all of a long content's.
        at_once = self._settings.max_concurrent_requests if loaded.awaits else self._settings.threads
        for first in range(begin, len(batches), at_once):
            found += await self._embed_together(batches[first : first + at_once])
        return found

    async def _embed_together(self, batches: Sequence[list[str]]) -> list[Vector]:
        if len(batches) == 1:
            return await self._embed(batches[0], query=False)
        tasks = [asyncio.ensure_future(self._embed(batch, query=False)) for batch in batches]
        try:
            return [vector for vectors in await asyncio.gather(*tasks) for vector in vectors]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def probe(self) -> None:
        """Asks the model for the vector of a plain text; see ``embed_query`` for the errors."""
        await self._embed([PROBE], query=True)

    def stats(self) -> dict[str, PoolStats]:
        """Returns the use of the threads for models that run in this process."""
        return {
            "query embedding threads": self._query_threads.stats(),
            "passage embedding threads": self._passage_threads.stats(),
        }

    def breakers(self) -> list[BreakerStats]:
        """Returns the state of the breaker."""
        return [self._breaker.stats()]

    async def close(self, within: float) -> None:
        """Ends the threads that are idle; waits for the others for some time.

        Args:
            within: Seconds to wait at most.
        """
        self._query_threads.close()
        self._passage_threads.close()
        await asyncio.gather(self._query_threads.wait_closed(within), self._passage_threads.wait_closed(within))
        if self._loaded is not None and self._loaded.close is not None:
            await self._loaded.close()

    async def _embed(self, texts: list[str], *, query: bool) -> list[Vector]:
        loaded = await self.load()
        vectors = await self._request(loaded, texts, query=query)
        dimension = self._dimension or (len(vectors[0]) if vectors else 0)
        _check(vectors, len(texts), dimension)
        self._dimension = dimension
        return vectors

    async def _request(
        self, loaded: LoadedModel, texts: list[str], *, query: bool, awaited: bool | None = None
    ) -> list[Vector]:
        self._breaker.check()
        if query or awaited:
            async with self._admission.place(self._timeout):
                return await self._attempt(loaded, texts, query, self._query_threads)
        async with self._passage_admission.place(self._timeout), self._admission.place(self._timeout):
            return await self._attempt(loaded, texts, query, self._passage_threads)

    async def _attempt(
        self, loaded: LoadedModel, texts: list[str], query: bool, threads: WorkerThreads
    ) -> list[Vector]:
        # A call that is too late to begin says nothing about the model.
        enter_step(STEP, self._timeout)
        with self._breaker.attempt() as attempt:
            try:
                vectors = await self._call(loaded, texts, query, threads)
            except (TimeoutError, OperationTimeoutError) as error:
                attempt.failed()
                if isinstance(error, OperationTimeoutError):
                    raise
                raise OperationTimeoutError(STEP, self._timeout) from error
            except asyncio.CancelledError:
                call = current_deadline()
                if call is not None and call.remaining <= 0:
                    attempt.failed()
                raise
            except KnowledgeBaseError:
                raise
            except Exception as error:
                attempt.failed()
                raise EmbeddingUnavailableError(
                    f"the embedding model failed ({type(error).__name__}); check that it is reachable and configured"
                ) from error
            attempt.succeeded()
            return vectors

    async def _call(self, loaded: LoadedModel, texts: list[str], query: bool, threads: WorkerThreads) -> list[Vector]:
        model = loaded.model
        if not loaded.awaits:
            embed: Callable[[], list[Vector]] = (
                (lambda: [model.get_query_embedding(text) for text in texts])
                if query
                else (lambda: model.get_text_embedding_batch(texts))
            )
            return await threads.to_thread(embed, step=STEP, limit=self._timeout)
        pending: Awaitable[list[Vector]] = (
            asyncio.gather(*(model.aget_query_embedding(text) for text in texts))
            if query
            else model.aget_text_embedding_batch(texts)
        )
        async with asyncio.timeout(enter_step(STEP, self._timeout)):
            return await pending


def is_embedding_failure(error: BaseException) -> bool:
    """Tells whether the model failed at, or was too late with, what it was asked.

    Args:
        error: What came of embedding something.
    """
    late = isinstance(error, OperationTimeoutError) and error.operation == STEP
    return late or isinstance(error, EmbeddingUnavailableError)


def _check(vectors: Sequence[Vector], count: int, dimension: int) -> None:
    if len(vectors) != count:
        raise EmbeddingUnavailableError(f"the embedding model gave {len(vectors)} vectors for {count} texts")
    for vector in vectors:
        if len(vector) != dimension:
            raise EmbeddingUnavailableError(
                f"the embedding model gave a vector of {len(vector)} dimensions instead of {dimension}; "
                "check KB_EMBEDDING__MODEL and KB_EMBEDDING__DIMENSION"
            )
        length = math.hypot(*vector)
        if not math.isfinite(length) or length == 0.0:
            raise EmbeddingUnavailableError("the embedding model gave a vector that is zero or not finite")
