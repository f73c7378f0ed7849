"""The guarded client: nothing that talks to Redis gets past the guard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import fakeredis
import pytest
from redis import exceptions as driver
from redis.asyncio import BlockingConnectionPool, Redis

from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.connection.guarded_client import GuardedPipeline, GuardedRedis
from knowledge_base.errors import OperationTimeoutError, UnavailableError
from knowledge_base.settings import BreakerSettings
from tests.support.fake_redis import SilentConnection, fake_client, new_guard
from tests.support.polling import eventually

SHORT = 0.02
LONG = 100.0

REFUSED = ("client", "monitor", "pubsub")


@pytest.fixture
def client(fake_server: fakeredis.FakeServer) -> GuardedRedis:
    return fake_client(fake_server)


@pytest.fixture
def silent() -> tuple[Any, CircuitBreaker]:
    """A client whose server never answers, and its breaker."""
    breaker = CircuitBreaker("Redis", BreakerSettings())
    pool = BlockingConnectionPool(connection_class=SilentConnection, max_connections=4)  # type: ignore[arg-type]
    return GuardedRedis(pool, new_guard(limit=4, timeout=SHORT, breaker=breaker)), breaker


async def run_script(client: Any) -> Any:
    return await client.register_script("return 1")(["key"], [1])


async def run_script_in_pipeline(client: Any) -> Any:
    script = client.register_script("return 1")
    pipeline = client.pipeline()
    await script(["key"], [1], client=pipeline)
    return await pipeline.execute()


async def scan(client: Any) -> Any:
    return [key async for key in client.scan_iter("*")]


async def transaction(client: Any) -> Any:
    return await client.transaction(lambda pipeline: pipeline.set("key", "value"))


@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.get("key"),
        lambda client: client.execute_command("FT.SEARCH", "index", "*"),
        lambda client: client.blpop("key", timeout=0),
        lambda client: client.pipeline().set("key", "value").execute(),
        lambda client: client.pipeline(transaction=False).get("key").execute(),
        lambda client: client.ft("index").info(),
        lambda client: client.json().get("key"),
        run_script,
        run_script_in_pipeline,
        scan,
        transaction,
    ],
    ids=[
        *("command", "any command", "blocking command", "transaction pipeline", "pipeline", "search module"),
        *("JSON module", "script", "script in a pipeline", "scan", "transaction"),
    ],
)
async def test_every_exchange_is_bounded_and_counts(
    silent: tuple[Any, CircuitBreaker], use: Callable[[GuardedRedis], Awaitable[Any]]
) -> None:
    client, breaker = silent

    with pytest.raises(OperationTimeoutError):
        await asyncio.wait_for(use(client), LONG)

    assert breaker.stats()["failures"] == 1


async def test_commands_pipelines_and_scripts_work(client: Any) -> None:
    assert Redis in type(client).__mro__
    assert await client.set("key", "value") is True
    assert await client.get("key") == "value"
    assert await client.pipeline().get("key").set("other", 1).execute() == ["value", True]
    assert await client.pipeline(transaction=False).get("key").get("none").execute() == ["value", None]
    assert await client.register_script("return ARGV[1]")([], ["x"]) == "x"
    assert await scan(client) == ["key", "other"]
    assert client._guard.stats(0)["in_use"] == 0


async def test_empty_pipeline_sends_nothing(silent: tuple[Any, CircuitBreaker]) -> None:
    client, _ = silent

    assert await client.pipeline().execute() == []


async def test_watching_is_refused_since_it_holds_a_connection(client: Any) -> None:
    with pytest.raises(TypeError, match="watch"):
        await client.pipeline().watch("key")

    assert not client.connection_pool._in_use_connections


async def test_answer_about_the_data_is_raw_in_commands_and_pipelines(client: Any) -> None:
    await client.set("key", "value")

    with pytest.raises(driver.ResponseError, match="WRONGTYPE"):
        await client.lpush("key", "item")
    with pytest.raises(driver.ResponseError, match="WRONGTYPE"):
        await client.pipeline().lpush("key", "item").execute()
    replies = await client.pipeline(transaction=False).lpush("key", "item").get("key").execute(raise_on_error=False)

    assert isinstance(replies[0], driver.ResponseError)
    assert replies[1] == "value"


async def test_lost_server_is_unavailable_for_commands_and_pipelines(
    client: Any, fake_server: fakeredis.FakeServer
) -> None:
    await client.ping()
    fake_server.connected = False

    with pytest.raises(UnavailableError):
        await client.get("key")
    with pytest.raises(UnavailableError):
        await client.pipeline().get("key").execute()

    fake_server.connected = True
    assert await client.get("key") is None


async def test_cancelled_command_gives_its_connection_back() -> None:
    pool = BlockingConnectionPool(connection_class=SilentConnection, max_connections=1)  # type: ignore[arg-type]
    guard = new_guard(limit=1, timeout=LONG)
    client: Any = GuardedRedis(pool, guard)
    task = asyncio.create_task(client.get("key"))
    await eventually(lambda: guard.stats(0)["in_use"])

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert not pool._in_use_connections
    assert guard.stats(0)["in_use"] == 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_a_connection_without_a_bound_is_refused(client: Any, name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name}\(\) holds a connection without a bound"):
        getattr(client, name)()


@pytest.mark.parametrize("name", REFUSED)
def test_pipeline_refuses_it_too(client: Any, name: str) -> None:
    with pytest.raises(TypeError, match="without a bound"):
        getattr(client.pipeline(), name)()


def test_pipeline_of_a_pipeline_is_guarded_or_refused(client: Any) -> None:
    try:
        inner = client.pipeline().pipeline()
    except TypeError:
        return

    assert isinstance(inner, GuardedPipeline)
