"""``RateLimit``: how many requests and tokens a minute an endpoint allows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from knowledge_base.errors import OverloadedError

MINUTE = 60.0
RESOURCE = "the embedding model's rate limit"


class RateLimit:
    """Two token buckets, each of them filled evenly over a minute and a minute's worth deep.

    Those who wait for an answer go before the others; each kind in order.

    Args:
        requests: Requests a minute, or None for any number.
        tokens: Tokens a minute, or None for any number.
        clock: Monotonic seconds.
    """

    def __init__(self, requests: int | None, tokens: int | None, clock: Callable[[], float]) -> None:
        self._capacity = (float(requests or 0), float(tokens or 0))
        self._left = list(self._capacity)
        self._clock = clock
        self._filled = clock()
        self._urgent: deque[asyncio.Event] = deque()
        self._patient: deque[asyncio.Event] = deque()

    async def take(self, tokens: int, *, urgent: bool, within: float) -> None:
        """Waits until one more request may be made, and takes its share.

        Args:
            tokens: What the request costs; one of more than a minute's worth waits for a full bucket.
            urgent: Whether it goes before those that are not.
            within: Seconds to wait at most.

        Raises:
            OverloadedError: It could not be made within that time; ``retry_after`` says when.
        """
        cost = (1.0, float(tokens))
        lacking = self._lacking(cost)
        if lacking > within:
            raise OverloadedError(RESOURCE, lacking)
        queue = self._urgent if urgent else self._patient
        if lacking or self._urgent or (queue and not urgent):
            await self._wait(queue, cost, within)
        for place, spent in enumerate(cost):
            if self._capacity[place]:
                self._left[place] -= min(spent, self._capacity[place])

    async def _wait(self, queue: deque[asyncio.Event], cost: tuple[float, float], within: float) -> None:
        turn = asyncio.Event()
        queue.append(turn)
        try:
            async with asyncio.timeout(within):
                while self._first() is not turn or self._lacking(cost):
                    if self._first() is turn:
                        await asyncio.sleep(self._lacking(cost))
                    else:
                        turn.clear()
                        await turn.wait()
        except TimeoutError:
            raise OverloadedError(RESOURCE, self._lacking(cost) or 1.0) from None
        finally:
            queue.remove(turn)
            self._wake_next()

    def _first(self) -> asyncio.Event | None:
        return next(iter(self._urgent or self._patient), None)

    def _wake_next(self) -> None:
        first = self._first()
        if first is not None:
            first.set()

    def _lacking(self, cost: tuple[float, float]) -> float:
        """Returns the seconds until both buckets hold enough."""
        now = self._clock()
        passed, self._filled = now - self._filled, now
        longest = 0.0
        for place, capacity in enumerate(self._capacity):
            if capacity:
                self._left[place] = min(capacity, self._left[place] + passed * capacity / MINUTE)
                short = min(cost[place], capacity) - self._left[place]
                longest = max(longest, short * MINUTE / capacity)
        return longest if longest > 1e-9 else 0.0
