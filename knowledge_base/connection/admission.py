"""Admission: how many may be at something at once, and how many may wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from knowledge_base.connection.deadline import enter_step
from knowledge_base.errors import OverloadedError
from knowledge_base.types import PoolStats


class Admission:
    """A bounded number of places with a bounded queue before them, used from one event loop.

    Waiting spends the caller's deadline.

    Args:
        resource: What the places belong to, as named in errors.
        places: How many may be at it at once.
        waiting: How many may wait; None for any number.
    """

    def __init__(self, resource: str, places: int, waiting: int | None = None) -> None:
        self._resource = resource
        self._places = asyncio.Semaphore(places)
        self._limit = places
        self._most_waiting = waiting
        self._in_use = 0
        self._waiting = 0

    def stats(self) -> PoolStats:
        """Returns the use of the places."""
        return {
            "connections": self._in_use,
            "in_use": self._in_use,
            "waiting": self._waiting,
            "limit": self._limit,
            "waiting_limit": self._most_waiting,
            "retried": 0,
            "abandoned": 0,
        }

    @property
    def in_use(self) -> int:
        """Places that are taken."""
        return self._in_use

    @property
    def waiting(self) -> int:
        """Callers that wait."""
        return self._waiting

    async def enter(self, limit: float) -> None:
        """Takes a place, at once or when one becomes free.

        Args:
            limit: Seconds to wait at most.

        Raises:
            OverloadedError: Too many wait already, or none became free in time.
            OperationTimeoutError: The caller's deadline has passed already.
        """
        if self._places.locked():
            await self._wait(limit)
        else:
            await self._places.acquire()
        self._in_use += 1

    def leave(self) -> None:
        """Gives the place back."""
        self._in_use -= 1
        self._places.release()

    @asynccontextmanager
    async def place(self, limit: float) -> AsyncIterator[None]:
        """Holds a place inside; see ``enter``.

        Args:
            limit: Seconds to wait at most.
        """
        await self.enter(limit)
        try:
            yield
        finally:
            self.leave()

    async def _wait(self, limit: float) -> None:
        if self._most_waiting is not None and self._waiting >= self._most_waiting:
            raise OverloadedError(self._resource)
        budget = enter_step(f"the wait for {self._resource}", limit)
        self._waiting += 1
        try:
            async with asyncio.timeout(budget):
                await self._places.acquire()
        except TimeoutError:
            raise OverloadedError(self._resource) from None
        finally:
            self._waiting -= 1
