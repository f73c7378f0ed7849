"""A function that takes batches of strings, and holds each until the test lets it go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

WITHIN = 10.0
TURNS = 20
"""So many turns of the loop are enough for whatever needs no time."""


async def turns(count: int = TURNS) -> None:
    """Lets the loop do what is due already."""
    for _ in range(count):
        await asyncio.sleep(0)


def answer_to(item: Any) -> str:
    """Returns the right answer of an item, unlike that of any other."""
    return f"<{item}>"


class Held:
    """A batch that is under way.

    Attributes:
        items: What travels in it.
        at: When it began, by the loop's clock.
        cancelled: Whether it was cancelled.
    """

    def __init__(self, items: Sequence[Any]) -> None:
        loop = asyncio.get_running_loop()
        self.items = list(items)
        self.at = loop.time()
        self.cancelled = False
        self.outcomes: asyncio.Future[Sequence[Any]] = loop.create_future()

    def answer(self, *outcomes: Any) -> None:
        """Ends it, with the right answers where none are given."""
        self.outcomes.set_result(outcomes or [answer_to(item) for item in self.items])

    def fail(self, error: Exception) -> None:
        """Ends it with an error."""
        self.outcomes.set_exception(error)


class ScriptedSend:
    """Sends batches; asked to ``hold`` none any more, it answers each at once.

    Attributes:
        batches: All that were sent, in order.
        under_way: How many have not ended.
        most: How many were ever under way at once.
        cleanup: Seconds that a cancelled batch needs to end.
    """

    def __init__(self) -> None:
        self.batches: list[Held] = []
        self.under_way = 0
        self.most = 0
        self.cleanup = 0.0
        self.holds = True
        self._more = asyncio.Event()

    @property
    def sent(self) -> list[list[Any]]:
        """The items of each batch."""
        return [batch.items for batch in self.batches]

    async def begun(self, count: int) -> list[Held]:
        """Waits until so many batches were sent, and returns them."""
        async with asyncio.timeout(WITHIN):
            while len(self.batches) < count:
                self._more.clear()
                await self._more.wait()
        return self.batches

    def release(self) -> None:
        """Answers every batch from now on, those under way too."""
        self.holds = False
        for batch in self.batches:
            if not batch.outcomes.done():
                batch.answer()

    async def __call__(self, items: Sequence[Any], begun: Callable[[], None]) -> Sequence[Any]:
        batch = Held(items)
        begun()
        self.batches.append(batch)
        self._more.set()
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if not self.holds:
                batch.answer()
            return await batch.outcomes
        except asyncio.CancelledError:
            batch.cancelled = True
            await asyncio.sleep(self.cleanup)
            raise
        finally:
            self.under_way -= 1
