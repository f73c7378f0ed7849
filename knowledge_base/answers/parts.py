"""``Parts``: an answer on its way from a worker thread to whoever reads it, part by part."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable

from knowledge_base.types import Answer, AnswerPart

MOST_WAITING = 64
"""Parts that lie ready at most; the LLM's thread waits with the next until one is read."""


class Parts:
    """A bounded queue between one worker thread and one reader on the event loop.

    Args:
        most: Parts that lie ready at most.
    """

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(most)
        self._ready: deque[str] = deque()
        self._changed = asyncio.Event()
        self._has_ended = False
        self._is_stopped = False
        self._has_begun = False

    @property
    def has_begun(self) -> bool:
        """Whether any part has come."""
        return self._has_begun

    def put(self, part: str) -> bool:
        """Hands a part over from the worker thread, and waits while too many lie ready.

        Args:
            part: The next words of the answer.

        Returns:
            Whether further ones are wanted.
        """
        self._room.acquire()
        if self._is_stopped:
            return False
        self._has_begun = True
        self._loop.call_soon_threadsafe(self.add, part)
        return True

    def add(self, part: str) -> None:
        """Adds a part from the event loop, whatever lies ready.

        Args:
            part: The next words of the answer.
        """
        self._ready.append(part)
        self._changed.set()

    def end(self) -> None:
        """Says that no more will come after those that lie ready."""
        self._has_ended = True
        self._changed.set()

    def drop(self) -> None:
        """Drops what lies ready."""
        self._ready.clear()

    def stop(self) -> None:
        """Says that no more are wanted; the thread is told with its next part, or while it waits with one."""
        self._is_stopped = True
        self._room.release()

    async def get(self) -> str | None:
        """Returns the next part when it is there; None after the last one."""
        while not self._ready:
            if self._has_ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        part = self._ready.popleft()
        self._room.release()
        return part


async def streamed(work: Callable[[Parts], Awaitable[Answer]]) -> AsyncGenerator[AnswerPart, None]:
    """Yields the parts of an answer as they come, and the whole answer in the end.

    The work has a task of its own, and so has its deadline: what the reader does between two parts is no part of it.
    When the reader leaves, the task is cancelled.

    Args:
        work: Makes the answer and hands its parts over.
    """
    parts = Parts()

    async def make() -> Answer:
        try:
            return await work(parts)
        except TimeoutError:
            # Whoever reads slowly is told as soon as whoever waits.
            parts.drop()
            raise
        finally:
            parts.end()

    making = asyncio.get_running_loop().create_task(make(), name="kb-answer")
    try:
        while (part := await parts.get()) is not None:
            yield {"delta": part}
        yield {"answer": await making}
    finally:
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
