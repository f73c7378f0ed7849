"""``AsyncRedisManager``: pooled, guarded connections to one Redis."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Literal, TypeVar

import redis
from redis.asyncio import BlockingConnectionPool

from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.connection.deadline import deadline
from knowledge_base.connection.embedded_server import EmbeddedServer, default_data_dir
from knowledge_base.connection.endpoint import async_pool
from knowledge_base.connection.guard import RedisGuard
from knowledge_base.connection.guarded_client import GuardedRedis
from knowledge_base.connection.index_threads import IndexThreads
from knowledge_base.connection.worker_threads import WorkerThreads
from knowledge_base.connection.workload import in_job
from knowledge_base.errors import KnowledgeBaseError, UnavailableError
from knowledge_base.settings import Settings, redacted_url
from knowledge_base.types import BreakerStats, PartHealth, PoolStats

Result = TypeVar("Result")
PoolName = Literal["main", "search", "admin"]
POOLS: tuple[PoolName, ...] = ("main", "search", "admin")
ThreadsName = Literal["index", "jobs"]
CIRCUITS: dict[ThreadsName, str] = {"index": "LlamaIndex threads", "jobs": "LlamaIndex threads of jobs"}


class _Pool:
    def __init__(self, name: PoolName, url: str, settings: Settings, guard: RedisGuard) -> None:
        self.connections: BlockingConnectionPool = async_pool(url, settings, name)
        self.guard = guard
        self.client = GuardedRedis(self.connections, guard)

    def stats(self) -> PoolStats:
        made = len(self.connections._available_connections) + len(self.connections._in_use_connections)
        return self.guard.stats(made)

    async def close(self, within: float) -> None:
        # First what is under way: it might open a connection after the others were closed.
        await self.guard.close(within / 2)
        closing = asyncio.ensure_future(self.connections.disconnect())
        _, late = await asyncio.wait({closing}, timeout=within / 2)
        for task in late:
            task.cancel()
        await asyncio.gather(closing, return_exceptions=True)


class AsyncRedisManager:
    """Pooled, guarded connections to one Redis, or to the embedded server when no URL is set.

    The pools ``main`` (facts), ``search`` and ``admin`` (jobs) are apart, so that none can starve another. Nothing
    is done before the first call; a start that failed is tried again by the next call.

    Args:
        settings: Where Redis is and how long anything may take.
        clock: Monotonic seconds for the breaker; tests bring their own.
    """

    def __init__(self, settings: Settings | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings or Settings()
        self.breaker = CircuitBreaker("Redis", self.settings.breaker, clock=clock)
        self.thread_breakers: dict[ThreadsName, CircuitBreaker] = {
            name: CircuitBreaker(circuit, self.settings.breaker, clock=clock) for name, circuit in CIRCUITS.items()
        }
        self._embedded: EmbeddedServer | None = None
        if self.settings.redis_url is None:
            self._embedded = EmbeddedServer(
                self.settings.data_dir or default_data_dir(), start_timeout=self.settings.timeouts.start
            )
        self._pools: dict[PoolName, _Pool] = {}
        self._index_threads: dict[ThreadsName, IndexThreads] = {}
        self._server_threads: WorkerThreads | None = None
        self._lock: asyncio.Lock | None = None
        self._ready = False
        self._closed = False
        self._closing: asyncio.Future[None] | None = None
        self._failed_starts = 0
        self._start_error: KnowledgeBaseError | None = None

    def __repr__(self) -> str:
        url = redacted_url(self.settings.redis_url) if self.settings.redis_url else "embedded"
        return f"<AsyncRedisManager {url} {self.breaker.state}>"

    async def start(self) -> None:
        """Connects; does nothing when connected already.

        Raises:
            UnavailableError: Redis cannot be reached.
            PermissionDeniedError: Redis refused the user or password.
            ServerRequirementError: The embedded server cannot run here.
        """
        if self._ready:
            return
        if self._closed:
            raise UnavailableError("the connection manager is closed; make a new one")
        if self._lock is None:
            self._lock = asyncio.Lock()
        failed_before = self._failed_starts
        async with self._lock:
            if self._ready:
                return
            if self._start_error is not None and self._failed_starts != failed_before:
                # Whoever waited for a start that failed would only fail the same way, one after the other.
                raise self._start_error.with_traceback(None)
            try:
                self.breaker.check()
                await self._open()
                await self._pools["main"].client.ping()
            except KnowledgeBaseError as error:
                self._failed_starts += 1
                self._start_error = error
                raise
            self._ready = True

    async def main(self) -> GuardedRedis:
        """Returns the client for facts; see ``start`` for the errors."""
        return await self.client("main")

    async def search(self) -> GuardedRedis:
        """Returns the client for searches; see ``start`` for the errors."""
        return await self.client("search")

    async def admin(self) -> GuardedRedis:
        """Returns the client for jobs; see ``start`` for the errors."""
        return await self.client("admin")

    async def client(self, pool: PoolName) -> GuardedRedis:
        """Returns the client of a pool; within a job, that for jobs.

        Args:
            pool: Name of the pool.

        Raises:
            UnavailableError: Redis cannot be reached.
            PermissionDeniedError: Redis refused the user or password.
            ServerRequirementError: The embedded server cannot run here.
        """
        await self.start()
        return self._pools["admin" if in_job() else pool].client

    async def in_thread(self, step: str, function: Callable[[redis.Redis], Result]) -> Result:
        """Runs blocking LlamaIndex work in a worker thread, guarded like a command; within a job, in one for jobs.

        Args:
            step: The step, as named in errors.
            function: Gets the synchronous client; is given ``timeouts.llama_index`` seconds, and run once more when
                its connection dies.

        Returns:
            What the function returned.

        Raises:
            OverloadedError: No thread is free and enough calls wait already.
            CircuitOpenError: The breaker is open.
            OperationTimeoutError: The function did not return in time.
            UnavailableError: Redis could not be reached.
        """
        await self.start()
        return await self._index_threads["jobs" if in_job() else "index"].run(step, function)

    async def health(self) -> PartHealth:
        """Says whether Redis answers, within ``timeouts.health``; raises nothing."""
        started = time.monotonic()
        try:
            async with deadline("health", self.settings.timeouts.health):
                await (await self.main()).ping()
            ok, detail = True, "answers"
        except KnowledgeBaseError as error:
            ok, detail = False, str(error)
        return {"ok": ok, "detail": detail, "took_ms": (time.monotonic() - started) * 1000}

    def stats(self) -> dict[str, PoolStats]:
        """Returns the use of every pool, and of the worker threads."""
        found = {str(name): pool.stats() for name, pool in self._pools.items()}
        return found | {f"{name} threads": threads.stats() for name, threads in self._index_threads.items()}

    def breakers(self) -> list[BreakerStats]:
        """Returns the state of the breakers."""
        return [self.breaker.stats(), *(breaker.stats() for breaker in self.thread_breakers.values())]

    async def close(self) -> None:
        """Closes every connection and thread within ``timeouts.close``; leaves the embedded server."""
        if self._closing is None:
            self._closed, self._ready = True, False
            self._closing = asyncio.ensure_future(self._close())
        # Whoever gives up waiting does not leave it half closed.
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        budget = self.settings.timeouts.close
        for threads in self._index_threads.values():
            threads.refuse()
        await asyncio.gather(
            *(pool.close(budget / 4) for pool in self._pools.values()),
            *(threads.close(budget / 4) for threads in self._index_threads.values()),
        )
        if self._server_threads is not None:
            assert self._embedded is not None
            with contextlib.suppress(UnavailableError):
                await self._server_threads.to_thread(
                    self._embedded.close, step="leaving the embedded server", limit=budget / 4
                )
            self._server_threads.close()
            await self._server_threads.wait_closed(budget / 4)

    async def __aenter__(self) -> AsyncRedisManager:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _open(self) -> None:
        url = self.settings.redis_url
        if self._embedded is not None:
            if self._server_threads is None:
                self._server_threads = WorkerThreads("embedded-server", threads=2, waiting=8)
            url = await self._server_threads.to_thread(
                self._embedded.open, step="starting the embedded server", limit=self.settings.timeouts.start
            )
        if self._closed:
            raise UnavailableError("the connection manager is closed; make a new one")
        if self._pools:
            return
        assert url is not None
        limits, timeouts = self.settings.limits, self.settings.timeouts
        for kind, breaker in self.thread_breakers.items():
            self._index_threads[kind] = IndexThreads(
                kind, url, self.settings, self.breaker, breaker, self._suspect_server
            )
        for name in POOLS:
            guard = RedisGuard(name, limits.pool_connections, timeouts.redis, self.breaker, self._suspect_server)
            self._pools[name] = _Pool(name, url, self.settings, guard)

    def _suspect_server(self) -> None:
        if self._embedded is not None:
            self._ready = False


_shared: AsyncRedisManager | None = None


async def get_redis_manager(settings: Settings | None = None) -> AsyncRedisManager:
    """Returns the manager of this process, made by the first call.

    Args:
        settings: Used by the call that makes it.

    Raises:
        UnavailableError: Redis cannot be reached.
        PermissionDeniedError: Redis refused the user or password.
        ServerRequirementError: The embedded server cannot run here.
    """
    global _shared
    if _shared is None or _shared._closed:
        _shared = AsyncRedisManager(settings)
    await _shared.start()
    return _shared
