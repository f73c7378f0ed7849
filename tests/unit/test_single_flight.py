"""What many ask for is fetched once, for as long as one of them waits."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from knowledge_base.connection.batching import Batcher, Lane
from knowledge_base.errors import OperationTimeoutError
from tests.support.polling import eventually
from tests.support.scripted_send import Held, ScriptedSend, turns

LONG = 100.0
SHORT = 0.05
PLACES = 2


class Flights:
    """A batcher of strings, with a batch for each item unless told otherwise."""

    def __init__(self, send: ScriptedSend, batch: int = 1) -> None:
        self.lane = Lane[str, str](PLACES, batch)
        self.batcher = Batcher("the sink", send, [self.lane], at_once=PLACES, wait=0.0, most_waiting=100)

    def ask(self, *items: str, limit: float = LONG) -> asyncio.Task[list[str]]:
        return asyncio.create_task(self.batcher.results(self.lane, items, limit))


@pytest.fixture
async def send() -> AsyncIterator[ScriptedSend]:
    one = ScriptedSend()
    yield one
    one.release()
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})


@pytest.fixture
def flights(send: ScriptedSend) -> Flights:
    return Flights(send)


async def cancel(*tasks: asyncio.Task[list[str]]) -> None:
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)


async def occupy(flights: Flights, send: ScriptedSend) -> tuple[list[asyncio.Task[list[str]]], Sequence[Held]]:
    """Takes every place."""
    tasks = [flights.ask(f"occupies {number}") for number in range(PLACES)]
    return tasks, await send.begun(PLACES)


async def test_who_asks_for_what_is_under_way_joins(flights: Flights, send: ScriptedSend) -> None:
    first = flights.ask("a")
    (batch,) = await send.begun(1)

    others = [flights.ask("a") for _ in range(99)]
    await turns()
    batch.answer()

    assert await asyncio.gather(first, *others) == [["<a>"]] * 100
    assert send.sent == [["a"]]


async def test_who_asks_for_what_waits_joins(flights: Flights, send: ScriptedSend) -> None:
    occupying, _ = await occupy(flights, send)
    asked = [flights.ask("a") for _ in range(10)]
    await turns()

    send.release()

    assert await asyncio.gather(*asked) == [["<a>"]] * 10
    assert send.sent[PLACES:] == [["a"]]
    await asyncio.gather(*occupying)


async def test_some_of_what_is_asked_for_may_be_under_way_already(flights: Flights, send: ScriptedSend) -> None:
    first = flights.ask("a")
    await send.begun(1)
    second = flights.ask("b", "a", "c")
    await send.begun(2)

    send.release()

    assert await second == ["<b>", "<a>", "<c>"]
    assert await first == ["<a>"]
    assert send.sent == [["a"], ["b"], ["c"]]


async def test_what_is_done_is_fetched_again(flights: Flights, send: ScriptedSend) -> None:
    send.release()

    assert await flights.ask("a") == await flights.ask("a") == ["<a>"]

    assert send.sent == [["a"], ["a"]]


async def test_what_failed_is_fetched_again(flights: Flights, send: ScriptedSend) -> None:
    first = flights.ask("a")
    (batch,) = await send.begun(1)
    batch.fail(OSError("away"))
    with pytest.raises(OSError, match="away"):
        await first

    send.release()

    assert await flights.ask("a") == ["<a>"]


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_one_who_leaves_does_not_disturb_the_others(flights: Flights, send: ScriptedSend, leaver: int) -> None:
    asked = [flights.ask("a") for _ in range(3)]
    (batch,) = await send.begun(1)

    await cancel(asked.pop(leaver))
    await turns()
    batch.answer()

    assert await asyncio.gather(*asked) == [["<a>"]] * 2
    assert not batch.cancelled


async def test_one_who_is_late_does_not_disturb_the_others(flights: Flights, send: ScriptedSend) -> None:
    late, patient = flights.ask("a", limit=SHORT), flights.ask("a")
    (batch,) = await send.begun(1)

    with pytest.raises(OperationTimeoutError):
        await late
    await turns()
    batch.answer()

    assert await patient == ["<a>"]
    assert not batch.cancelled


async def test_batch_is_cancelled_only_when_nobody_waits_for_any_of_its_items(send: ScriptedSend) -> None:
    flights = Flights(send, batch=3)
    asked = [flights.ask(item) for item in "abc"]
    (batch,) = await send.begun(1)

    await cancel(asked[0], asked[2])
    await turns()
    assert not batch.cancelled
    await cancel(asked[1])
    await turns()

    assert batch.cancelled
    assert flights.batcher.under_way == 0


async def test_item_that_a_caller_repeats_leaves_with_it(flights: Flights, send: ScriptedSend) -> None:
    asked = flights.ask("a", "a", "a")
    (batch,) = await send.begun(1)

    await cancel(asked)
    await turns()

    assert batch.cancelled


async def test_item_that_nobody_waits_for_any_more_never_travels(flights: Flights, send: ScriptedSend) -> None:
    occupying, _ = await occupy(flights, send)
    gone, stays = flights.ask("gone"), flights.ask("stays")
    await turns()

    await cancel(gone)
    assert flights.batcher.waiting == 1
    send.release()
    await asyncio.gather(stays, *occupying)

    assert send.sent[PLACES:] == [["stays"]]


@pytest.mark.parametrize("cleanup", [0.0, SHORT])
async def test_who_asks_after_all_have_left_is_not_given_the_cancelled_request(
    flights: Flights, send: ScriptedSend, cleanup: float
) -> None:
    send.cleanup = cleanup
    first = flights.ask("a")
    await send.begun(1)
    await cancel(first)

    second = flights.ask("a")
    await send.begun(2)
    await turns()
    send.release()

    assert await second == ["<a>"]
    assert send.sent == [["a"], ["a"]]


async def test_who_asks_in_the_turn_in_which_the_last_one_leaves_is_answered(
    flights: Flights, send: ScriptedSend
) -> None:
    first = flights.ask("a")
    await send.begun(1)

    first.cancel()
    second = flights.ask("a")
    await turns()
    send.release()

    assert await second == ["<a>"]
    await cancel(first)


async def test_request_that_takes_long_to_be_cancelled_keeps_its_place(send: ScriptedSend) -> None:
    flights = Flights(send)
    send.cleanup = SHORT
    tasks, _ = await occupy(flights, send)
    await cancel(*tasks)

    third = flights.ask("c")
    await turns()

    assert (flights.batcher.under_way, len(send.batches)) == (PLACES, PLACES)
    send.release()
    assert await third == ["<c>"]
    assert send.most == PLACES


@pytest.mark.parametrize("turns_before", range(8))
async def test_caller_who_leaves_at_any_moment_gives_the_place_back(
    flights: Flights, send: ScriptedSend, turns_before: int
) -> None:
    for _ in range(PLACES):
        asked = flights.ask("a")
        await turns(turns_before)
        await cancel(asked)
        await turns()

    assert (flights.batcher.under_way, flights.batcher.waiting) == (0, 0)
    send.release()
    assert await flights.ask("b", limit=SHORT) == ["<b>"]


@pytest.mark.parametrize("turns_before", range(8))
async def test_caller_who_leaves_at_any_moment_does_not_hold_up_its_neighbours(
    send: ScriptedSend, turns_before: int
) -> None:
    flights = Flights(send, batch=2)
    send.release()

    leaver, neighbour = flights.ask("a"), flights.ask("b")
    await turns(turns_before)
    leaver.cancel()

    assert await neighbour == ["<b>"]
    await asyncio.gather(leaver, return_exceptions=True)
    await turns()
    assert flights.batcher.under_way == 0


class Weak:
    """An item that tells when nothing holds it any more."""


async def test_nothing_is_kept_of_what_is_done() -> None:
    async def send(items: Sequence[Weak], _: Any) -> list[Weak | Exception]:
        if len(items) > 1:
            raise OSError("away")
        return list(items)

    lane = Lane[Weak, Weak](1, 2)
    batcher = Batcher("the sink", send, [lane], at_once=1, wait=0.0, most_waiting=100)
    done, failed, also_failed, gone = (Weak() for _ in range(4))
    left = [weakref.ref(item) for item in (done, failed, also_failed, gone)]

    assert await batcher.results(lane, [done], LONG) == [done]
    with pytest.raises(OSError, match="away"):
        await batcher.results(lane, [failed, also_failed], LONG)
    leaver = asyncio.create_task(batcher.results(lane, [gone], LONG))
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    await turns()
    del done, failed, also_failed, gone, leaver
    gc.collect()

    assert [ref() for ref in left] == [None] * 4
