"""Closing: what is under way ends at once and is told so, and no connection stays open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from redis import exceptions as driver
from redis.asyncio.connection import AbstractConnection

from knowledge_base.connection import guard as guard_module
from knowledge_base.connection.manager import POOLS, AsyncRedisManager
from knowledge_base.errors import UnavailableError
from knowledge_base.settings import Limits, Settings, Timeouts
from tests.support.fake_redis import new_guard
from tests.support.polling import eventually

LONG = 100.0
WITHIN = 20.0


class Speaker:
    """A server that says PONG to everything, until it falls silent."""

    def __init__(self) -> None:
        self.silent = False
        self.commands = 0
        self.accepted = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.append(writer)
        with suppress(ConnectionError):
            while chunk := await reader.read(65_536):
                commands = chunk.count(b"*")
                self.commands += commands
                if not self.silent:
                    writer.write((b"+OK\r\n" if b"CLIENT" in chunk else b"+PONG\r\n") * commands)
        writer.close()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@pytest.fixture
def speaker() -> Speaker:
    return Speaker()


@pytest.fixture
async def manager(speaker: Speaker) -> AsyncIterator[AsyncRedisManager]:
    """A started manager of that server, with three connections a pool and all the time in the world."""
    server = await asyncio.start_server(speaker.serve, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    timeouts = Timeouts(redis=LONG, connect=LONG, close=WITHIN)
    one = AsyncRedisManager(Settings(redis_url=url, timeouts=timeouts, limits=Limits(pool_connections=3)))
    await one.start()
    yield one
    await one.close()
    speaker.close()
    server.close()
    await server.wait_closed()


async def forever() -> None:
    await asyncio.Event().wait()


async def outcomes(calls: list[asyncio.Task[Any]]) -> set[type]:
    return {type(outcome) for outcome in await asyncio.gather(*calls, return_exceptions=True)}


def connections(manager: AsyncRedisManager) -> list[AbstractConnection]:
    pools = [pool.connections for pool in manager._pools.values()]
    return [one for pool in pools for one in (*pool._available_connections, *pool._in_use_connections)]


async def test_exchange_under_way_ends_and_says_that_the_pool_is_closed() -> None:
    guard = new_guard(timeout=LONG)
    call = asyncio.create_task(guard.run("GET", forever))
    await eventually(lambda: guard.stats(0)["in_use"])
    await asyncio.sleep(0)

    await guard.close(LONG)

    with pytest.raises(UnavailableError, match="closed"):
        await call
    assert not call.cancelled()
    assert guard.stats(0)["in_use"] == 0


async def test_closed_pool_refuses_before_anything_is_sent() -> None:
    guard = new_guard()
    await guard.close(LONG)
    begun: list[str] = []

    async def exchange() -> None:
        begun.append("begun")

    with pytest.raises(UnavailableError, match="closed"):
        await guard.run("GET", exchange)

    assert begun == []


async def test_those_who_wait_for_a_connection_are_refused_too() -> None:
    guard = new_guard(limit=1, timeout=LONG)
    calls = [asyncio.create_task(guard.run("GET", forever)) for _ in range(4)]
    await eventually(lambda: guard.stats(0)["waiting"] == 3)

    await guard.close(LONG)

    assert await outcomes(calls) == {UnavailableError}


async def test_callers_own_cancellation_stays_one_while_the_pool_is_closed() -> None:
    guard = new_guard(timeout=LONG)
    cancelled, told = (asyncio.create_task(guard.run("GET", forever)) for _ in range(2))
    await eventually(lambda: guard.stats(0)["in_use"] == 2)
    await asyncio.sleep(0)

    cancelled.cancel()
    await guard.close(LONG)
    await asyncio.wait({cancelled, told})

    assert cancelled.cancelled()
    assert isinstance(told.exception(), UnavailableError)


async def test_cancellation_after_the_close_stays_one_too() -> None:
    guard = new_guard(timeout=LONG)
    call = asyncio.create_task(guard.run("GET", forever))
    await eventually(lambda: guard.stats(0)["in_use"])
    await asyncio.sleep(0)

    closing = asyncio.create_task(guard.close(LONG))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait({call, closing})

    assert call.cancelled()


async def test_closing_waits_no_longer_than_it_may_for_what_will_not_end() -> None:
    guard = new_guard(timeout=LONG)
    released = asyncio.Event()

    async def stubborn() -> None:
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()

    call = asyncio.create_task(guard.run("GET", stubborn))
    await eventually(lambda: guard.stats(0)["in_use"])
    await asyncio.sleep(0)

    await asyncio.wait_for(guard.close(0.02), LONG)
    released.set()

    await asyncio.wait({call})


async def test_close_ends_every_call_and_leaves_no_connection(manager: AsyncRedisManager, speaker: Speaker) -> None:
    speaker.silent = True
    before = speaker.commands
    calls = [asyncio.create_task((await manager.client(name)).execute_command("GET", "key")) for name in POOLS]
    await eventually(lambda: speaker.commands > before)

    await manager.close()

    assert await outcomes(calls) == {UnavailableError}
    assert connections(manager)
    assert not any(one.is_connected for one in connections(manager))


async def test_close_while_calls_are_just_connecting_leaves_no_connection(
    manager: AsyncRedisManager, speaker: Speaker
) -> None:
    speaker.silent = True
    before = speaker.accepted
    search = await manager.search()
    calls = [asyncio.create_task(search.execute_command("GET", "key")) for _ in range(10)]
    await eventually(lambda: speaker.accepted == before + 3)

    await manager.close()

    assert await outcomes(calls) == {UnavailableError}
    assert not any(one.is_connected for one in connections(manager))


async def test_close_in_the_first_moments_of_connecting_leaves_no_connection(
    manager: AsyncRedisManager, speaker: Speaker
) -> None:
    search, admin = await manager.search(), await manager.admin()
    calls = []
    for steps, client in ((0, search), (1, search), (2, search), (3, admin), (4, admin)):
        calls.append(asyncio.create_task(client.execute_command("GET", "key")))
        for _ in range(steps):
            await asyncio.sleep(0)

    await manager.close()

    assert await outcomes(calls) <= {UnavailableError, str}
    assert not any(one.is_connected for one in connections(manager))


async def test_calls_after_the_close_are_refused(manager: AsyncRedisManager, speaker: Speaker) -> None:
    client = await manager.main()
    pipeline = client.pipeline()
    pipeline.get("key")

    await manager.close()
    sent = speaker.commands

    with pytest.raises(UnavailableError):
        await client.get("key")
    with pytest.raises(UnavailableError):
        await pipeline.execute()
    with pytest.raises(UnavailableError):
        await manager.main()
    assert speaker.commands == sent


async def test_start_that_is_under_way_ends_with_the_close(speaker: Speaker) -> None:
    speaker.silent = True
    server = await asyncio.start_server(speaker.serve, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    one = AsyncRedisManager(Settings(redis_url=url, timeouts=Timeouts(redis=LONG, connect=LONG, close=WITHIN)))
    starts = [asyncio.create_task(one.start()) for _ in range(3)]
    await eventually(lambda: speaker.accepted)

    await one.close()

    assert await outcomes(starts) == {UnavailableError}
    assert not any(connection.is_connected for connection in connections(one))
    speaker.close()
    server.close()
    await server.wait_closed()


async def test_exchange_about_to_be_repeated_is_not_begun_again_once_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = asyncio.Event()
    monkeypatch.setattr(guard_module, "pause_before_retry", go_on.wait)
    guard = new_guard(timeout=LONG)
    begun: list[str] = []

    async def exchange() -> None:
        begun.append("begun")
        if len(begun) == 1:
            raise driver.ConnectionError("gone")
        await asyncio.Event().wait()

    call = asyncio.create_task(guard.run("GET", exchange, repeatable=True))
    await eventually(lambda: guard.stats(0)["retried"])

    await guard.close(LONG)
    go_on.set()

    with pytest.raises(UnavailableError, match="closed"):
        await asyncio.wait_for(call, WITHIN)
    assert begun == ["begun"]
