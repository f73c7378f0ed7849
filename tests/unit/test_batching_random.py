"""Callers who come, share, leave and time out at random: each gets its own answer or is told why not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from knowledge_base.connection.batching import Batcher, Lane
from knowledge_base.errors import OperationTimeoutError, OverloadedError, UnavailableError
from tests.support.instant_loop import InstantLoop
from tests.support.scripted_send import answer_to, turns

AT_ONCE = 3
FOR_THE_SECOND = 2
BATCH = 2
ITEMS = 6
EXPECTED = (OSError, ValueError, OperationTimeoutError, OverloadedError, UnavailableError, asyncio.CancelledError)
FOREVER = 10_000.0

# Whole seconds, so that what could come in the same turn of the loop often does.
Seconds = st.integers(0, 4).map(float)


@dataclass(frozen=True)
class Caller:
    """When it comes, what it wants, and how long it stays; ``turns`` more than that of the loop."""

    lane: int
    items: tuple[int, ...]
    comes: float
    limit: float
    leaves: float | None
    turns: int


@dataclass(frozen=True)
class Sent:
    """What becomes of a batch."""

    seconds: float
    outcome: str
    cleanup: float


Callers = st.lists(
    st.builds(
        Caller,
        lane=st.integers(0, 1),
        items=st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=4).map(tuple),
        comes=Seconds,
        limit=Seconds.map(lambda seconds: seconds + 1),
        leaves=st.none() | Seconds,
        turns=st.integers(0, 6),
    ),
    min_size=1,
    max_size=12,
)
Script = st.lists(
    st.builds(
        Sent,
        seconds=Seconds,
        outcome=st.sampled_from(["answers", "answers", "fails", "refuses one", "is cancelled"]),
        cleanup=st.sampled_from([0.0, 0.0, 2.0]),
    ),
    max_size=12,
)


class World:
    """A batcher, what it sends to, and what went wrong."""

    def __init__(self, script: Sequence[Sent], wait: float) -> None:
        self.script = list(script)
        self.wrong: list[str] = []
        self.under_way = [0, 0]
        self.items_under_way: list[Any] = []
        self.lanes: list[Lane[Any, Any]] = [Lane(AT_ONCE, BATCH), Lane(FOR_THE_SECOND, BATCH)]
        self.batcher = Batcher("the sink", self.send, self.lanes, at_once=AT_ONCE, wait=wait, most_waiting=4)

    async def send(self, items: Sequence[Any], begun: Callable[[], None]) -> Sequence[Any]:
        lane = items[0][0]
        sent = self.script.pop(0) if self.script else Sent(1.0, "answers", 0.0)
        self.under_way[lane] += 1
        self._look(items)
        begun()
        try:
            await asyncio.sleep(sent.seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(sent.cleanup)
            raise
        finally:
            self.under_way[lane] -= 1
        if sent.outcome == "fails":
            raise OSError("away")
        if sent.outcome == "is cancelled":
            raise asyncio.CancelledError
        answers: list[Any] = [answer_to(item) for item in items]
        if sent.outcome == "refuses one":
            answers[-1] = ValueError(items[-1])
        return answers

    def _look(self, items: Sequence[Any]) -> None:
        if len(items) > BATCH or len(set(items)) < len(items) or len({item[0] for item in items}) > 1:
            self.wrong.append(f"a batch of {items}")
        if sum(self.under_way) > AT_ONCE or self.under_way[1] > FOR_THE_SECOND:
            self.wrong.append(f"{self.under_way} under way")

    async def call(self, caller: Caller) -> None:
        await asyncio.sleep(caller.comes)
        items = [(caller.lane, item) for item in caller.items]
        task = asyncio.create_task(self.ask(caller, items))
        if caller.leaves is not None:
            await asyncio.sleep(caller.leaves)
            await turns(caller.turns)
            task.cancel()
        try:
            answers = await task
        except EXPECTED as error:
            if isinstance(error, asyncio.CancelledError) and caller.leaves is None:
                self.wrong.append(f"{caller} was cancelled")
            if isinstance(error, ValueError) and error.args[0] not in items:
                self.wrong.append(f"{caller} was told of {error}")
        else:
            if answers != [answer_to(item) for item in items]:
                self.wrong.append(f"{caller} was given {answers}")

    async def ask(self, caller: Caller, items: Sequence[Any]) -> list[Any]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            return await self.batcher.results(self.lanes[caller.lane], items, caller.limit)
        finally:
            if loop.time() > started + caller.limit:
                self.wrong.append(f"{caller} waited too long")

    async def assert_nothing_is_left(self) -> None:
        """Fails where a place, a task or an item is kept."""
        assert (self.batcher.under_way, self.batcher.waiting) == (0, 0)
        self.script = [Sent(1.0, "answers", 0.0)] * (AT_ONCE * BATCH)
        begun = asyncio.get_running_loop().time()
        items = [(0, number) for number in range(AT_ONCE * BATCH)]
        assert await self.batcher.results(self.lanes[0], items, FOREVER) == [answer_to(item) for item in items]
        # With every place free, all of them travel at once.
        assert asyncio.get_running_loop().time() <= begun + 2.5


async def live(callers: Sequence[Caller], script: Sequence[Sent], wait: float, close_at: float | None) -> None:
    world = World(script, wait)
    loop: Any = asyncio.get_running_loop()
    logged: list[Any] = []
    loop.set_exception_handler(lambda _, context: logged.append(context))
    tasks = [asyncio.create_task(world.call(caller)) for caller in callers]
    if close_at is not None:
        await asyncio.sleep(close_at)
        await world.batcher.close()
    await asyncio.gather(*tasks)
    # What was cancelled takes its time.
    await asyncio.sleep(10.0)

    assert world.wrong == []
    if close_at is None:
        await world.assert_nothing_is_left()
        await world.batcher.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []
    assert logged == []


@settings(max_examples=300, deadline=None)
@given(callers=Callers, script=Script, wait=st.sampled_from([0.0, 1.0]), close_at=st.none() | Seconds)
def test_everyone_is_answered_and_nothing_is_left(
    callers: list[Caller], script: list[Sent], wait: float, close_at: float | None
) -> None:
    with asyncio.Runner(loop_factory=InstantLoop) as runner:
        runner.run(live(callers, script, wait, close_at))
