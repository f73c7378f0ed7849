"""The connection manager: lazy, shared, guarded, and closed in bounded time."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis

from knowledge_base.connection.guarded_client import GuardedRedis
from knowledge_base.connection.manager import POOLS, AsyncRedisManager
from knowledge_base.errors import (
    CircuitOpenError,
    OperationTimeoutError,
    OverloadedError,
    PermissionDeniedError,
    UnavailableError,
)
from knowledge_base.settings import BreakerSettings, Limits, Settings, Timeouts
from tests.support.fake_redis import URL, Clock, fake_endpoint
from tests.support.instant_loop import InstantLoop
from tests.support.polling import eventually
from tests.support.pools import pool_stats

SECRET = "hunter2"


def raising(error: Exception) -> Callable[[redis.Redis], None]:
    def work(_: redis.Redis) -> None:
        raise error

    return work


def wrapped(error: Exception) -> Callable[[redis.Redis], None]:
    """Work whose error another library has wrapped."""

    def work(_: redis.Redis) -> None:
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("the store failed") from cause

    return work


async def test_constructor_does_no_io(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("the constructor did I/O")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    folder = tmp_path / "data"

    for settings in (Settings(redis_url=URL), Settings(data_dir=folder)):
        one = AsyncRedisManager(settings)
        assert one.stats() == {}
        assert one.breakers()[0]["state"] == "closed"
        await one.close()

    assert not folder.exists()


def test_manager_can_be_made_without_a_loop() -> None:
    assert AsyncRedisManager(Settings(redis_url=URL)).settings.redis_url == URL


async def test_pools_have_clients_of_their_own(fake_manager: AsyncRedisManager) -> None:
    clients = [await fake_manager.main(), await fake_manager.search(), await fake_manager.admin()]

    assert all(type(client) is GuardedRedis for client in clients)
    assert len({id(client.connection_pool) for client in clients}) == 3
    assert [await fake_manager.client(name) for name in POOLS] == clients
    assert await clients[0].set("key", "value")
    assert await clients[2].get("key") == "value"


async def test_exhausted_pool_leaves_the_others_alone(fake_manager: AsyncRedisManager) -> None:
    main, search = await fake_manager.main(), await fake_manager.search()
    for _ in range(fake_manager.settings.limits.pool_connections):
        await main._guard._admission.enter(1.0)

    assert fake_manager.stats()["main"]["in_use"] == 50
    assert await search.ping()


async def test_stats_name_pools_and_threads(fake_manager: AsyncRedisManager) -> None:
    await fake_manager.start()

    stats = fake_manager.stats()

    assert set(stats) == {"main", "search", "admin", "index threads", "jobs threads"}
    assert stats["main"] == pool_stats(1, 50)
    assert stats["search"]["connections"] == 0
    assert stats["index threads"] == {
        "connections": 0,
        "in_use": 0,
        "waiting": 0,
        "limit": fake_manager.settings.limits.index_threads,
        "waiting_limit": fake_manager.settings.limits.index_waiting,
        "retried": 0,
        "abandoned": 0,
    }


async def test_start_happens_once(fake_manager: AsyncRedisManager, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = 0
    open_it = fake_manager._open

    async def counted() -> None:
        nonlocal opened
        opened += 1
        await open_it()

    monkeypatch.setattr(fake_manager, "_open", counted)

    await asyncio.gather(*(fake_manager.start() for _ in range(10)))
    await fake_manager.start()

    assert opened == 1


async def test_failed_start_is_tried_again_by_the_next_call(
    fake_manager: AsyncRedisManager, fake_server: fakeredis.FakeServer
) -> None:
    fake_server.connected = False
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await fake_manager.main()

    fake_server.connected = True

    assert await (await fake_manager.main()).ping()


async def test_those_who_start_at_once_share_one_failing_attempt(
    fake_manager: AsyncRedisManager, fake_server: fakeredis.FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0
    go = asyncio.Event()
    open_it = fake_manager._open

    async def counted() -> None:
        nonlocal attempts
        attempts += 1
        await go.wait()
        await open_it()

    monkeypatch.setattr(fake_manager, "_open", counted)
    fake_server.connected = False
    starters = [asyncio.create_task(fake_manager.start()) for _ in range(20)]
    await eventually(lambda: attempts)

    go.set()
    errors = await asyncio.gather(*starters, return_exceptions=True)

    assert attempts == 1
    assert {type(error) for error in errors} == {UnavailableError}
    assert fake_manager.breaker.stats()["failures"] == 1
    fake_server.connected = True
    await fake_manager.start()
    assert attempts == 2


async def test_cancelled_start_leaves_the_next_one_to_whoever_waits(
    fake_manager: AsyncRedisManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()
    open_it = fake_manager._open

    async def hanging() -> None:
        monkeypatch.setattr(fake_manager, "_open", open_it)
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(fake_manager, "_open", hanging)
    first = asyncio.create_task(fake_manager.start())
    await begun.wait()
    second = asyncio.create_task(fake_manager.start())
    await asyncio.sleep(0)
    first.cancel()

    await second

    assert first.cancelled()
    assert await (await fake_manager.main()).ping()


async def test_open_circuit_refuses_a_start_at_once(
    fake_manager: AsyncRedisManager, fake_server: fakeredis.FakeServer, clock: Clock
) -> None:
    fake_server.connected = False
    for _ in range(BreakerSettings().failures):
        with pytest.raises(UnavailableError):
            await fake_manager.start()

    with pytest.raises(CircuitOpenError):
        await fake_manager.start()

    fake_server.connected = True
    clock.pass_by(10.0)
    await fake_manager.start()
    assert fake_manager.breaker.state == "closed"


async def test_all_pools_and_threads_share_one_breaker(
    fake_manager: AsyncRedisManager, fake_server: fakeredis.FakeServer
) -> None:
    await fake_manager.start()
    fake_server.connected = False
    for name in (*POOLS, "main"):
        with pytest.raises(UnavailableError):
            await (await fake_manager.client(name)).get("key")
    with pytest.raises(UnavailableError):
        await fake_manager.in_thread("LlamaIndex query", lambda client: client.get("key"))

    with pytest.raises(CircuitOpenError):
        await (await fake_manager.admin()).get("key")


async def test_work_in_a_thread_gets_the_synchronous_client(fake_manager: AsyncRedisManager) -> None:
    def work(client: redis.Redis) -> tuple[bool, str]:
        return bool(client.set("key", "value")), threading.current_thread().name

    assert await fake_manager.in_thread("LlamaIndex insert", work) == (True, "kb-index")
    assert await (await fake_manager.main()).get("key") == "value"


@pytest.mark.parametrize("make", [raising, wrapped])
@pytest.mark.parametrize("error", [redis.ConnectionError(SECRET), redis.TimeoutError(SECRET)])
async def test_lost_connection_in_a_thread_counts_however_it_is_wrapped(
    fake_manager: AsyncRedisManager, make: Callable[[Exception], Any], error: Exception
) -> None:
    with pytest.raises(UnavailableError) as caught:
        await fake_manager.in_thread("LlamaIndex insert", make(error))

    assert "LlamaIndex insert" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is not None
    assert fake_manager.breaker.stats()["failures"] == 1


async def test_refusal_in_a_thread_becomes_ours_and_does_not_count(fake_manager: AsyncRedisManager) -> None:
    with pytest.raises(PermissionDeniedError):
        await fake_manager.in_thread("LlamaIndex insert", wrapped(redis.exceptions.NoPermissionError("no")))

    assert fake_manager.breaker.stats()["failures"] == 0


@pytest.mark.parametrize("error", [redis.ResponseError("no such index"), ValueError("mine")])
async def test_answer_about_the_data_in_a_thread_passes_as_it_was_raised_and_resets_the_count(
    fake_manager: AsyncRedisManager, error: Exception
) -> None:
    with pytest.raises(UnavailableError):
        await fake_manager.in_thread("LlamaIndex insert", raising(redis.ConnectionError()))

    with pytest.raises(type(error)) as caught:
        await fake_manager.in_thread("LlamaIndex insert", raising(error))

    assert caught.value is error
    assert fake_manager.breaker.stats()["failures"] == 0
    with pytest.raises(RuntimeError, match="the store failed"):
        await fake_manager.in_thread("LlamaIndex insert", wrapped(error))


async def test_file_error_of_the_work_is_not_taken_for_a_lost_server(fake_manager: AsyncRedisManager) -> None:
    with pytest.raises(FileNotFoundError):
        await fake_manager.in_thread("LlamaIndex insert", raising(FileNotFoundError(2, "no such file")))

    assert fake_manager.breaker.stats()["failures"] == 0


@pytest.fixture
async def hasty_manager(
    monkeypatch: pytest.MonkeyPatch, fake_server: fakeredis.FakeServer
) -> AsyncIterator[AsyncRedisManager]:
    """A manager with one thread, little patience and no waiting calls."""
    fake_endpoint(monkeypatch, fake_server)
    timeouts, limits = Timeouts(llama_index=0.05), Limits(index_threads=1, index_waiting=0)
    one = AsyncRedisManager(Settings(redis_url=URL, timeouts=timeouts, limits=limits))
    yield one
    await one.close()


async def test_hung_work_counts_against_the_threads_and_a_refused_one_against_nobody(
    hasty_manager: AsyncRedisManager,
) -> None:
    released = threading.Event()
    try:
        with pytest.raises(OperationTimeoutError):
            await hasty_manager.in_thread("LlamaIndex query", lambda _: released.wait(20.0))
        with pytest.raises(OverloadedError):
            await hasty_manager.in_thread("LlamaIndex query", lambda _: None)
    finally:
        released.set()

    failures = {breaker["name"]: breaker["failures"] for breaker in hasty_manager.breakers()}
    assert failures == {"Redis": 0, "LlamaIndex threads": 1, "LlamaIndex threads of jobs": 0}


async def test_health_says_how_it_is_and_raises_nothing(
    fake_manager: AsyncRedisManager, fake_server: fakeredis.FakeServer
) -> None:
    well = await fake_manager.health()
    fake_server.connected = False
    ill = await fake_manager.health()

    assert (well["ok"], well["detail"]) == (True, "answers")
    assert well["took_ms"] >= 0
    assert ill["ok"] is False
    assert "cannot be reached" in ill["detail"]


async def test_closed_manager_is_closed_for_good_and_may_be_closed_again(
    fake_manager: AsyncRedisManager, fake_server: fakeredis.FakeServer
) -> None:
    main = await fake_manager.main()
    await fake_manager.in_thread("LlamaIndex query", lambda client: client.ping())
    threads = [thread for thread in threading.enumerate() if thread.name == "kb-index"]
    assert threads

    await asyncio.gather(fake_manager.close(), fake_manager.close())
    await fake_manager.close()

    assert not any(connection.is_connected for connection in main.connection_pool._available_connections)
    assert not any(thread.is_alive() for thread in threads)
    for use in (fake_manager.start, fake_manager.main):
        with pytest.raises(UnavailableError, match="closed"):
            await use()
    assert (await fake_manager.health())["ok"] is False


async def test_manager_that_was_never_started_can_be_closed() -> None:
    one = AsyncRedisManager(Settings(redis_url=URL))

    await one.close()

    with pytest.raises(UnavailableError, match="closed"):
        await one.start()


def test_closing_is_bounded_although_no_connection_can_be_closed(
    monkeypatch: pytest.MonkeyPatch, fake_server: fakeredis.FakeServer
) -> None:
    fake_endpoint(monkeypatch, fake_server)
    begun: list[str] = []

    async def hang() -> None:
        begun.append("disconnect")
        await asyncio.Event().wait()

    async def seconds_to_close() -> float:
        one = AsyncRedisManager(Settings(redis_url=URL, timeouts=Timeouts(close=4.0)))
        await one.start()
        for name in POOLS:
            monkeypatch.setattr((await one.client(name)).connection_pool, "disconnect", hang)
        loop = asyncio.get_running_loop()
        before = loop.time()
        await one.close()
        return loop.time() - before

    with asyncio.Runner(loop_factory=InstantLoop) as runner:
        took = runner.run(seconds_to_close())

    assert begun
    assert took <= 4.0


@pytest.mark.parametrize("error", [OSError("away"), redis.ConnectionError("away")])
async def test_connection_that_cannot_be_closed_does_not_keep_the_others_open(
    fake_manager: AsyncRedisManager, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    closed: list[str] = []

    async def fail() -> None:
        raise error

    async def close() -> None:
        closed.append("search")

    monkeypatch.setattr((await fake_manager.main()).connection_pool, "disconnect", fail)
    monkeypatch.setattr((await fake_manager.search()).connection_pool, "disconnect", close)

    await fake_manager.close()

    assert closed == ["search"]


async def test_context_manager_starts_and_closes(
    monkeypatch: pytest.MonkeyPatch, fake_server: fakeredis.FakeServer
) -> None:
    fake_endpoint(monkeypatch, fake_server)

    async with AsyncRedisManager(Settings(redis_url=URL)) as one:
        assert one.stats()["main"]["connections"] == 1

    with pytest.raises(UnavailableError, match="closed"):
        await one.main()
