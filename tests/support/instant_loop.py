"""An event loop in which no time is lost."""

from __future__ import annotations

import asyncio
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
