"""A TCP proxy that does to a connection what bad networks do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

Result = TypeVar("Result")
Mood = Literal["pass", "delay", "blackhole", "reset", "cut", "drip", "bandwidth", "garbage", "refuse"]

AMOUNTS: dict[Mood, float] = {"delay": 0.05, "drip": 0.001, "bandwidth": 10_000.0}
"""What a mood means where nothing else is said: seconds a chunk, seconds a byte, bytes a second."""

CHUNK = 65_536
SLICE = 0.01
"""Seconds of bandwidth that are sent at a time."""

GARBAGE = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
WITHIN = 10.0
RESETS = struct.pack("ii", 1, 0)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with RST instead of FIN."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
    writer.transport.abort()


class _Link:
    """One client's connection and its counterpart at the server."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.swallowed = False

    def reset(self) -> None:
        _abort(self.client)
        if self.server is not None:
            _abort(self.server)

    def close(self) -> None:
        self.client.close()
        if self.server is not None:
            self.server.close()


class FaultProxy:
    """Stands before a server of this machine, in a thread with a loop of its own, which no blocked test can stall.

    Moods are about replies, and about new connections where that makes sense: ``pass`` hands on; ``delay`` holds each
    chunk back; ``blackhole`` accepts, takes everything and answers nothing; ``reset`` ends every connection with RST,
    new ones too; ``cut`` sends half of a reply and closes; ``drip`` sends one byte at a time; ``bandwidth`` so many
    bytes a second; ``garbage`` answers what is not Redis' protocol; ``refuse`` closes the port.

    Args:
        upstream: The server's port on the loopback interface.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._mood: Mood = "pass"
        self._amount = 0.0
        self._to_lose = 0
        self._links: dict[asyncio.Task[None], _Link] = {}
        self._listener: asyncio.Server | None = None
        self._reserved = self._bound(0)
        self.port: int = self._reserved.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="fault-proxy", daemon=True)

    @property
    def url(self) -> str:
        """The proxy's URL for a server without a password."""
        return self.url_for(None, None)

    def url_for(self, user: str | None, password: str | None) -> str:
        """Returns the proxy's URL with which a user logs in."""
        login = f"{user or ''}:{password}@" if password is not None else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    @property
    def connections(self) -> int:
        """Connections that clients have open."""
        return len(self._links)

    def start(self) -> FaultProxy:
        """Listens."""
        self._thread.start()
        self._run(self._listen())
        return self

    def become(self, mood: Mood, amount: float | None = None) -> None:
        """Sets how it behaves from now on, open connections included.

        Args:
            mood: The mood.
            amount: Seconds or bytes, as in ``AMOUNTS``.
        """
        self._run(self._become(mood, AMOUNTS.get(mood, 0.0) if amount is None else amount))

    def lead_to(self, upstream: int) -> None:
        """Ends every connection, and leads new ones to another port."""
        self._run(self._lead_to(upstream))

    def lose(self, replies: int) -> None:
        """Loses the next replies, each with its connection, which ends with RST.

        Args:
            replies: How many; none ends what was asked for before.
        """
        self._run(self._lose(replies))

    def drop(self) -> None:
        """Ends every open connection with RST; new ones are served."""
        self._run(self._drop())

    def close(self) -> None:
        """Ends every connection, the listener and the thread."""
        if self._thread.is_alive():
            self._run(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(WITHIN)
        if not self._loop.is_closed():
            self._loop.close()
        self._reserved.close()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WITHIN)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _bound(self, port: int) -> socket.socket:
        # Bound without listening, it refuses connections and keeps the port from others.
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(("127.0.0.1", port))
        return bound

    async def _listen(self) -> None:
        listening = self._reserved.dup()
        self._listener = await asyncio.start_server(self._accept, sock=listening, limit=CHUNK, backlog=1_024)

    async def _refuse(self) -> None:
        listening, self._reserved = self._reserved, self._bound(self.port)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        listening.close()

    async def _become(self, mood: Mood, amount: float) -> None:
        self._mood, self._amount = mood, amount
        if mood in {"reset", "refuse"}:
            await self._drop()
        else:
            # What was swallowed in part would reach the server as nonsense.
            await self._drop(only_swallowed=True)
        if mood == "refuse" and self._listener is not None:
            await self._refuse()
        elif mood != "refuse" and self._listener is None:
            await self._listen()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _lose(self, replies: int) -> None:
        self._to_lose = replies

    async def _lead_to(self, upstream: int) -> None:
        self._upstream = upstream
        await self._drop()

    async def _drop(self, *, only_swallowed: bool = False) -> None:
        gone = [task for task, link in self._links.items() if link.swallowed or not only_swallowed]
        for task in gone:
            self._links[task].reset()
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)

    async def _end(self) -> None:
        if self._listener is not None:
            self._listener.close()
        await self._drop()
        # Transports close their sockets in the turn after.
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = self._links[task] = _Link(writer)
        try:
            await self._connect(link, reader)
        except (OSError, asyncio.CancelledError):
            link.reset()
        finally:
            link.close()
            self._links.pop(task, None)

    async def _connect(self, link: _Link, requests: asyncio.StreamReader) -> None:
        if self._mood == "reset":
            link.reset()
            return
        replies, link.server = await asyncio.open_connection("127.0.0.1", self._upstream, limit=CHUNK)
        pumps = {
            asyncio.ensure_future(self._pump_requests(link, requests)),
            asyncio.ensure_future(self._pump_replies(link, replies)),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump_requests(self, link: _Link, requests: asyncio.StreamReader) -> None:
        assert link.server is not None
        while chunk := await requests.read(CHUNK):
            if self._mood == "blackhole":
                link.swallowed = True
            elif self._mood == "garbage":
                link.swallowed = True
                link.client.write(GARBAGE)
                await link.client.drain()
            else:
                link.server.write(chunk)
                await link.server.drain()

    async def _pump_replies(self, link: _Link, replies: asyncio.StreamReader) -> None:
        while chunk := await replies.read(CHUNK):
            if self._to_lose:
                self._to_lose -= 1
                link.reset()
                return
            if self._mood == "delay":
                await self._pause(self._amount)
            if self._mood in {"blackhole", "garbage"}:
                link.swallowed = True
            elif self._mood == "cut":
                await self._send(link, chunk[: len(chunk) // 2])
                return
            elif self._mood == "drip":
                await self._send_slowly(link, chunk, 1, self._amount)
            elif self._mood == "bandwidth":
                size = max(1, int(self._amount * SLICE))
                await self._send_slowly(link, chunk, size, size / self._amount)
            else:
                await self._send(link, chunk)

    async def _send(self, link: _Link, chunk: bytes) -> None:
        link.client.write(chunk)
        await link.client.drain()

    async def _send_slowly(self, link: _Link, chunk: bytes, size: int, pause: float) -> None:
        mood = self._mood
        for begin in range(0, len(chunk), size):
            if self._mood != mood:
                await self._send(link, chunk[begin:])
                return
            await self._send(link, chunk[begin : begin + size])
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        """Waits, but not beyond the end of the mood."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
