"""What breaks, one after the other, while the load goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from itertools import cycle

from tests.soak.embedding import FailingLocalEmbedding
from tests.support.control import Control
from tests.support.server import RedisServer

Fault = Callable[[], Awaitable[None]]


class Faults:
    """Breaks a server and an embedding model, and mends them.

    What blocks is done in threads: the loop that is measured is the same.
    """

    def __init__(self, server: RedisServer, model: FailingLocalEmbedding) -> None:
        self._server = server
        self._model = model

    async def frozen(self, seconds: float) -> None:
        """Stops the server's process for some time."""
        self._server.freeze()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._server.thaw()

    async def killed(self, seconds: float) -> None:
        """Kills the server, and starts it again on the same data after some time."""
        try:
            await asyncio.to_thread(self._server.kill)
            await asyncio.sleep(seconds)
        finally:
            await asyncio.to_thread(self._server.restart)

    async def paused(self, seconds: float) -> None:
        """Lets the server keep every client waiting for some time."""
        await asyncio.to_thread(self._pause, seconds)
        await asyncio.sleep(seconds)

    async def embedder_failing(self, seconds: float) -> None:
        """Lets every request to the model fail for some time."""
        self._model.fail(True)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._model.fail(False)

    def _pause(self, seconds: float) -> None:
        control = Control(self._server.url)
        try:
            control.run("CLIENT", "PAUSE", int(seconds * 1000), "ALL")
        finally:
            control.close()


async def in_turn(faults: Mapping[str, Fault], every: float, told: Callable[[str], None]) -> None:
    """Lets one fault after the other happen, with time to recover between them, until it is cancelled."""
    for name in cycle(faults):
        await asyncio.sleep(every)
        told(name)
        await faults[name]()
