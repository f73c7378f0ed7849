"""The guarded path: what bounds an exchange, what counts as a failure, and what the caller is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis import exceptions as driver

from knowledge_base.connection import deadline as deadline_module
from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.connection.deadline import deadline
from knowledge_base.errors import (
    CircuitOpenError,
    OperationTimeoutError,
    OverloadedError,
    PermissionDeniedError,
    UnavailableError,
)
from knowledge_base.settings import BreakerSettings
from tests.support.fake_redis import Clock, new_guard
from tests.support.polling import eventually
from tests.support.pools import pool_stats

SHORT = 0.02
LONG = 100.0
SECRET = "hunter2"  # what a server's reply may quote


async def answer() -> str:
    return "PONG"


async def forever() -> str:
    await asyncio.Event().wait()
    raise AssertionError


def raises(error: BaseException) -> Callable[[], Awaitable[Any]]:
    async def exchange() -> None:
        raise error

    return exchange


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("Redis", BreakerSettings(failures=3, reset_after=10.0), clock=clock)


async def test_exchange_gives_its_result(breaker: CircuitBreaker) -> None:
    guard = new_guard(breaker=breaker)

    assert await guard.run("PING", answer) == "PONG"
    assert guard.stats(4) == pool_stats(4, 10)


async def test_exchange_that_never_ends_is_ended_and_counts(breaker: CircuitBreaker) -> None:
    told: list[str] = []
    guard = new_guard(timeout=SHORT, breaker=breaker, on_failure=lambda: told.append("failed"))

    with pytest.raises(OperationTimeoutError) as caught:
        await guard.run("GET", forever)

    assert (caught.value.operation, caught.value.budget) == ("Redis GET", SHORT)
    assert breaker.stats()["failures"] == 1
    assert told == ["failed"]
    assert guard.stats(0)["in_use"] == 0


async def test_exchange_that_never_ends_is_cancelled(breaker: CircuitBreaker) -> None:
    cancelled = asyncio.Event()

    async def exchange() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(OperationTimeoutError):
        await new_guard(timeout=SHORT, breaker=breaker).run("GET", exchange)

    assert cancelled.is_set()


async def test_calls_own_deadline_is_named_and_counts(breaker: CircuitBreaker) -> None:
    guard = new_guard(timeout=LONG, breaker=breaker)

    with pytest.raises(OperationTimeoutError) as caught:
        async with deadline("get_fact", SHORT):
            await guard.run("GET", forever)

    assert (caught.value.operation, caught.value.budget, caught.value.spent_in) == ("get_fact", SHORT, "Redis GET")
    assert breaker.stats()["failures"] == 1


async def test_timeout_counts_although_the_callers_deadline_cancelled_the_wait(breaker: CircuitBreaker) -> None:
    guard = new_guard(timeout=LONG, breaker=breaker)
    begun = asyncio.Event()

    async def exchange() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with deadline("get_fact", LONG) as own:
        work = asyncio.create_task(guard.run("GET", exchange))
        await begun.wait()
        own.expires -= 2 * LONG
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    assert breaker.stats()["failures"] == 1


async def test_exchange_that_was_too_late_to_begin_is_no_failure(breaker: CircuitBreaker) -> None:
    begun = False

    async def exchange() -> None:
        nonlocal begun
        begun = True

    async with deadline("get_fact", LONG) as own:
        own.expires -= 2 * LONG
        with pytest.raises(OperationTimeoutError) as caught:
            await new_guard(breaker=breaker).run("GET", exchange)

    assert caught.value.spent_in == "Redis GET"
    assert not begun
    assert breaker.stats()["failures"] == 0


@pytest.mark.parametrize("within_deadline", [True, False])
async def test_callers_own_cancellation_passes_and_does_not_count(
    breaker: CircuitBreaker, within_deadline: bool
) -> None:
    guard = new_guard(timeout=LONG, breaker=breaker)
    begun = asyncio.Event()

    async def exchange() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def call() -> None:
        if within_deadline:
            async with deadline("get_fact", LONG):
                await guard.run("GET", exchange)
        else:
            await guard.run("GET", exchange)

    task = asyncio.create_task(call())
    await begun.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert breaker.stats()["failures"] == 0
    assert guard.stats(0)["in_use"] == 0


@pytest.mark.parametrize("error", [None, driver.ConnectionError("away")])
async def test_cancellation_in_the_moment_of_the_reply_is_not_lost(
    breaker: CircuitBreaker, error: Exception | None
) -> None:
    guard = new_guard(timeout=LONG, breaker=breaker)
    replied = asyncio.Event()
    beyond: list[str] = []

    async def exchange() -> None:
        await replied.wait()
        if error is not None:
            raise error

    async def call() -> None:
        with contextlib.suppress(UnavailableError):
            await guard.run("GET", exchange)
        beyond.append("went on")

    task = asyncio.create_task(call())
    await eventually(lambda: guard.stats(0)["in_use"])
    for _ in range(3):
        await asyncio.sleep(0)
    replied.set()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})

    assert beyond == [], "the task went on although it was cancelled"
    assert task.cancelled()


async def test_answer_about_the_data_passes_raw_and_resets_the_count(breaker: CircuitBreaker) -> None:
    guard = new_guard(breaker=breaker)
    wrong_type = driver.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await guard.run("GET", raises(driver.ConnectionError()))
    assert breaker.stats()["failures"] == 2

    with pytest.raises(driver.ResponseError) as caught:
        await guard.run("LPUSH", raises(wrong_type))

    assert caught.value is wrong_type
    assert breaker.stats()["failures"] == 0


async def test_refusal_of_the_user_becomes_ours_and_does_not_count(breaker: CircuitBreaker) -> None:
    guard = new_guard(breaker=breaker)

    with pytest.raises(PermissionDeniedError) as caught:
        await guard.run("GET", raises(driver.NoPermissionError(f"no {SECRET}")))

    assert SECRET not in str(caught.value)
    assert isinstance(caught.value.__cause__, driver.NoPermissionError)
    assert breaker.stats()["failures"] == 0


@pytest.mark.parametrize(
    "error", [driver.ConnectionError(SECRET), driver.TimeoutError(SECRET), ConnectionResetError(SECRET)]
)
async def test_unreachable_server_counts_and_opens_the_circuit(breaker: CircuitBreaker, error: Exception) -> None:
    told: list[str] = []
    guard = new_guard(breaker=breaker, on_failure=lambda: told.append("failed"))

    for _ in range(3):
        with pytest.raises(UnavailableError) as caught:
            await guard.run("GET", raises(error))
        assert caught.value.__cause__ is error
        assert SECRET not in str(caught.value)

    assert breaker.state == "open"
    assert len(told) == 3


async def test_open_circuit_refuses_before_anything_is_begun(breaker: CircuitBreaker) -> None:
    guard = new_guard(breaker=breaker)
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await guard.run("GET", raises(driver.ConnectionError()))
    begun = False

    async def exchange() -> None:
        nonlocal begun
        begun = True

    with pytest.raises(CircuitOpenError) as caught:
        await guard.run("GET", exchange)

    assert caught.value.retry_after == pytest.approx(10.0)
    assert not begun


async def test_open_circuit_refuses_although_no_connection_is_free(breaker: CircuitBreaker) -> None:
    guard = new_guard(limit=1, timeout=LONG, breaker=breaker)
    holder = asyncio.create_task(guard.run("BLPOP", forever))
    await eventually(lambda: guard.stats(0)["in_use"])
    for _ in range(3):
        with breaker.attempt() as attempt:
            attempt.failed()

    with pytest.raises(CircuitOpenError):
        await guard.run("GET", answer)

    holder.cancel()
    await asyncio.gather(holder, return_exceptions=True)


async def test_circuit_that_opens_during_the_wait_refuses(breaker: CircuitBreaker) -> None:
    guard = new_guard(limit=1, timeout=LONG, breaker=breaker)
    holder = asyncio.create_task(guard.run("BLPOP", forever))
    await eventually(lambda: guard.stats(0)["in_use"])
    waiter = asyncio.create_task(guard.run("GET", answer))
    await eventually(lambda: guard.stats(0)["waiting"])
    for _ in range(3):
        with breaker.attempt() as attempt:
            attempt.failed()

    holder.cancel()
    found = await asyncio.gather(holder, waiter, return_exceptions=True)

    assert isinstance(found[1], CircuitOpenError)
    assert guard.stats(0)["in_use"] == 0


async def test_only_one_exchange_probes_and_its_success_closes(breaker: CircuitBreaker, clock: Clock) -> None:
    guard = new_guard(timeout=LONG, breaker=breaker)
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await guard.run("GET", raises(driver.ConnectionError()))
    clock.pass_by(10.0)
    replied = asyncio.Event()

    async def probe() -> str:
        await replied.wait()
        return "PONG"

    probing = asyncio.create_task(guard.run("PING", probe))
    await eventually(lambda: breaker.state == "half_open")
    others = await asyncio.gather(*(guard.run("GET", answer) for _ in range(20)), return_exceptions=True)
    replied.set()

    assert {type(other) for other in others} == {CircuitOpenError}
    assert await probing == "PONG"
    assert breaker.stats()["state"] == "closed"


async def test_no_more_exchanges_are_under_way_than_there_are_connections(breaker: CircuitBreaker) -> None:
    guard = new_guard(limit=3, timeout=LONG, breaker=breaker)
    go = asyncio.Event()
    under_way = most = 0

    async def exchange() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await go.wait()
        under_way -= 1

    tasks = [asyncio.create_task(guard.run("GET", exchange)) for _ in range(20)]
    await eventually(lambda: guard.stats(3)["waiting"] == 17)
    assert guard.stats(3) == pool_stats(3, 3, in_use=3, waiting=17)
    go.set()
    await asyncio.gather(*tasks)

    assert most == 3
    assert guard.stats(3) == pool_stats(3, 3)


@pytest.mark.parametrize("by", ["the cap", "the deadline"])
async def test_wait_for_a_connection_is_bounded_and_no_failure(
    breaker: CircuitBreaker, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr(deadline_module, "GRACE", LONG)
    guard = new_guard(limit=1, timeout=SHORT if by == "the cap" else LONG, breaker=breaker)
    await guard._admission.enter(LONG)

    with pytest.raises(OverloadedError) as caught:
        async with deadline("get_fact", LONG if by == "the cap" else SHORT):
            await guard.run("GET", answer)

    assert caught.value.resource == "Redis pool 'main'"
    assert caught.value.retry_after > 0
    assert breaker.stats()["failures"] == 0
    assert guard.stats(0)["waiting"] == 0
    guard._admission.leave()
    assert await guard.run("GET", answer) == "PONG"


async def test_cancelled_wait_for_a_connection_leaves_nothing_behind(breaker: CircuitBreaker) -> None:
    guard = new_guard(limit=1, timeout=LONG, breaker=breaker)
    holder = asyncio.create_task(guard.run("BLPOP", forever))
    await eventually(lambda: guard.stats(0)["in_use"])
    waiter = asyncio.create_task(guard.run("GET", answer))
    await eventually(lambda: guard.stats(0)["waiting"])

    waiter.cancel()
    holder.cancel()
    found = await asyncio.gather(holder, waiter, return_exceptions=True)

    assert [type(one) for one in found] == [asyncio.CancelledError] * 2
    assert guard.stats(0) == pool_stats(0, 1)
    assert await guard.run("GET", answer) == "PONG"
    assert breaker.stats()["failures"] == 0


@pytest.mark.parametrize("error", [CircuitOpenError("other", 3.0), OverloadedError("other")])
async def test_refusal_of_a_nested_guard_passes_and_counts_as_nothing(
    breaker: CircuitBreaker, error: UnavailableError
) -> None:
    guard = new_guard(breaker=breaker)
    with pytest.raises(UnavailableError):
        await guard.run("GET", raises(driver.ConnectionError()))

    with pytest.raises(type(error)) as caught:
        await guard.run("GET", raises(error))

    assert caught.value is error
    assert breaker.stats()["failures"] == 1
