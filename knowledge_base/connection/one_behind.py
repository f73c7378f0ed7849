"""``OneBehind``: the end of one piece of work goes on while the next piece begins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType


class OneBehind:
    """Runs one thing beside its caller, entered by ``async with``; leaving it waits for the last."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def begin(self, work: Callable[[], Awaitable[None]], interrupted: Callable[[], None]) -> None:
        """Waits for what was begun before, and begins something in the caller's context.

        Args:
            work: What to do.
            interrupted: Called when it ends early: cancelled, perhaps before it began, or by an error.

        Raises:
            Exception: What came of the work before.
        """

        async def run() -> None:
            await work()

        def ended(task: asyncio.Task[None]) -> None:
            # An error is looked at as well, since whoever would raise it may have been cancelled meanwhile.
            if task.cancelled() or task.exception() is not None:
                interrupted()

        try:
            await self._wait()
        except BaseException:
            interrupted()
            raise
        self._task = asyncio.get_running_loop().create_task(run())
        self._task.add_done_callback(ended)

    async def _wait(self) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        try:
            await task
        except asyncio.CancelledError:
            # Whether the caller was cancelled, or the task, nothing of it may go on alone.
            await _stopped(task)
            raise

    async def __aenter__(self) -> OneBehind:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self._wait()
        elif self._task is not None:
            await _stopped(self._task)


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
