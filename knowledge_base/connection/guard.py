"""The guarded path: admission, breaker and deadline around every exchange with Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from knowledge_base.connection.admission import Admission
from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.connection.deadline import bounded, current_deadline, enter_step
from knowledge_base.connection.driver_errors import is_failure, translated
from knowledge_base.errors import CircuitOpenError, OperationTimeoutError, OverloadedError
from knowledge_base.types import PoolStats

Result = TypeVar("Result")


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

    async def run(self, command: str, exchange: Callable[[], Awaitable[Result]]) -> Result:
        """Runs one exchange.

        Args:
            command: The command, as named in errors.
            exchange: Makes the awaitable that does it.

        Returns:
            What the exchange returned.

        Raises:
            OverloadedError: No connection became free in time.
            CircuitOpenError: The breaker is open.
            OperationTimeoutError: The exchange was not done in time.
            UnavailableError: Redis could not be reached, or refuses to serve just now.
            PermissionDeniedError: Redis refused the user.
            redis.exceptions.ResponseError: Redis answered that the command does not fit the data.
        """
        self._breaker.check()
        async with self._admission.place(self.timeout):
            return await self._attempt(command, exchange)

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
        }

    async def _attempt(self, command: str, exchange: Callable[[], Awaitable[Result]]) -> Result:
        budget = enter_step(f"Redis {command}", self.timeout)
        with self._breaker.attempt() as attempt:
            try:
                result = await bounded(exchange(), budget)
            except TimeoutError as error:
                attempt.failed()
                self._on_failure()
                call = current_deadline()
                if call is not None and call.remaining <= 0:
                    raise call.timed_out() from error
                raise OperationTimeoutError(f"Redis {command}", budget) from error
            except asyncio.CancelledError:
                call = current_deadline()
                if call is not None and call.remaining <= 0:
                    attempt.failed()
                raise
            except (CircuitOpenError, OverloadedError):
                raise
            except Exception as error:
                if is_failure(error):
                    attempt.failed()
                    self._on_failure()
                else:
                    attempt.succeeded()
                own = translated(error, command)
                if own is not None:
                    raise own from error
                raise
            attempt.succeeded()
            return result
