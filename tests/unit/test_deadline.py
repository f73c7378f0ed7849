"""The deadline of a call: what it bounds, what it says, and what it leaves alone."""

from __future__ import annotations

import asyncio

import pytest

from knowledge_base.connection import deadline as deadline_module
from knowledge_base.connection.deadline import current_deadline, deadline, enter_step, share_of_deadline
from knowledge_base.errors import OperationTimeoutError

SHORT = 0.02
LONG = 100.0


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline_module, "GRACE", 0.001)


async def forever() -> None:
    await asyncio.Event().wait()


def test_step_without_a_deadline_gets_its_limit() -> None:
    assert current_deadline() is None
    assert enter_step("Redis GET", 2.0) == 2.0


async def late(operation: str, step: str) -> None:
    """A call whose budget is spent in a step."""
    async with deadline(operation, SHORT):
        enter_step(step, 2.0)
        await forever()


async def test_step_gets_its_limit_or_what_is_left() -> None:
    async with deadline("search", LONG) as call:
        assert enter_step("Redis GET", 2.0) == 2.0
        left = enter_step("Redis GET", 10 * LONG)
        assert LONG - 60 < left <= LONG
        assert call.step == "Redis GET"
        assert call.remaining <= left


async def test_deadline_is_current_only_inside() -> None:
    async with deadline("search", LONG) as call:
        assert current_deadline() is call

    assert current_deadline() is None


async def test_deadline_is_gone_after_an_error() -> None:
    with pytest.raises(ValueError, match="other"):
        async with deadline("search", LONG):
            raise ValueError("other")

    assert current_deadline() is None


async def test_spent_budget_names_operation_budget_and_step(short_grace: None) -> None:
    with pytest.raises(OperationTimeoutError) as caught:
        await late("search", "Redis FT.SEARCH")

    assert (caught.value.operation, caught.value.budget, caught.value.spent_in) == ("search", SHORT, "Redis FT.SEARCH")


async def test_step_of_a_call_that_is_late_is_not_begun() -> None:
    async with deadline("search", LONG) as call:
        call.expires -= 2 * LONG
        assert call.remaining < 0

        with pytest.raises(OperationTimeoutError) as caught:
            enter_step("Redis GET", 2.0)

    assert (caught.value.operation, caught.value.spent_in) == ("search", "Redis GET")


async def test_step_may_report_its_own_timeout_first() -> None:
    telling = OperationTimeoutError("Redis GET", 0.001, "Redis GET")

    with pytest.raises(OperationTimeoutError) as caught:
        async with deadline("search", LONG):
            raise telling

    assert caught.value is telling


async def test_inner_deadline_cannot_outlast_the_outer_one(short_grace: None) -> None:
    async with deadline("outer", LONG) as outer, deadline("inner", 10 * LONG) as inner:
        assert inner.expires == outer.expires
        assert enter_step("Redis GET", 10 * LONG) <= LONG

    with pytest.raises(OperationTimeoutError):
        async with deadline("outer", SHORT), deadline("inner", LONG):
            await forever()


async def test_inner_deadline_that_ends_earlier_leaves_the_outer_one_whole(short_grace: None) -> None:
    async with deadline("outer", LONG) as outer:
        with pytest.raises(OperationTimeoutError) as caught:
            await late("inner", "Redis GET")

        assert caught.value.operation == "inner"
        assert current_deadline() is outer
        assert outer.remaining > 0
        assert enter_step("Redis SET", 2.0) == 2.0


async def test_inner_deadline_does_not_claim_a_budget_that_it_never_had() -> None:
    async with deadline("outer", 1.0) as outer, deadline("inner", LONG) as inner:
        outer.expires -= LONG
        inner.expires -= LONG

        with pytest.raises(OperationTimeoutError) as caught:
            enter_step("Redis GET", 2.0)

    assert caught.value.budget <= 1.0


async def test_callers_own_cancellation_passes_through() -> None:
    inside = asyncio.Event()

    async def call() -> None:
        async with deadline("search", LONG):
            inside.set()
            await forever()

    task = asyncio.create_task(call())
    await inside.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_callers_own_timeout_stays_the_callers() -> None:
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(SHORT), deadline("search", LONG):
            await forever()

    assert not isinstance(caught.value, OperationTimeoutError)


async def test_timeout_error_of_other_code_is_not_taken_for_the_deadline() -> None:
    other = TimeoutError("the handshake was not done in time")

    with pytest.raises(TimeoutError) as caught:
        async with deadline("search", LONG):
            raise other

    assert caught.value is other


async def test_other_error_passes_through() -> None:
    other = ValueError("other")

    with pytest.raises(ValueError, match="other") as caught:
        async with deadline("search", LONG):
            raise other

    assert caught.value is other


async def test_share_without_a_deadline_bounds_nothing() -> None:
    async with share_of_deadline("searching by meaning", 0.5):
        assert current_deadline() is None


async def test_share_takes_its_part_of_what_is_left() -> None:
    async with deadline("search", LONG) as outer:
        async with share_of_deadline("searching by meaning", 0.25):
            stage = current_deadline()
            assert stage is not None
            assert stage is not outer
            assert stage.operation == "searching by meaning"
            assert 0.2 * LONG < stage.budget <= 0.25 * LONG

        assert current_deadline() is outer


async def test_spent_share_leaves_time_for_what_follows(short_grace: None) -> None:
    async with deadline("search", LONG) as outer:
        with pytest.raises(OperationTimeoutError) as caught:
            async with share_of_deadline("searching by meaning", SHORT / LONG):
                await forever()

        assert caught.value.operation == "searching by meaning"
        assert outer.remaining > 0


async def test_share_of_nothing_is_spent_at_once(short_grace: None) -> None:
    async with deadline("search", LONG) as outer:
        outer.expires -= 2 * LONG

        with pytest.raises(OperationTimeoutError):
            async with share_of_deadline("searching by meaning", 0.5):
                await forever()


async def test_tasks_started_inside_share_the_deadline() -> None:
    async def seen() -> object:
        return current_deadline()

    async with deadline("search", LONG) as call:
        task = asyncio.create_task(seen())

    assert await task is call
    assert current_deadline() is None
