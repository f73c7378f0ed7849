"""What is repeated when a connection dies, once and on a fresh one, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import fakeredis
import pytest
from redis import exceptions as driver

from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.connection.deadline import deadline
from knowledge_base.connection.guard import RETRY_PAUSE, RedisGuard
from knowledge_base.connection.guarded_client import GuardedRedis
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.errors import KnowledgeBaseError, OperationTimeoutError, UnavailableError
from knowledge_base.settings import BreakerSettings, Settings
from tests.support.fact_store import GENERATION, KEYS, Store, drafted
from tests.support.fake_redis import URL, Clock, new_guard
from tests.support.instant_loop import InstantLoop
from tests.support.lossy_redis import Losses, lossy_client, lossy_endpoint

SHORT = 0.02
LONG = 100.0


def refused() -> Exception:
    try:
        try:
            raise ConnectionRefusedError
        except OSError as cause:
            raise driver.ConnectionError("cannot connect") from cause
    except driver.ConnectionError as error:
        return error


class Script:
    """An exchange that fails as it is told, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.begun = 0

    async def __call__(self) -> str:
        self.begun += 1
        if self.errors:
            raise self.errors.pop(0)
        return "PONG"


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("Redis", BreakerSettings(failures=2, reset_after=10.0), clock=clock)


@pytest.fixture
def told() -> list[str]:
    """One entry for each failure that the guard has reported."""
    return []


@pytest.fixture
def guard(breaker: CircuitBreaker, told: list[str]) -> RedisGuard:
    return new_guard(breaker=breaker, on_failure=lambda: told.append("failed"))


@pytest.fixture
def losses() -> Losses:
    return Losses()


@pytest.fixture
def client(fake_server: fakeredis.FakeServer, losses: Losses, guard: RedisGuard) -> GuardedRedis:
    return lossy_client(fake_server, losses, guard)


@pytest.fixture
async def store(
    monkeypatch: pytest.MonkeyPatch, fake_server: fakeredis.FakeServer, losses: Losses
) -> AsyncIterator[Store]:
    """A repository whose replies can get lost."""
    lossy_endpoint(monkeypatch, fake_server, losses)
    async with AsyncRedisManager(Settings(redis_url=URL)) as manager:
        yield Store(manager, fake_server)


@pytest.mark.parametrize("error", [driver.ConnectionError("gone"), ConnectionResetError()])
async def test_exchange_whose_connection_dies_succeeds_the_second_time(
    guard: RedisGuard, breaker: CircuitBreaker, told: list[str], error: Exception
) -> None:
    exchange = Script(error)

    assert await guard.run("GET", exchange, repeatable=True) == "PONG"

    assert exchange.begun == 2
    assert guard.stats(0)["retried"] == 1
    assert (breaker.stats()["failures"], told) == (0, [])


async def test_second_death_is_reported_and_counts_once(
    guard: RedisGuard, breaker: CircuitBreaker, told: list[str]
) -> None:
    exchange = Script(*(driver.ConnectionError("gone") for _ in range(5)))

    with pytest.raises(UnavailableError):
        await guard.run("GET", exchange, repeatable=True)

    assert exchange.begun == 2
    assert (breaker.stats()["failures"], told) == (1, ["failed"])
    assert guard.stats(0)["in_use"] == 0


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(driver.TimeoutError("Timeout reading from socket"), id="driver's timeout"),
        pytest.param(TimeoutError(), id="timeout"),
        pytest.param(refused(), id="refused"),
        pytest.param(ConnectionRefusedError(), id="refused, raw"),
        pytest.param(driver.BusyLoadingError("LOADING"), id="loading"),
        pytest.param(driver.AuthenticationError("WRONGPASS"), id="password"),
        pytest.param(driver.MaxConnectionsError("Too many connections"), id="pool"),
        pytest.param(driver.ReadOnlyError("READONLY"), id="replica"),
        pytest.param(driver.OutOfMemoryError("OOM"), id="memory"),
        pytest.param(driver.InvalidResponse("Protocol Error"), id="nonsense"),
    ],
)
async def test_what_a_fresh_connection_would_not_survive_is_not_repeated(guard: RedisGuard, error: Exception) -> None:
    exchange = Script(error)

    with pytest.raises(KnowledgeBaseError):
        await guard.run("GET", exchange, repeatable=True)

    assert exchange.begun == 1
    assert guard.stats(0)["retried"] == 0


async def test_answer_about_the_data_is_not_repeated(guard: RedisGuard) -> None:
    exchange = Script(driver.ResponseError("WRONGTYPE"))

    with pytest.raises(driver.ResponseError):
        await guard.run("GET", exchange, repeatable=True)

    assert exchange.begun == 1


async def test_exchange_that_was_late_is_not_repeated(breaker: CircuitBreaker) -> None:
    begun = 0

    async def exchange() -> None:
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()

    with pytest.raises(OperationTimeoutError):
        await new_guard(timeout=SHORT, breaker=breaker).run("GET", exchange, repeatable=True)

    assert begun == 1


async def test_what_may_not_be_done_twice_is_not_repeated(guard: RedisGuard) -> None:
    exchange = Script(driver.ConnectionError("gone"))

    with pytest.raises(UnavailableError):
        await guard.run("DEL", exchange)

    assert (exchange.begun, guard.stats(0)["retried"]) == (1, 0)


async def test_probe_is_a_single_one(guard: RedisGuard, breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await guard.run("DEL", Script(driver.ConnectionError("gone")))
    clock.pass_by(10.0)
    probe = Script(driver.ConnectionError("gone"))

    with pytest.raises(UnavailableError):
        await guard.run("GET", probe, repeatable=True)

    assert probe.begun == 1
    assert breaker.state == "open"
    clock.pass_by(10.0)
    assert await guard.run("GET", Script(), repeatable=True) == "PONG"
    assert await guard.run("GET", Script(driver.ConnectionError("gone")), repeatable=True) == "PONG"


async def test_repeat_spends_the_same_deadline(guard: RedisGuard) -> None:
    begun = 0
    async with deadline("get_fact", LONG) as own:

        async def exchange() -> None:
            nonlocal begun
            begun += 1
            own.expires -= 2 * LONG
            raise driver.ConnectionError("gone")

        with pytest.raises(OperationTimeoutError) as caught:
            await guard.run("GET", exchange, repeatable=True)

    assert (caught.value.operation, begun) == ("get_fact", 1)


def test_pauses_before_repeats_are_short_and_not_all_the_same() -> None:
    async def pauses() -> list[float]:
        guard, found, loop = new_guard(), [], asyncio.get_running_loop()
        for _ in range(20):
            before = loop.time()
            await guard.run("GET", Script(driver.ConnectionError("gone")), repeatable=True)
            found.append(loop.time() - before)
        return found

    with asyncio.Runner(loop_factory=InstantLoop) as runner:
        found = runner.run(pauses())

    assert max(found) <= RETRY_PAUSE + 0.001
    assert len({round(pause, 5) for pause in found}) > 10


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(lambda client: client.get("key"), id="get"),
        pytest.param(lambda client: client.hmget("hash", ["field"]), id="hmget"),
        pytest.param(lambda client: client.zcount("set", "-inf", "+inf"), id="zcount"),
        pytest.param(lambda client: client.ping(), id="ping"),
        pytest.param(lambda client: client.execute_command("get", "key"), id="small letters"),
    ],
)
async def test_commands_that_only_read_are_repeated_unasked(
    client: GuardedRedis, losses: Losses, guard: RedisGuard, command: Callable[[GuardedRedis], Any]
) -> None:
    expected = await command(client)
    losses.lose()

    assert await command(client) == expected

    assert len(losses.sent) == 2
    assert losses.sent[0] == losses.sent[1]
    assert guard.stats(0)["retried"] == 1


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(lambda client: client.incr("counter"), id="incr"),
        pytest.param(lambda client: client.delete("key"), id="delete"),
        pytest.param(lambda client: client.execute_command("EVAL", "return 1", 0), id="script"),
    ],
)
async def test_commands_that_change_something_are_sent_once(
    client: GuardedRedis, losses: Losses, command: Callable[[GuardedRedis], Any]
) -> None:
    await client.ping()
    losses.lose()

    with pytest.raises(UnavailableError):
        await command(client)

    assert len(losses.sent) == 1


@pytest.mark.parametrize("transaction", [False, True])
async def test_repeated_pipeline_sends_all_its_commands_again(client: Any, losses: Losses, transaction: bool) -> None:
    await client.set("a", "1")
    await client.set("b", "2")
    pipeline = client.pipeline(transaction=transaction)
    pipeline.get("a").get("b").get("c")
    losses.lose()

    assert await pipeline.execute() == ["1", "2", None]

    assert len(losses.sent) == 2
    assert losses.sent[0] == losses.sent[1]
    assert losses.sent[1].count("GET") == 3
    assert await pipeline.execute() == []


async def test_pipeline_that_changes_something_is_repeated_only_on_request(client: Any, losses: Losses) -> None:
    losses.lose()
    with pytest.raises(UnavailableError):
        await client.pipeline(transaction=False).get("a").incr("counter").execute()
    once = await client.get("counter")

    losses.lose()
    replies = await client.pipeline(transaction=False).get("a").set("counter", "7").execute(repeatable=True)

    assert (once, replies) == ("1", [None, True])
    assert len(losses.sent) == 2


async def test_pipeline_that_failed_twice_can_be_used_anew(client: Any, losses: Losses) -> None:
    await client.set("a", "1")
    pipeline = client.pipeline(transaction=False)
    losses.lose(2)
    with pytest.raises(UnavailableError):
        await pipeline.get("a").get("a").execute()

    assert await pipeline.get("a").execute() == ["1"]


async def test_store_whose_reply_was_lost_is_a_success_with_one_fact(store: Store, losses: Losses) -> None:
    await store.put("warm")
    losses.lose()

    stored = await store.put("penguins swim", "f", tags=["t"])

    assert (stored.status, stored.fact_id, stored.version) == ("success", "f", 1)
    assert len(losses.sent) == 2
    assert store.redis.zcard(KEYS.facts) == 2
    assert store.counts() == ({"t": "1"}, {}, "2")
    assert (await store.get("f")).content == "penguins swim"


async def test_store_of_many_whose_replies_were_lost_is_a_success_for_each(store: Store, losses: Losses) -> None:
    await store.put("there already")
    losses.lose()

    contents = ["penguins swim", "puffins fly", "there already"]
    replies = await store.repository.store(GENERATION, [drafted(content) for content in contents])

    assert [reply.status for reply in replies] == ["success", "success", "duplicate"]
    assert len(losses.sent) == 2
    assert store.redis.zcard(KEYS.facts) == 3


async def test_same_content_stored_by_another_call_is_a_duplicate_all_the_same(store: Store, losses: Losses) -> None:
    await store.put("penguins swim", "f")
    losses.lose()

    again = await store.put("penguins swim", "f")

    assert (again.status, again.version) == ("duplicate", 1)


@pytest.mark.parametrize("fields", [{"content": "puffins fly"}, {"tags": ["t"]}], ids=["content", "labels"])
async def test_update_whose_reply_was_lost_counts_once(store: Store, losses: Losses, fields: dict[str, Any]) -> None:
    await store.put("walruses dive", "w")
    await store.change(await store.get("w"), source="zoo")
    await store.put("penguins swim", "f")
    old = await store.get("f")
    losses.lose()

    stored = await store.change(old, **fields)

    assert (stored.status, stored.version) == ("success", 2)
    assert len(losses.sent) == 2
    assert (await store.get("f")).version == 2
    assert store.redis.llen(KEYS.history("f")) == 1
    assert store.counts()[0] == dict.fromkeys(fields.get("tags", []), "1")


async def test_delete_whose_reply_was_lost_is_not_repeated(store: Store, losses: Losses) -> None:
    for fact_id in ("w", "f"):
        await store.put(f"content of {fact_id}", fact_id)
    await store.repository.delete(GENERATION, "w", [], None)
    losses.lose()

    with pytest.raises(UnavailableError):
        await store.repository.delete(GENERATION, "f", [], None)

    assert len(losses.sent) == 1
    assert not await store.repository.delete(GENERATION, "f", [], None)
