"""Where LlamaIndex's blocking calls run: worker threads with a synchronous client, guarded like a command."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import redis

from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.connection.deadline import enter_step
from knowledge_base.connection.driver_errors import is_lost_connection
from knowledge_base.connection.endpoint import thread_client
from knowledge_base.connection.guard import counted, pause_before_retry
from knowledge_base.connection.worker_threads import WorkerThreads
from knowledge_base.errors import KnowledgeBaseError, OperationTimeoutError
from knowledge_base.settings import Settings
from knowledge_base.types import PoolStats

Result = TypeVar("Result")


class IndexThreads:
    """Worker threads for LlamaIndex, used from one event loop.

    Args:
        name: The kind of work, as named in errors and in the threads' names.
        url: The server's URL.
        settings: Gives limits and timeouts.
        redis_breaker: Told when Redis could not be reached.
        own_breaker: Told when a thread did not return.
        on_failure: Called whenever Redis could not be reached.
    """

    def __init__(
        self,
        name: str,
        url: str,
        settings: Settings,
        redis_breaker: CircuitBreaker,
        own_breaker: CircuitBreaker,
        on_failure: Callable[[], None],
    ) -> None:
        self._client = thread_client(url, settings)
        self._threads = WorkerThreads(
            name, threads=settings.limits.index_threads, waiting=settings.limits.index_waiting
        )
        self._timeout = settings.timeouts.llama_index
        self._redis_breaker = redis_breaker
        self._own_breaker = own_breaker
        self._on_failure = on_failure
        self._retried = 0

    async def run(self, step: str, function: Callable[[redis.Redis], Result]) -> Result:
        """Runs a function in a thread; if its connection dies, once more on a fresh one.

        Args:
            step: The step, as named in errors.
            function: Gets the synchronous client; may be run twice.

        Returns:
            What the function returned.

        Raises:
            OverloadedError: No thread is free and enough calls wait already.
            CircuitOpenError: The breaker of Redis, or of the threads, is open.
            OperationTimeoutError: The function did not return in time.
            UnavailableError: Redis could not be reached.
        """
        may_repeat = self._redis_breaker.state == "closed"
        # A thread that is late was held up by something else than Redis: its sockets time out long before.
        with counted(self._redis_breaker, step, self._on_failure, lateness=False):
            try:
                return await self._attempt(step, function)
            except Exception as error:
                if not may_repeat or not is_lost_connection(error):
                    raise
            self._retried += 1
            await pause_before_retry()
            return await self._attempt(step, function)

    def stats(self) -> PoolStats:
        """Returns the use of the threads."""
        return {**self._threads.stats(), "retried": self._retried}

    def refuse(self) -> None:
        """Refuses from now on; idle threads end at once, busy ones when they return."""
        self._threads.close()

    async def close(self, within: float) -> None:
        """Waits until the threads have ended, and closes their connections.

        Args:
            within: Seconds to wait at most.
        """
        await self._threads.wait_closed(within)
        self._client.connection_pool.disconnect()

    async def _attempt(self, step: str, function: Callable[[redis.Redis], Result]) -> Result:
        # A call that is too late to begin says nothing about the threads.
        enter_step(step, self._timeout)
        with self._own_breaker.attempt() as attempt:
            try:
                result = await self._threads.to_thread(function, self._client, step=step, limit=self._timeout)
            except OperationTimeoutError:
                attempt.failed()
                raise
            except KnowledgeBaseError:
                raise
            except Exception:
                # It came back, with whatever.
                attempt.succeeded()
                raise
            attempt.succeeded()
            return result
