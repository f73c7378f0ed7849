"""Who asks a batcher and gets no answer: too many, too late, or after its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeAlias

import pytest

from knowledge_base.connection.batching import Batcher, Lane
from knowledge_base.connection.deadline import Deadline, current_deadline, deadline
from knowledge_base.errors import OperationTimeoutError, OverloadedError, UnavailableError
from tests.support.instant_loop import instantly
from tests.support.scripted_send import ScriptedSend, turns

StringLane: TypeAlias = "Lane[str, str]"
StringBatcher: TypeAlias = "Batcher[str, str]"

LONG = 100.0
SHORT = 0.05
WAIT = 0.5


@pytest.fixture
async def send() -> AsyncIterator[ScriptedSend]:
    one = ScriptedSend()
    yield one
    one.release()
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}


def new_batcher(
    send: ScriptedSend, lanes: list[StringLane], *, at_once: int = 10, wait: float = 0.0, waiting: int = 100
) -> StringBatcher:
    return Batcher("the sink", send, lanes, at_once=at_once, wait=wait, most_waiting=waiting)


def ask(batcher: StringBatcher, lane: StringLane, *items: str, limit: float = LONG) -> asyncio.Task[list[str]]:
    return asyncio.create_task(batcher.results(lane, items, limit))


async def test_too_many_are_refused_at_once(send: ScriptedSend) -> None:
    lane = Lane[str, str](1, 2)
    batcher = new_batcher(send, [lane], waiting=2)
    running = ask(batcher, lane, "a")
    await send.begun(1)
    waiting = ask(batcher, lane, *"bcde")
    await turns()

    with pytest.raises(OverloadedError, match="the sink"):
        await batcher.results(lane, ["f"], LONG)

    assert (batcher.under_way, batcher.waiting) == (1, 2)
    send.release()
    await asyncio.gather(running, waiting)
    assert await batcher.results(lane, ["f"], LONG) == ["<f>"]


async def test_turn_that_does_not_come_in_time_is_told_apart_from_a_late_answer(send: ScriptedSend) -> None:
    lane = Lane[str, str](1, 1)
    batcher = new_batcher(send, [lane])
    late = ask(batcher, lane, "a", limit=SHORT)
    await send.begun(1)
    keeper = ask(batcher, lane, "a")

    with pytest.raises(OverloadedError):
        await batcher.results(lane, ["b"], SHORT)
    with pytest.raises(OperationTimeoutError) as caught:
        await late

    assert (caught.value.operation, caught.value.budget) == ("the sink", SHORT)
    assert batcher.waiting == 0
    send.release()
    assert await keeper == ["<a>"]
    assert send.sent == [["a"]]


async def test_callers_deadline_ends_the_wait_and_names_the_call(send: ScriptedSend) -> None:
    lane = Lane[str, str](1, 1)
    batcher = new_batcher(send, [lane])

    with pytest.raises(OperationTimeoutError) as caught:
        async with deadline("search", SHORT):
            await batcher.results(lane, ["a"], LONG)

    assert (caught.value.operation, caught.value.spent_in) == ("search", "the sink")


async def test_batch_is_free_of_the_deadline_of_whoever_came_first() -> None:
    deadlines: list[Deadline | None] = []

    async def send(items: Sequence[str], _: Any) -> list[str | Exception]:
        deadlines.append(current_deadline())
        return list(items)

    lane = Lane[str, str](1, 2)
    batcher = Batcher("the sink", send, [lane], at_once=1, wait=0.0, most_waiting=100)
    async with deadline("search", LONG):
        await batcher.results(lane, ["a"], LONG)
        await batcher.results(lane, ["b", "c", "d"], LONG)

    assert deadlines == [None] * 3


async def test_answer_that_is_there_when_the_caller_looks_is_not_too_late(send: ScriptedSend) -> None:
    lane = Lane[str, str](1, 1)
    batcher = new_batcher(send, [lane])
    asked = ask(batcher, lane, "a", limit=SHORT)
    (batch,) = await send.begun(1)

    batch.answer()
    # Whatever holds up the loop lets the answer and the timeout come in the same turn.
    time.sleep(2 * SHORT)  # noqa: ASYNC251 - on purpose

    assert await asked == ["<a>"]


async def test_close_tells_everyone_and_leaves_nothing(send: ScriptedSend) -> None:
    before = asyncio.all_tasks()
    lane = Lane[str, str](2, 1)
    batcher = new_batcher(send, [lane])
    asked = [ask(batcher, lane, item) for item in "abcd"]
    await send.begun(2)

    await batcher.close()
    outcomes: list[Any] = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 4
    assert all(batch.cancelled for batch in send.batches)
    assert (len(send.batches), batcher.under_way, batcher.waiting) == (2, 0, 0)
    assert asyncio.all_tasks() == before
    with pytest.raises(UnavailableError, match="closed"):
        await batcher.results(lane, ["e"], LONG)


async def test_close_tells_those_who_wait_for_company(send: ScriptedSend) -> None:
    lane = Lane[str, str](2, 2)
    batcher = new_batcher(send, [lane], wait=LONG)
    asked = ask(batcher, lane, "a")
    await turns()

    await batcher.close()

    with pytest.raises(UnavailableError, match="closed"):
        await asked
    assert send.sent == []


def test_close_leaves_no_timer() -> None:
    async def test() -> None:
        send, lane = ScriptedSend(), Lane[str, str](1, 2)
        batcher = new_batcher(send, [lane], wait=WAIT)
        loop: Any = asyncio.get_running_loop()
        first = ask(batcher, lane, "a")
        (batch,) = await send.begun(1)
        second = ask(batcher, lane, "b")
        await turns()
        batch.answer()
        await turns()

        await batcher.close()
        await asyncio.gather(first, second, return_exceptions=True)

        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []

    instantly(test)
