"""What travels together, when it leaves, and how much of it is under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

import pytest

from knowledge_base.connection.batching import Batcher, Lane
from tests.support.instant_loop import instantly
from tests.support.scripted_send import ScriptedSend, answer_to, turns

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


async def test_what_is_asked_for_in_one_turn_travels_together(send: ScriptedSend) -> None:
    lane = Lane[str, str](2, 32)
    batcher = new_batcher(send, [lane])
    send.release()

    answers = await asyncio.gather(*(ask(batcher, lane, item) for item in "abc"))

    assert answers == [["<a>"], ["<b>"], ["<c>"]]
    assert send.sent == [["a", "b", "c"]]


async def test_no_batch_is_larger_than_agreed(send: ScriptedSend) -> None:
    lane = Lane[str, str](10, 2)
    batcher = new_batcher(send, [lane])
    send.release()

    answers = await batcher.results(lane, "abcde", LONG)

    assert answers == [answer_to(item) for item in "abcde"]
    assert send.sent == [["a", "b"], ["c", "d"], ["e"]]


@pytest.mark.parametrize(
    ("items", "sizes"), [(5, [3, 2]), (64, [32, 32]), (65, [17, 24, 24]), (100, [25, 25, 25, 25]), (1, [1])]
)
async def test_places_share_what_waits_evenly_although_it_takes_several_turns(
    send: ScriptedSend, items: int, sizes: list[int]
) -> None:
    lane = Lane[str, str](2, 32, evenly=True)
    batcher = new_batcher(send, [lane])
    send.release()

    await batcher.results(lane, [f"{number}" for number in range(items)], LONG)

    assert [len(batch) for batch in send.sent] == sizes


async def test_only_items_of_one_kind_travel_together(send: ScriptedSend) -> None:
    lane = Lane[str, str](10, 2, kind=str.isdigit)
    batcher = new_batcher(send, [lane])
    send.release()

    assert await batcher.results(lane, "a1b2c", LONG) == [answer_to(item) for item in "a1b2c"]
    assert send.sent == [["a", "b"], ["1", "2"], ["c"]]


async def test_item_that_a_caller_repeats_travels_once(send: ScriptedSend) -> None:
    lane = Lane[str, str](10, 2)
    batcher = new_batcher(send, [lane])
    send.release()

    assert await batcher.results(lane, "abaab", LONG) == ["<a>", "<b>", "<a>", "<a>", "<b>"]
    assert send.sent == [["a", "b"]]


def test_item_alone_leaves_after_the_agreed_wait() -> None:
    async def test() -> None:
        send, lane = ScriptedSend(), Lane[str, str](10, 3)
        batcher = new_batcher(send, [lane], wait=WAIT)
        send.release()

        await batcher.results(lane, ["a"], LONG)

        assert [batch.at for batch in send.batches] == [WAIT]

    instantly(test)


def test_items_that_come_within_the_first_ones_wait_leave_with_it() -> None:
    async def test() -> None:
        send, lane = ScriptedSend(), Lane[str, str](10, 32)
        batcher = new_batcher(send, [lane], wait=WAIT)
        send.release()

        asked = []
        for item in "abcd":
            asked.append(ask(batcher, lane, item))
            await asyncio.sleep(WAIT * 0.4)
        await asyncio.gather(*asked)

        assert send.sent == [["a", "b", "c"], ["d"]]
        assert [batch.at for batch in send.batches] == pytest.approx([WAIT, WAIT * 2.2])

    instantly(test)


def test_full_batch_does_not_wait() -> None:
    async def test() -> None:
        send, lane = ScriptedSend(), Lane[str, str](10, 3)
        batcher = new_batcher(send, [lane], wait=WAIT)
        send.release()

        await asyncio.gather(*(ask(batcher, lane, item) for item in "abcd"))

        assert [(batch.items, batch.at) for batch in send.batches] == [(["a", "b", "c"], 0.0), (["d"], WAIT)]

    instantly(test)


def test_item_that_fills_a_batch_ends_its_wait() -> None:
    async def test() -> None:
        send, lane = ScriptedSend(), Lane[str, str](10, 2)
        batcher = new_batcher(send, [lane], wait=WAIT)
        send.release()

        first = ask(batcher, lane, "a")
        await asyncio.sleep(WAIT / 2)
        await ask(batcher, lane, "b")
        await first

        assert [(batch.items, batch.at) for batch in send.batches] == [(["a", "b"], WAIT / 2)]

    instantly(test)


def test_item_still_leaves_in_time_when_the_one_before_it_is_taken_back() -> None:
    async def test() -> None:
        send, lane = ScriptedSend(), Lane[str, str](10, 32)
        batcher = new_batcher(send, [lane], wait=WAIT)
        send.release()
        first = ask(batcher, lane, "a")
        await asyncio.sleep(WAIT / 2)
        second = ask(batcher, lane, "b")
        await turns()

        first.cancel()
        await second

        assert [(batch.items, batch.at) for batch in send.batches] == [(["b"], WAIT * 1.5)]

    instantly(test)


def test_item_of_one_lane_does_not_put_off_that_of_another() -> None:
    async def test() -> None:
        send, first, second = ScriptedSend(), Lane[str, str](10, 32), Lane[str, str](10, 32)
        batcher = new_batcher(send, [first, second], wait=WAIT)
        send.release()

        asked = ask(batcher, second, "a")
        await asyncio.sleep(WAIT / 2)
        await asyncio.gather(asked, ask(batcher, first, "b"))

        assert [(batch.items, batch.at) for batch in send.batches] == [(["a"], WAIT), (["b"], WAIT * 1.5)]

    instantly(test)


def test_items_that_waited_for_a_place_leave_together_as_soon_as_there_is_one() -> None:
    async def test() -> None:
        send, lane = ScriptedSend(), Lane[str, str](1, 32)
        batcher = new_batcher(send, [lane], wait=WAIT)
        first = ask(batcher, lane, "a")
        held = (await send.begun(1))[0]
        others = [ask(batcher, lane, item) for item in "bcd"]
        await asyncio.sleep(10 * WAIT)

        held.answer()
        await turns()

        assert send.sent == [["a"], ["b", "c", "d"]]
        assert send.batches[1].at == asyncio.get_running_loop().time()
        send.release()
        await asyncio.gather(first, *others)

    instantly(test)


def test_item_that_begins_to_wait_as_a_batch_ends_still_leaves_in_time() -> None:
    async def test() -> None:
        send, lane = ScriptedSend(), Lane[str, str](1, 32)
        batcher = new_batcher(send, [lane], wait=WAIT)
        first = ask(batcher, lane, "a")
        held = (await send.begun(1))[0]
        second = ask(batcher, lane, "b")
        await asyncio.sleep(WAIT / 2)

        held.answer()
        send.release()
        await asyncio.gather(first, second)

        assert send.batches[1].at == 2 * WAIT

    instantly(test)


async def test_earlier_lane_goes_first(send: ScriptedSend) -> None:
    first, second = Lane[str, str](1, 2), Lane[str, str](1, 2)
    batcher = new_batcher(send, [first, second], at_once=1)
    held = ask(batcher, second, "held")
    await send.begun(1)
    patient = ask(batcher, second, *"abcd")
    urgent = ask(batcher, first, *"xyz")
    await turns()

    send.release()
    await asyncio.gather(held, patient, urgent)

    assert send.sent == [["held"], ["x", "y"], ["z"], ["a", "b"], ["c", "d"]]


async def test_places_that_a_lane_may_not_take_stay_free_for_the_other(send: ScriptedSend) -> None:
    first, second = Lane[str, str](3, 1), Lane[str, str](2, 1)
    batcher = new_batcher(send, [first, second], at_once=3)
    patient = ask(batcher, second, *"abcd")
    await turns()
    assert send.sent == [["a"], ["b"]]

    urgent = ask(batcher, first, *"xyz")
    await turns()

    assert send.sent == [["a"], ["b"], ["x"]]
    assert (batcher.under_way, batcher.waiting) == (3, 4)
    send.release()
    await asyncio.gather(patient, urgent)
    assert send.most == 3


async def test_each_item_has_its_own_outcome(send: ScriptedSend) -> None:
    lane = Lane[str, str](1, 32)
    batcher = new_batcher(send, [lane])
    bad = ValueError("b")
    asked = [ask(batcher, lane, item) for item in "abc"]
    (batch,) = await send.begun(1)

    batch.answer("<a>", bad, "<c>")
    outcomes = await asyncio.gather(*asked, return_exceptions=True)

    assert outcomes == [["<a>"], bad, ["<c>"]]


async def test_batch_that_fails_is_told_to_everyone_in_it_and_to_nobody_else(send: ScriptedSend) -> None:
    lane = Lane[str, str](2, 2)
    batcher = new_batcher(send, [lane])
    asked = [ask(batcher, lane, item) for item in "abcd"]
    first, second = await send.begun(2)
    away = OSError("away")

    first.fail(away)
    await turns()
    assert [one.done() for one in asked] == [True, True, False, False]
    second.answer()

    assert await asyncio.gather(*asked, return_exceptions=True) == [away, away, ["<c>"], ["<d>"]]


async def test_failed_item_ends_the_callers_wait_for_others(send: ScriptedSend) -> None:
    lane = Lane[str, str](2, 1)
    batcher = new_batcher(send, [lane])
    many = ask(batcher, lane, *"abcd")
    first, second = await send.begun(2)

    first.fail(OSError("away"))
    with pytest.raises(OSError, match="away"):
        await many
    await turns()

    assert second.cancelled
    assert send.under_way == 0
    assert (batcher.under_way, batcher.waiting) == (0, 0)
