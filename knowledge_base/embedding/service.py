"""``EmbeddingService``: the one way to a vector, for indexing and search alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, NamedTuple

from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.worker_threads import WorkerThreads
from knowledge_base.embedding.asked import STEP, Asked, Kind, Outcome, PackedVector, Vector
from knowledge_base.embedding.dispatcher import Dispatcher, TextLane
from knowledge_base.embedding.memory_cache import MemoryCache
from knowledge_base.embedding.model_requests import ModelRequests
from knowledge_base.embedding.models import LoadedModel, load_model
from knowledge_base.embedding.rate_limit import RateLimit
from knowledge_base.embedding.shared_cache import SharedCache
from knowledge_base.errors import EmbeddingUnavailableError, IndexMismatchError, OperationTimeoutError
from knowledge_base.settings import BreakerSettings, EmbeddingSettings
from knowledge_base.types import BreakerStats, PoolStats

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

KEPT_FREE_FOR_QUERIES = 5
"""Of so many concurrent requests, one is never for passages."""

QUERIES_FOR_EACH_PASSAGE = 4
"""So many times more queries than passages are cached: the vectors of passages stand in the index."""

LOCAL_QUERIES = 4
"""Times its own batch that a model on this machine is given queries at once."""

PROBE = "ready?"
"""A text that every model can embed."""


class EmbeddingIdentity(NamedTuple):
    """Which vectors belong together: those of one model and one dimension."""

    model: str
    dimension: int


class Engine(NamedTuple):
    """A loaded model, and the way to it."""

    model: LoadedModel
    requests: ModelRequests
    dispatcher: Dispatcher


class EmbeddingService:
    """Embeds queries and passages with bounded concurrency, off the event loop.

    Args:
        settings: The model, and how hard it is used.
        timeout: Seconds for one request.
        breaker: When a failing model is left alone.
        model: A LlamaIndex embedding to use instead of the one that the settings name.
        manager: Where processes share the vectors of queries; None for nowhere.
        name: The service, as named in statistics and errors.
        clock: Monotonic seconds; tests bring their own.
    """

    def __init__(
        self,
        settings: EmbeddingSettings,
        *,
        timeout: float,
        breaker: BreakerSettings,
        model: BaseEmbedding | None = None,
        manager: AsyncRedisManager | None = None,
        name: str = "embedding",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._timeout = timeout
        self._given = model
        self._clock = clock
        self._name = name
        self._breaker = CircuitBreaker(name, breaker, clock=clock)
        waiting = settings.max_waiting_requests
        # Passages must not take the threads of those who wait for an answer.
        self._query_threads = WorkerThreads(f"query {name}", threads=settings.threads, waiting=waiting)
        self._passage_threads = WorkerThreads(f"passage {name}", threads=settings.threads, waiting=waiting)
        self._loading = asyncio.Lock()
        self._engine: Engine | None = None
        size, ttl = settings.cache_size, settings.cache_ttl
        self._caches: dict[Kind, MemoryCache] = {
            "query": MemoryCache(size, ttl, clock),
            "passage": MemoryCache(size // QUERIES_FOR_EACH_PASSAGE, ttl, clock),
        }
        self._shared: SharedCache | None = None
        if manager is not None and settings.shared_cache_size:
            self._shared = SharedCache(manager, settings.shared_cache_size, ttl)
        self._sharing: set[asyncio.Task[None]] = set()

    async def load(self) -> LoadedModel:
        """Returns the model, loaded in a thread by the first call.

        Raises:
            ServerRequirementError: A package is missing.
            InvalidInputError: The settings do not name a usable model.
            OperationTimeoutError: Loading took too long.
        """
        return (await self._ready()).model

    async def identity(self) -> EmbeddingIdentity:
        """Returns model and dimension, asking the model for a vector where nothing else tells.

        Raises:
            EmbeddingUnavailableError: The model did not answer; ``embedding.dimension`` makes the question needless.
        """
        engine = await self._ready()
        if engine.requests.dimension is None:
            await engine.dispatcher.vectors([Asked("passage", "", PROBE)], self._timeout)
        assert engine.requests.dimension is not None
        return EmbeddingIdentity(engine.model.name, engine.requests.dimension)

    async def may_make(self, model: str, dimension: int) -> bool:
        """Tells whether vectors of a model and dimension may be this one's, without asking it for one.

        Args:
            model: Identity of the model.
            dimension: Length of its vectors.
        """
        engine = await self._ready()
        return engine.model.name == model and engine.requests.dimension in (None, dimension)

    async def require(self, namespace: str, model: str, dimension: int) -> None:
        """Refuses an index whose vectors are known not to be this model's, without asking it for one.

        Args:
            namespace: Whose index it is.
            model: Identity of the model that the index was built with.
            dimension: Length of its vectors.

        Raises:
            IndexMismatchError: Model or dimension is another.
        """
        if not await self.may_make(model, dimension):
            engine = await self._ready()
            own = f"{engine.model.name}/{engine.requests.dimension or dimension}"
            raise IndexMismatchError(namespace, own, f"{model}/{dimension}")

    async def embed_query(self, text: str, namespace: str = "") -> PackedVector:
        """Returns the vector of a query, from a cache where it is known.

        Args:
            text: The query.
            namespace: Whose query it is; caches of namespaces are apart.

        Raises:
            EmbeddingUnavailableError: The model failed, or gave no usable vector.
            CircuitOpenError: The model failed repeatedly and is left alone.
            OverloadedError: Too many requests wait already.
            OperationTimeoutError: It took too long.
        """
        return (await self._vectors([Asked("query", namespace, text)]))[0]

    async def embed_passages(self, texts: Sequence[str], namespace: str = "") -> list[Vector]:
        """Returns the vectors of passages, in their order; see ``embed_query`` for the errors.

        Args:
            texts: The passages; sent in batches, together with those of others.
            namespace: Whose passages they are.
        """
        asked = [Asked("passage", namespace, text) for text in texts]
        return [vector.tolist() for vector in await self._vectors(asked)]

    async def probe(self) -> None:
        """Asks the model for the vector of a plain text; see ``embed_query`` for the errors."""
        engine = await self._ready()
        await engine.dispatcher.vectors([Asked("query", "", PROBE)], self._timeout)

    @property
    def background(self) -> float:
        """Cosine similarity of texts that have nothing in common; 0 until the model is loaded."""
        return 0.0 if self._engine is None else self._engine.model.background

    def stats(self) -> dict[str, PoolStats]:
        """Returns the use of the threads for models that run in this process, and of the requests to the model."""
        dispatcher = None if self._engine is None else self._engine.dispatcher
        under_way = 0 if dispatcher is None else dispatcher.under_way
        return {
            f"query {self._name} threads": self._query_threads.stats(),
            f"passage {self._name} threads": self._passage_threads.stats(),
            f"{self._name} requests": {
                "connections": under_way,
                "in_use": under_way,
                "waiting": 0 if dispatcher is None else dispatcher.waiting,
                "limit": self._settings.max_concurrent_requests,
                "waiting_limit": self._settings.max_waiting_requests,
                "retried": 0 if self._engine is None else self._engine.requests.retried,
                "abandoned": 0,
            },
        }

    def breakers(self) -> list[BreakerStats]:
        """Returns the state of the breaker."""
        return [self._breaker.stats()]

    async def close(self, within: float) -> None:
        """Ends the requests, and the threads that are idle; waits for the others for some time.

        Args:
            within: Seconds to wait at most.
        """
        for task in self._sharing:
            task.cancel()
        if self._engine is not None:
            await self._engine.dispatcher.close()
        self._query_threads.close()
        self._passage_threads.close()
        await asyncio.gather(self._query_threads.wait_closed(within), self._passage_threads.wait_closed(within))
        if self._engine is not None and self._engine.model.close is not None:
            await self._engine.model.close()

    async def _ready(self) -> Engine:
        if self._engine is None:
            async with self._loading:
                if self._engine is None:
                    loaded = await self._query_threads.to_thread(
                        load_model,
                        self._settings,
                        self._timeout,
                        self._given,
                        step="loading the embedding model",
                        limit=self._timeout,
                    )
                    # Another model may start threads and processes, which would inherit the priority.
                    self._passage_threads.yielding = loaded.is_local
                    self._engine = self._engine_of(loaded)
        return self._engine

    def _engine_of(self, loaded: LoadedModel) -> Engine:
        settings = self._settings
        at_once = settings.max_concurrent_requests
        kept_free = max(1, at_once // KEPT_FREE_FOR_QUERIES) if at_once > 1 else 0
        most = at_once if loaded.awaits else settings.threads
        batch = min(settings.batch_size, loaded.batch or settings.batch_size)
        computes = not loaded.awaits
        # A model on this machine puts those of like length together, the better the more there are.
        together = LOCAL_QUERIES * batch if loaded.is_local else batch
        dispatcher = Dispatcher(
            self._send,
            self._breaker,
            queries=TextLane(min(at_once, most), together if loaded.takes_queries_together else 1, evenly=computes),
            # Whoever stores something need not wait for its vectors, which follow.
            passages=TextLane(min(at_once - kept_free, most), batch, evenly=computes, gives_up=True),
            at_once=at_once,
            # A model that computes here is done with one text before others have come to share its time.
            wait=settings.batch_wait if loaded.awaits else 0.0,
            most_waiting=settings.max_waiting_requests,
        )
        requests = ModelRequests(
            loaded,
            self._breaker,
            RateLimit(settings.requests_per_minute, settings.tokens_per_minute, self._clock),
            self._query_threads,
            self._passage_threads,
            timeout=self._timeout,
            retries=settings.retries,
            on_batch_limit=dispatcher.limit_batch,
        )
        return Engine(loaded, requests, dispatcher)

    async def _vectors(self, asked: Sequence[Asked]) -> list[PackedVector]:
        # First, since while the model is being loaded others may have asked for the same.
        engine = await self._ready()
        known = {one: vector for one in asked if (vector := self._caches[one.kind].get(one)) is not None}
        missing = [one for one in asked if one not in known]
        if missing:
            found = await engine.dispatcher.vectors(missing, self._timeout)
            known.update(zip(missing, found, strict=True))
        return [known[one] for one in asked]

    async def _send(self, asked: Sequence[Asked], begun: Callable[[], None]) -> Sequence[Outcome]:
        engine = await self._ready()
        known = await self._known_elsewhere(engine, asked)
        missing = [one for one in asked if one not in known]
        made: list[Outcome] = []
        if missing:
            made = await engine.requests.send(asked[0].kind, [one.text for one in missing], begun)
        fresh = {one: vector for one, vector in zip(missing, made, strict=True) if not isinstance(vector, Exception)}
        for one, vector in (known | fresh).items():
            if one.text != PROBE or one.namespace:
                self._caches[one.kind].put(one, vector)
        self._share(engine, fresh)
        outcomes: dict[Asked, Outcome] = {**known, **dict(zip(missing, made, strict=True))}
        return [outcomes[one] for one in asked]

    def _is_shared(self, engine: Engine, asked: Asked) -> bool:
        # A model on this machine is asked about as fast as Redis; the vectors of passages stand in the index.
        return engine.model.awaits and asked.kind == "query" and bool(asked.namespace)

    async def _known_elsewhere(self, engine: Engine, asked: Sequence[Asked]) -> dict[Asked, PackedVector]:
        dimension = engine.requests.dimension
        shared = [one for one in asked if self._is_shared(engine, one)]
        if self._shared is None or not shared or dimension is None:
            return {}
        found = await self._shared.get(engine.model.name, dimension, shared)
        return {one: vector for one, vector in zip(shared, found, strict=True) if vector is not None}

    def _share(self, engine: Engine, fresh: dict[Asked, PackedVector]) -> None:
        dimension = engine.requests.dimension
        found = [(one, vector) for one, vector in fresh.items() if self._is_shared(engine, one)]
        if self._shared is None or not found or dimension is None:
            return
        # Nobody waits for it.
        sharing = self._shared.put(engine.model.name, dimension, found)
        task = asyncio.get_running_loop().create_task(sharing, context=Context())
        self._sharing.add(task)
        task.add_done_callback(self._sharing.discard)


def is_embedding_failure(error: BaseException) -> bool:
    """Tells whether the model failed at, or was too late with, what it was asked.

    Args:
        error: What came of embedding something.
    """
    late = isinstance(error, OperationTimeoutError) and error.operation == STEP
    return late or isinstance(error, EmbeddingUnavailableError)
