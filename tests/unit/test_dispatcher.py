"""The dispatcher: queries before passages, a batch limit that is learned, and a breaker that is respected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.embedding.asked import Asked, Kind
from knowledge_base.embedding.dispatcher import Dispatcher, TextLane
from knowledge_base.errors import (
    CircuitOpenError,
    OperationTimeoutError,
    OverloadedError,
    UnavailableError,
)
from knowledge_base.settings import BreakerSettings
from tests.support.fake_redis import Clock
from tests.support.instant_loop import instantly
from tests.support.polling import eventually
from tests.support.scripted_send import Held, ScriptedSend, turns

LONG = 100.0
SHORT = 0.05
FAILURES = 3
PAUSE = 10.0
AT_ONCE = 5
FOR_PASSAGES = 4


class Guarded:
    """A dispatcher whose requests go through its breaker, as those to the model do."""

    def __init__(self, clock: Clock, *, batch: int = 2, wait: float = 0.0) -> None:
        self.send = ScriptedSend()
        self.breaker = CircuitBreaker("embedding", BreakerSettings(failures=FAILURES, reset_after=PAUSE), clock=clock)
        self.dispatcher = Dispatcher(
            self._guarded,
            self.breaker,
            queries=TextLane(AT_ONCE, batch),
            passages=TextLane(FOR_PASSAGES, batch),
            at_once=AT_ONCE,
            wait=wait,
            most_waiting=100,
        )

    def ask(self, *texts: str, kind: Kind = "query", limit: float = LONG, namespace: str = "") -> asyncio.Task[Any]:
        asked = [Asked(kind, namespace, text) for text in texts]
        return asyncio.create_task(self.dispatcher.vectors(asked, limit))

    @property
    def sent(self) -> list[list[str]]:
        return [[asked.text for asked in batch.items] for batch in self.send.batches]

    async def fail(self, times: int = FAILURES) -> None:
        """Lets requests fail, one after the other."""
        for _ in range(times):
            task = self.ask("fails")
            batch = (await self.send.begun(len(self.send.batches) + 1))[-1]
            batch.fail(OSError("away"))
            with pytest.raises(OSError, match="away"):
                await task
            await turns()

    async def _guarded(self, asked: Sequence[Asked], begun: Callable[[], None]) -> Sequence[Any]:
        with self.breaker.attempt() as attempt:
            try:
                answers = await self.send(asked, begun)
            except OSError:
                attempt.failed()
                raise
            attempt.succeeded()
        return answers


@pytest.fixture
async def guarded(clock: Clock) -> AsyncIterator[Guarded]:
    one = Guarded(clock)
    yield one
    one.send.release()
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    assert (one.dispatcher.under_way, one.dispatcher.waiting) == (0, 0)


async def stuck(guarded: Guarded, limit: float) -> tuple[asyncio.Task[Any], Held]:
    task = guarded.ask("stuck", limit=limit)
    return task, (await guarded.send.begun(len(guarded.send.batches) + 1))[-1]


async def test_queries_and_passages_never_share_a_request(guarded: Guarded) -> None:
    guarded.send.release()

    await asyncio.gather(guarded.ask("a"), guarded.ask("b", kind="passage"), guarded.ask("c"))

    assert sorted(guarded.sent) == [["a", "c"], ["b"]]


async def test_same_text_of_another_kind_or_namespace_is_another(guarded: Guarded) -> None:
    asked = [guarded.ask("a"), guarded.ask("a", kind="passage"), guarded.ask("a", namespace="other")]
    await guarded.send.begun(2)

    guarded.send.release()

    answers = [answer for (answer,) in await asyncio.gather(*asked)]
    assert len(set(answers)) == 3
    assert sum(map(len, guarded.sent)) == 3


async def test_queries_that_wait_go_before_passages_that_waited_longer(guarded: Guarded) -> None:
    occupying = [guarded.ask(f"{number}", f"{number}!") for number in range(AT_ONCE)]
    await guarded.send.begun(AT_ONCE)
    passages = guarded.ask("p1", "p2", "p3", kind="passage")
    await turns()
    queries = guarded.ask("q1", "q2", "q3")
    await turns()

    guarded.send.batches[0].answer()
    guarded.send.batches[1].answer()
    await guarded.send.begun(AT_ONCE + 2)

    assert guarded.sent[AT_ONCE:] == [["q1", "q2"], ["q3"]]
    guarded.send.release()
    await asyncio.gather(passages, queries, *occupying)


async def test_passages_never_take_the_reserved_places(guarded: Guarded) -> None:
    passages = guarded.ask(*(f"p{number}" for number in range(40)), kind="passage")
    await guarded.send.begun(FOR_PASSAGES)
    await turns()
    assert guarded.dispatcher.under_way == FOR_PASSAGES

    query = guarded.ask("q")
    await guarded.send.begun(FOR_PASSAGES + 1)
    guarded.send.batches[-1].answer()
    await query
    await turns()

    assert guarded.sent[-1] == ["q"]
    assert guarded.dispatcher.under_way == FOR_PASSAGES
    guarded.send.release()
    await passages
    assert guarded.send.most <= AT_ONCE


async def test_learned_limit_holds_for_its_kind_from_the_next_request_on(guarded: Guarded) -> None:
    guarded.dispatcher.limit_batch("passage", 1)
    guarded.send.release()

    await asyncio.gather(guarded.ask("p1", "p2", kind="passage"), guarded.ask("q1", "q2"))

    assert sorted(guarded.sent) == [["p1"], ["p2"], ["q1", "q2"]]


@pytest.mark.parametrize(("learned", "batch"), [([5], 2), ([1, 2], 1), ([0], 1), ([-1], 1)])
async def test_learned_limit_never_grows_nor_vanishes(guarded: Guarded, learned: list[int], batch: int) -> None:
    for most in learned:
        guarded.dispatcher.limit_batch("query", most)
    guarded.send.release()

    await guarded.ask("a", "b", "c", "d")

    assert max(map(len, guarded.sent)) == batch


def test_limit_that_is_learned_while_texts_wait_leaves_none_behind() -> None:
    async def test() -> None:
        guarded = Guarded(Clock(), batch=8, wait=1.0)
        first = guarded.ask(*"abcdefgh", kind="passage")
        (batch,) = await guarded.send.begun(1)
        others = [guarded.ask(*"ijkl", kind="passage"), guarded.ask(*"mn", kind="passage")]
        await turns()

        guarded.dispatcher.limit_batch("passage", 2)
        guarded.send.release()
        assert not batch.cancelled
        await asyncio.gather(first, *others)

        assert guarded.sent[1:] == [["i", "j"], ["k", "l"], ["m", "n"]]
        assert asyncio.get_running_loop().time() <= 1.0

    instantly(test)


async def test_open_breaker_refuses_before_anything_waits(guarded: Guarded) -> None:
    await guarded.fail()
    before = len(guarded.sent)

    with pytest.raises(CircuitOpenError):
        await guarded.ask("a")

    assert len(guarded.sent) == before
    assert guarded.dispatcher.waiting == 0


async def test_probe_travels_alone_and_those_who_wait_follow_when_it_succeeds(guarded: Guarded, clock: Clock) -> None:
    await guarded.fail()
    clock.pass_by(PAUSE)
    asked = [guarded.ask(f"{number}") for number in range(8)]
    passages = guarded.ask("p", kind="passage")
    batches = await guarded.send.begun(FAILURES + 1)
    await turns()
    assert guarded.dispatcher.under_way == 1
    assert guarded.breaker.stats()["state"] == "half_open"
    with pytest.raises(CircuitOpenError):
        await guarded.ask("comes during the probe")

    batches[-1].answer()
    await guarded.send.begun(FAILURES + 5)

    assert guarded.breaker.state == "closed"
    assert guarded.sent[FAILURES:] == [["0", "1"], ["2", "3"], ["4", "5"], ["6", "7"], ["p"]]
    guarded.send.release()
    await asyncio.gather(passages, *asked)


async def test_those_who_wait_for_a_probe_that_fails_are_told_at_once(guarded: Guarded, clock: Clock) -> None:
    await guarded.fail()
    clock.pass_by(PAUSE)
    asked = [guarded.ask(f"{number}") for number in range(6)]
    probe = (await guarded.send.begun(FAILURES + 1))[-1]

    probe.fail(OSError("away"))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [OSError] * 2 + [CircuitOpenError] * 4
    assert len(guarded.sent) == FAILURES + 1


@pytest.mark.parametrize("turns_before", range(8))
async def test_those_who_wait_for_a_probe_that_is_given_up_do_not_hang(
    guarded: Guarded, clock: Clock, turns_before: int
) -> None:
    await guarded.fail()
    clock.pass_by(PAUSE)
    probing, waiting = [guarded.ask("a"), guarded.ask("b")], guarded.ask("c", limit=1.0)
    await turns(turns_before)

    for task in probing:
        task.cancel()
    await turns()
    guarded.send.release()

    # The next one is the probe.
    assert len(await waiting) == 1
    assert guarded.breaker.state == "closed"
    await asyncio.gather(*probing, return_exceptions=True)


async def test_probe_whose_last_caller_is_late_opens_the_breaker_again(guarded: Guarded, clock: Clock) -> None:
    await guarded.fail()
    clock.pass_by(PAUSE)

    with pytest.raises(OperationTimeoutError):
        await guarded.ask("a", limit=SHORT)

    assert guarded.breaker.stats()["state"] == "open"
    assert guarded.breaker.stats()["retry_after"] == PAUSE


async def test_each_caller_whose_wait_for_an_answer_ends_counts(guarded: Guarded) -> None:
    patient = guarded.ask("a")
    late = [guarded.ask("a", limit=SHORT) for _ in range(FAILURES - 1)]
    await guarded.send.begun(1)

    outcomes = await asyncio.gather(*late, return_exceptions=True)

    assert all(isinstance(outcome, OperationTimeoutError) for outcome in outcomes)
    assert guarded.breaker.stats()["failures"] == FAILURES - 1
    guarded.send.release()
    await patient
    assert guarded.breaker.stats()["failures"] == 0


async def test_caller_whose_turn_did_not_come_does_not_count(guarded: Guarded) -> None:
    occupying = [guarded.ask(f"{number}", f"{number}!") for number in range(AT_ONCE)]
    await guarded.send.begun(AT_ONCE)

    with pytest.raises(OverloadedError):
        await guarded.ask("a", limit=SHORT)

    assert guarded.breaker.stats()["failures"] == 0
    guarded.send.release()
    await asyncio.gather(*occupying)


async def test_request_from_before_the_pause_does_not_hold_up_the_probe(guarded: Guarded, clock: Clock) -> None:
    task, _ = await stuck(guarded, LONG)
    await guarded.fail()
    clock.pass_by(PAUSE)

    probe = guarded.ask("probe", limit=1.0)
    batch = (await guarded.send.begun(FAILURES + 2))[-1]
    batch.answer()

    assert len(await probe) == 1
    assert guarded.breaker.state == "closed"
    with pytest.raises(UnavailableError, match="did not answer"):
        await task


async def test_probe_beside_stuck_requests_does_not_exceed_the_places(guarded: Guarded, clock: Clock) -> None:
    patient = [guarded.ask(f"{number}", f"{number}!") for number in range(AT_ONCE)]
    late = [guarded.ask("0", limit=SHORT) for _ in range(FAILURES)]
    await guarded.send.begun(AT_ONCE)
    await asyncio.gather(*late, return_exceptions=True)
    clock.pass_by(PAUSE)

    probe = guarded.ask("probe")
    await turns()

    assert guarded.dispatcher.under_way <= AT_ONCE
    guarded.send.release()
    assert len(await probe) == 1
    await asyncio.gather(*patient, return_exceptions=True)


async def test_those_who_wait_when_the_breaker_opens_are_told_before_their_own_time_is_over(guarded: Guarded) -> None:
    patient = [guarded.ask(f"{number}", f"{number}!") for number in range(AT_ONCE)]
    late = [guarded.ask("0", limit=SHORT) for _ in range(FAILURES)]
    await guarded.send.begun(AT_ONCE)
    waiting = guarded.ask("waits", limit=5.0)
    await asyncio.gather(*late, return_exceptions=True)
    assert guarded.breaker.state == "open"

    with pytest.raises(CircuitOpenError):
        await waiting

    guarded.send.release()
    await asyncio.gather(*patient)


async def test_close_tells_everybody(guarded: Guarded) -> None:
    queries = [guarded.ask(f"q{number}") for number in range(2 * AT_ONCE)]
    passages = guarded.ask(*(f"p{number}" for number in range(20)), kind="passage")
    await guarded.send.begun(AT_ONCE)

    await guarded.dispatcher.close()
    outcomes = await asyncio.gather(*queries, passages, return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {UnavailableError}
    assert guarded.breaker.stats()["failures"] == 0
