"""LlamaIndex's worker threads: what is late counts against them, what is lost against Redis, what died is repeated."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import fakeredis
import pytest
import redis
from redis import exceptions as driver

from knowledge_base.connection import index_threads
from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.connection.index_threads import IndexThreads
from knowledge_base.errors import CircuitOpenError, OperationTimeoutError, OverloadedError, UnavailableError
from knowledge_base.settings import BreakerSettings, Limits, Settings, Timeouts
from tests.support.fake_redis import URL, Clock
from tests.support.polling import eventually

SHORT = 0.02
LONG = 100.0
STEP = "LlamaIndex query"
BREAKER = BreakerSettings(failures=5, reset_after=10.0)


class Stuck:
    """Work that does not return before the test lets it."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.begun = 0

    def __call__(self, _: redis.Redis) -> str:
        self.begun += 1
        assert self.released.wait(20.0)
        return "done"


class Dying:
    """Work whose connection dies so many times."""

    def __init__(self, deaths: int, error: Exception | None = None) -> None:
        self.deaths = deaths
        self.error = error or driver.ConnectionError("gone")
        self.begun = 0

    def __call__(self, _: redis.Redis) -> str:
        self.begun += 1
        if self.begun <= self.deaths:
            try:
                raise self.error
            except Exception as cause:
                raise RuntimeError("the store failed") from cause
        return "done"


class Stage:
    """Threads with their breakers, and what was told of Redis."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.redis = CircuitBreaker("Redis", BREAKER, clock=clock)
        self.own = CircuitBreaker("LlamaIndex threads", BREAKER, clock=clock)
        self.told: list[str] = []
        self.threads = IndexThreads(
            "index", URL, settings, self.redis, self.own, lambda: self.told.append("redis failed")
        )

    async def late(self, times: int, work: Stuck) -> None:
        for _ in range(times):
            with pytest.raises(OperationTimeoutError):
                await self.threads.run(STEP, work)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    one = Stuck()
    yield one
    one.released.set()


@pytest.fixture
async def new_stage(
    monkeypatch: pytest.MonkeyPatch, fake_server: fakeredis.FakeServer, clock: Clock, stuck: Stuck
) -> AsyncIterator[Callable[..., Stage]]:
    def thread_client(url: str, settings: Settings) -> redis.Redis:
        client: redis.Redis = fakeredis.FakeRedis(server=fake_server, decode_responses=True)
        return client

    monkeypatch.setattr(index_threads, "thread_client", thread_client)
    made: list[Stage] = []

    def make(llama_index: float = LONG, **limits: int) -> Stage:
        limits = {"index_threads": 8} | limits
        settings = Settings(redis_url=URL, timeouts=Timeouts(llama_index=llama_index), limits=Limits(**limits))
        made.append(Stage(settings, clock))
        return made[-1]

    yield make
    stuck.released.set()
    for one in made:
        one.threads.refuse()
        await one.threads.close(LONG)


async def test_work_gets_the_synchronous_client_in_a_thread_of_its_own_kind(new_stage: Callable[..., Stage]) -> None:
    stage = new_stage()

    def work(client: redis.Redis) -> tuple[Any, str]:
        client.set("key", "value")
        return client.get("key"), threading.current_thread().name

    assert await stage.threads.run(STEP, work) == ("value", "kb-index")


async def test_five_late_calls_open_the_threads_breaker_and_not_that_of_redis(
    new_stage: Callable[..., Stage], stuck: Stuck
) -> None:
    stage = new_stage(llama_index=SHORT)
    await stage.late(4, stuck)
    before = stage.own.state

    await stage.late(1, stuck)

    assert (before, stage.own.state) == ("closed", "open")
    assert (stage.redis.state, stage.redis.stats()["failures"], stage.told) == ("closed", 0, [])
    assert stage.threads.stats()["abandoned"] == 5


async def test_open_breaker_of_the_threads_refuses_and_begins_nothing(
    new_stage: Callable[..., Stage], stuck: Stuck
) -> None:
    stage = new_stage(llama_index=SHORT)
    await stage.late(5, stuck)
    begun = stuck.begun

    with pytest.raises(CircuitOpenError) as caught:
        await stage.threads.run(STEP, stuck)

    assert (caught.value.circuit, caught.value.retry_after) == ("LlamaIndex threads", 10.0)
    assert stuck.begun == begun
    assert stage.redis.stats()["failures"] == 0


async def test_threads_that_work_again_close_their_breaker(
    new_stage: Callable[..., Stage], stuck: Stuck, clock: Clock
) -> None:
    stage = new_stage(llama_index=SHORT)
    await stage.late(5, stuck)

    stuck.released.set()
    await eventually(lambda: stage.threads.stats()["in_use"] == 0)
    clock.pass_by(10.0)

    async def serves() -> bool:
        try:
            return await stage.threads.run(STEP, lambda _: "served") == "served"
        except OperationTimeoutError:
            clock.pass_by(10.0)
            return False

    await eventually(serves)
    assert stage.own.state == "closed"


async def test_work_that_is_not_late_forgives_what_was(new_stage: Callable[..., Stage], stuck: Stuck) -> None:
    stage = new_stage(llama_index=LONG)
    for _ in range(4):
        with stage.own.attempt() as attempt:
            attempt.failed()

    await stage.threads.run(STEP, lambda _: None)

    assert stage.own.stats()["failures"] == 0


async def test_error_in_a_thread_says_that_the_thread_works(new_stage: Callable[..., Stage]) -> None:
    stage = new_stage()
    with stage.own.attempt() as attempt:
        attempt.failed()

    def broken(_: redis.Redis) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await stage.threads.run(STEP, broken)

    assert (stage.own.stats()["failures"], stage.redis.stats()["failures"]) == (0, 0)


async def test_lost_redis_counts_against_redis_alone(new_stage: Callable[..., Stage]) -> None:
    stage = new_stage()

    with pytest.raises(UnavailableError):
        await stage.threads.run(STEP, Dying(9))

    assert (stage.redis.stats()["failures"], stage.told) == (1, ["redis failed"])
    assert stage.own.stats()["failures"] == 0


async def test_work_whose_connection_died_is_done_once_more(new_stage: Callable[..., Stage]) -> None:
    stage, work = new_stage(), Dying(1)

    assert await stage.threads.run(STEP, work) == "done"

    assert work.begun == 2
    assert (stage.redis.stats()["failures"], stage.told) == (0, [])


async def test_second_death_is_the_last(new_stage: Callable[..., Stage]) -> None:
    stage, work = new_stage(), Dying(9)

    with pytest.raises(UnavailableError):
        await stage.threads.run(STEP, work)

    assert work.begun == 2


@pytest.mark.parametrize(
    "error",
    [driver.TimeoutError("Timeout reading from socket"), driver.BusyLoadingError("LOADING"), ConnectionRefusedError()],
    ids=["timeout", "loading", "refused"],
)
async def test_what_a_fresh_connection_would_not_survive_is_done_once(
    new_stage: Callable[..., Stage], error: Exception
) -> None:
    stage, work = new_stage(), Dying(1, error)

    with pytest.raises(UnavailableError):
        await stage.threads.run(STEP, work)

    assert work.begun == 1


async def test_late_work_is_not_done_again(new_stage: Callable[..., Stage], stuck: Stuck) -> None:
    stage = new_stage(llama_index=SHORT)

    await stage.late(1, stuck)

    assert stuck.begun == 1


async def test_nothing_is_done_again_while_redis_is_probed(new_stage: Callable[..., Stage], clock: Clock) -> None:
    stage, work = new_stage(), Dying(1)
    for _ in range(5):
        with stage.redis.attempt() as attempt:
            attempt.failed()
    clock.pass_by(10.0)

    with pytest.raises(UnavailableError):
        await stage.threads.run(STEP, work)

    assert work.begun == 1
    assert stage.redis.state == "open"


async def test_open_breaker_of_redis_refuses_and_begins_nothing(new_stage: Callable[..., Stage]) -> None:
    stage, work = new_stage(), Dying(0)
    for _ in range(5):
        with stage.redis.attempt() as attempt:
            attempt.failed()

    with pytest.raises(CircuitOpenError) as caught:
        await stage.threads.run(STEP, work)

    assert (caught.value.circuit, work.begun) == ("Redis", 0)
    assert stage.own.stats()["failures"] == 0


async def test_full_threads_refuse_and_that_is_nobodys_failure(new_stage: Callable[..., Stage], stuck: Stuck) -> None:
    stage = new_stage(llama_index=SHORT, index_threads=1, index_waiting=0)
    await stage.late(1, stuck)

    with pytest.raises(OverloadedError):
        await stage.threads.run(STEP, stuck)

    assert (stage.own.stats()["failures"], stage.redis.stats()["failures"]) == (1, 0)


async def test_closed_threads_refuse(new_stage: Callable[..., Stage]) -> None:
    stage = new_stage()
    await stage.threads.run(STEP, lambda _: None)

    stage.threads.refuse()

    with pytest.raises(UnavailableError):
        await stage.threads.run(STEP, lambda _: None)
    assert stage.own.stats()["failures"] == 0
