"""The connection manager with an embedded server, and the one of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import fakeredis
import pytest
import redis

from knowledge_base.connection import manager as manager_module
from knowledge_base.connection.manager import AsyncRedisManager, get_redis_manager
from knowledge_base.errors import OperationTimeoutError, ServerRequirementError, UnavailableError
from knowledge_base.settings import Settings, Timeouts
from tests.support.fake_redis import URL, fake_endpoint
from tests.support.polling import eventually

SECRET = "hunter2"


def lose_the_server(_: redis.Redis) -> None:
    raise redis.ConnectionError


class FakeEmbedded:
    """Stands for the embedded server: blocks, fails and counts as it is told."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.opened = 0
        self.closed = 0
        self.error: Exception | None = None
        self.may_open = threading.Event()
        self.may_open.set()

    def open(self) -> str:
        self.opened += 1
        assert self.may_open.wait(20.0)
        if self.error is not None:
            raise self.error
        return URL

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
async def embedded(
    monkeypatch: pytest.MonkeyPatch, fake_server: fakeredis.FakeServer
) -> AsyncIterator[tuple[AsyncRedisManager, FakeEmbedded]]:
    """A manager of an embedded server that is not one."""
    server = FakeEmbedded()
    fake_endpoint(monkeypatch, fake_server)
    monkeypatch.setattr(manager_module, "EmbeddedServer", lambda *_, **__: server)
    one = AsyncRedisManager(Settings(timeouts=Timeouts(start=0.05, close=2.0)))
    yield one, server
    server.may_open.set()
    await one.close()


async def test_embedded_server_is_opened_once_and_left_at_the_end(
    embedded: tuple[AsyncRedisManager, FakeEmbedded],
) -> None:
    manager, server = embedded

    await manager.main()
    await manager.search()
    assert (server.opened, server.closed) == (1, 0)
    await manager.close()

    assert (server.opened, server.closed) == (1, 1)


async def test_lost_embedded_server_is_opened_again_by_the_next_call(
    embedded: tuple[AsyncRedisManager, FakeEmbedded], fake_server: fakeredis.FakeServer
) -> None:
    manager, server = embedded
    main = await manager.main()
    fake_server.connected = False
    with pytest.raises(UnavailableError):
        await main.get("key")
    fake_server.connected = True

    again = await manager.main()

    assert server.opened == 2
    assert again is main
    assert await again.get("key") is None


async def test_lost_embedded_server_is_noticed_by_the_threads_too(
    embedded: tuple[AsyncRedisManager, FakeEmbedded],
) -> None:
    manager, server = embedded
    with pytest.raises(UnavailableError):
        await manager.in_thread("LlamaIndex query", lose_the_server)

    await manager.main()

    assert server.opened == 2


async def test_embedded_server_that_cannot_run_says_so_and_is_tried_again(
    embedded: tuple[AsyncRedisManager, FakeEmbedded],
) -> None:
    manager, server = embedded
    server.error = ServerRequirementError("install knowledge-base[embedded]")
    with pytest.raises(ServerRequirementError):
        await manager.main()
    server.error = None

    assert await (await manager.main()).ping()


async def test_manager_whose_embedded_server_is_still_starting_can_be_closed(
    embedded: tuple[AsyncRedisManager, FakeEmbedded],
) -> None:
    manager, server = embedded
    server.may_open.clear()
    with pytest.raises(OperationTimeoutError):
        await manager.start()

    closing = asyncio.create_task(manager.close())
    await asyncio.sleep(0)
    server.may_open.set()
    await closing

    await eventually(lambda: server.closed == 1)


@pytest.fixture
async def process_wide(monkeypatch: pytest.MonkeyPatch, fake_server: fakeredis.FakeServer) -> AsyncIterator[None]:
    """Gives the process-wide manager back as it was."""
    fake_endpoint(monkeypatch, fake_server)
    monkeypatch.setattr(manager_module, "_shared", None)
    yield
    if manager_module._shared is not None:
        await manager_module._shared.close()


async def test_there_is_one_manager_per_process(process_wide: None) -> None:
    settings = Settings(redis_url=URL)

    made = await asyncio.gather(*(get_redis_manager(settings) for _ in range(10)))

    assert len({id(one) for one in made}) == 1
    assert made[0].settings is settings
    assert await get_redis_manager() is made[0]
    assert await (await made[0].main()).ping()


async def test_closed_process_wide_manager_is_renewed(process_wide: None) -> None:
    first = await get_redis_manager(Settings(redis_url=URL))
    await first.close()

    second = await get_redis_manager(Settings(redis_url=URL))

    assert second is not first
    assert await (await second.main()).ping()


async def test_process_wide_manager_that_could_not_start_is_kept_and_tried_again(
    process_wide: None, fake_server: fakeredis.FakeServer
) -> None:
    fake_server.connected = False
    with pytest.raises(UnavailableError):
        await get_redis_manager(Settings(redis_url=URL))
    kept = manager_module._shared
    fake_server.connected = True

    assert await get_redis_manager() is kept


@pytest.mark.parametrize("url", [f"redis://ann:{SECRET}@localhost:1", f"rediss://:{SECRET}@localhost:1"])
def test_repr_hides_the_password(url: str) -> None:
    shown = repr(AsyncRedisManager(Settings(redis_url=url)))

    assert SECRET not in shown
    assert "localhost:1" in shown
    assert "closed" in shown


def test_repr_names_the_embedded_server() -> None:
    assert repr(AsyncRedisManager(Settings())) == "<AsyncRedisManager embedded closed>"
