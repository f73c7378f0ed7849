"""Admission: so many at once, so many waiting, the others refused."""

from __future__ import annotations

import asyncio

import pytest

from knowledge_base.connection import deadline as deadline_module
from knowledge_base.connection.admission import Admission
from knowledge_base.connection.deadline import deadline
from knowledge_base.errors import OperationTimeoutError, OverloadedError
from tests.support.polling import eventually

SHORT = 0.02
LONG = 100.0


async def visit(admission: Admission, until: asyncio.Event, order: list[int] | None = None, number: int = 0) -> None:
    async with admission.place(LONG):
        if order is not None:
            order.append(number)
        await until.wait()


async def test_no_more_are_inside_than_there_are_places_and_the_others_wait_in_order() -> None:
    admission, go, order = Admission("searches", 2), asyncio.Event(), list[int]()

    tasks = [asyncio.create_task(visit(admission, go, order, number)) for number in range(6)]
    await eventually(lambda: admission.waiting == 4)
    assert (admission.in_use, order) == (2, [0, 1])
    go.set()
    await asyncio.gather(*tasks)

    assert order == [0, 1, 2, 3, 4, 5]
    assert (admission.in_use, admission.waiting) == (0, 0)


async def test_who_would_wait_behind_too_many_is_refused() -> None:
    admission, go = Admission("searches", 1, waiting=1), asyncio.Event()
    tasks = [asyncio.create_task(visit(admission, go)) for _ in range(2)]
    await eventually(lambda: admission.waiting == 1)

    with pytest.raises(OverloadedError) as caught:
        await admission.enter(LONG)

    assert caught.value.resource == "searches"
    go.set()
    await asyncio.gather(*tasks)
    await admission.enter(LONG)
    assert admission.in_use == 1


async def test_without_a_queue_nobody_waits() -> None:
    admission = Admission("searches", 1, waiting=0)
    await admission.enter(LONG)

    with pytest.raises(OverloadedError):
        await admission.enter(LONG)

    admission.leave()
    await admission.enter(LONG)


async def test_wait_is_bounded() -> None:
    admission = Admission("searches", 1)
    await admission.enter(LONG)

    with pytest.raises(OverloadedError):
        await admission.enter(SHORT)

    assert (admission.in_use, admission.waiting) == (1, 0)


async def test_wait_spends_the_callers_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline_module, "GRACE", LONG)
    admission = Admission("searches", 1)
    await admission.enter(LONG)

    with pytest.raises(OverloadedError):
        async with deadline("search", SHORT) as call:
            await admission.enter(LONG)

    assert call.step == "the wait for searches"


async def test_wait_of_a_call_that_is_late_is_not_begun() -> None:
    admission = Admission("searches", 1)
    await admission.enter(LONG)

    async with deadline("search", LONG) as call:
        call.expires -= 2 * LONG
        with pytest.raises(OperationTimeoutError):
            await admission.enter(LONG)

    assert admission.waiting == 0


async def test_cancelled_wait_leaves_nothing_behind() -> None:
    admission, go = Admission("searches", 1), asyncio.Event()
    holder = asyncio.create_task(visit(admission, go))
    waiter = asyncio.create_task(visit(admission, go))
    await eventually(lambda: admission.waiting == 1)

    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    go.set()
    await holder

    assert (admission.in_use, admission.waiting) == (0, 0)


async def test_place_is_given_back_after_an_error() -> None:
    admission = Admission("searches", 1)

    async def fail() -> None:
        async with admission.place(LONG):
            assert admission.in_use == 1
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await fail()

    assert admission.in_use == 0
