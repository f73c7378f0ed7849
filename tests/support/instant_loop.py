"""An event loop in which no time is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class InstantLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to whatever it waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0
        poll = self._selector.select  # type: ignore[attr-defined]

        def select(timeout: float | None = None) -> Any:
            if timeout:
                self.ahead += timeout
            return poll(0)

        self._selector.select = select  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.ahead


def instantly(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a test on such a loop, where what it waits for comes exactly in time; it may leave no task.

    Args:
        test: The test.
    """

    async def run() -> None:
        await test()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=InstantLoop) as runner:
        runner.run(run())
