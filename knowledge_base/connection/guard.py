"""The guarded path: admission, breaker and deadline around every exchange with Redis."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from knowledge_base.connection.admission import Admission
from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.connection.deadline import bounded, current_deadline, enter_step
from knowledge_base.connection.driver_errors import driver_cause, is_failure, is_lost_connection, translated
from knowledge_base.errors import KnowledgeBaseError, OperationTimeoutError, UnavailableError
from knowledge_base.types import PoolStats

Result = TypeVar("Result")

RETRY_PAUSE = 0.02
"""Longest pause in seconds before an exchange is repeated on a fresh connection."""


class RedisGuard:
    """Bounds every exchange over one pool.

    Args:
        pool_name: The pool, as named in errors.
        limit: Connections of the pool: as many exchanges may be under way.
        timeout: Seconds that an exchange, or the wait for a connection, may take at most.
        breaker: The breaker of the endpoint, shared by its pools.
        on_failure: Called whenever Redis could not be reached.
    """

    def __init__(
        self, pool_name: str, limit: int, timeout: float, breaker: CircuitBreaker, on_failure: Callable[[], None]
    ) -> None:
        self.pool_name = pool_name
        self.timeout = timeout
        self._limit = limit
        self._breaker = breaker
        self._on_failure = on_failure
        self._admission = Admission(f"Redis pool {pool_name!r}", limit)
        self._under_way: set[asyncio.Future[Any]] = set()
        self._retried = 0
        self._closed = False

    async def run(self, command: str, exchange: Callable[[], Awaitable[Result]], *, repeatable: bool = False) -> Result:
        """Runs one exchange.

        Args:
            command: The command, as named in errors.
            exchange: Makes the awaitable that does it.
            repeatable: Whether doing it twice does what doing it once does. If so, and its connection dies, it is
                repeated once on a fresh one.

        Returns:
            What the exchange returned.

        Raises:
            OverloadedError: No connection became free in time.
            CircuitOpenError: The breaker is open.
            OperationTimeoutError: The exchange was not done in time.
            UnavailableError: Redis could not be reached, or refuses to serve just now; or the pool is closed.
            PermissionDeniedError: Redis refused the user.
            redis.exceptions.ResponseError: Redis answered that the command does not fit the data.
        """
        self._refuse_when_closed()
        self._breaker.check()
        await self._admission.enter(self.timeout)
        try:
            # A probe is a single one.
            may_repeat = repeatable and self._breaker.state == "closed"
            budget = enter_step(f"Redis {command}", self.timeout)
            with counted(self._breaker, command, self._on_failure):
                try:
                    return await self._exchange(command, exchange, budget)
                except Exception as error:
                    if not may_repeat or not is_lost_connection(error):
                        raise
                self._retried += 1
                await pause_before_retry()
                self._breaker.check()
                return await self._exchange(command, exchange, enter_step(f"Redis {command}", self.timeout))
        finally:
            self._admission.leave()

    async def close(self, within: float) -> None:
        """Refuses from now on, and ends what is under way.

        Args:
            within: Seconds to wait at most for what was ended.
        """
        self._closed = True
        for exchange in self._under_way:
            exchange.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=within)

    def stats(self, connections: int) -> PoolStats:
        """Returns the use of the pool.

        Args:
            connections: How many connections are open.
        """
        return {
            "connections": connections,
            "in_use": self._admission.in_use,
            "waiting": self._admission.waiting,
            "limit": self._limit,
            "waiting_limit": None,
            "retried": self._retried,
            "abandoned": 0,
        }

    async def _exchange(self, command: str, exchange: Callable[[], Awaitable[Result]], budget: float) -> Result:
        self._refuse_when_closed()
        under_way = asyncio.ensure_future(exchange())
        self._under_way.add(under_way)
        under_way.add_done_callback(self._under_way.discard)
        task = asyncio.current_task()
        assert task is not None
        cancelled_before = task.cancelling()
        try:
            return await bounded(under_way, budget)
        except TimeoutError as error:
            call = current_deadline()
            if call is not None and call.remaining <= 0:
                raise call.timed_out() from error
            raise OperationTimeoutError(f"Redis {command}", budget) from error
        except asyncio.CancelledError:
            if self._closed and task.cancelling() == cancelled_before:
                self._refuse_when_closed()
            raise

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise UnavailableError("the connections to Redis are closed; open the knowledge base again")


async def pause_before_retry() -> None:
    """Waits a moment, not everybody the same: all whose connections died at once would come back at once."""
    await asyncio.sleep(random.uniform(0, RETRY_PAUSE))  # noqa: S311 - no secret


@contextmanager
def counted(
    breaker: CircuitBreaker, operation: str, on_failure: Callable[[], None], *, lateness: bool = True
) -> Iterator[None]:
    """Lets the breaker know how work with Redis ended, and makes the driver's errors ours.

    Args:
        breaker: The breaker of the endpoint.
        operation: The work, as named in errors.
        on_failure: Called whenever Redis could not be reached.
        lateness: Whether work that was late says that Redis is.

    Raises:
        CircuitOpenError: The breaker is open.
        UnavailableError: Redis could not be reached, or not in time.
        PermissionDeniedError: Redis refused the user.
    """
    with breaker.attempt() as attempt:
        try:
            yield
        except OperationTimeoutError:
            if lateness:
                attempt.failed()
                on_failure()
            raise
        except KnowledgeBaseError:
            # It was refused on the way; that says nothing about Redis.
            raise
        except asyncio.CancelledError:
            call = current_deadline()
            if lateness and call is not None and call.remaining <= 0:
                attempt.failed()
            raise
        except Exception as error:
            cause = driver_cause(error)
            if is_failure(cause):
                attempt.failed()
                on_failure()
            else:
                attempt.succeeded()
            own = translated(cause, operation) if isinstance(cause, Exception) else None
            if own is not None:
                raise own from error
            raise
        else:
            attempt.succeeded()
