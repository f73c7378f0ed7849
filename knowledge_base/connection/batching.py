"""``Batcher``: what is asked for at the same time travels together, each only once, in bounded numbers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar

from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.connection.deadline import current_deadline, enter_step
from knowledge_base.errors import CircuitOpenError, OperationTimeoutError, OverloadedError, UnavailableError

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")


@dataclass(slots=True)
class Lane(Generic[Item, Result]):
    """Items of one kind that wait, and how many batches of them are under way."""

    at_once: int
    """Batches under way at most."""
    batch: int
    """Items of one batch at most."""
    evenly: bool = False
    """Whether the free places share what waits; else each batch is as large as it may be."""
    gives_up: bool = False
    """Whether what is under way is given up when the circuit opens: whoever waits has something better to do."""
    kind: Callable[[Item], Hashable] | None = None
    """Only items of which it says the same travel together; None: all do."""
    waiting: dict[Item, Ticket[Item, Result]] = field(default_factory=dict, repr=False)
    under_way: int = 0


@dataclass(slots=True, eq=False)
class Batch(Generic[Item, Result]):
    """Items that travel together, and for how many of them somebody still waits."""

    lane: Lane[Item, Result] = field(repr=False)
    tickets: Sequence[Ticket[Item, Result]] = field(repr=False)
    wanted: int
    epoch: int | None = None
    """That of the circuit when what the batch is brought to was asked; None before."""
    task: asyncio.Task[Any] | None = None


@dataclass(slots=True, eq=False)
class Wait:
    """A caller that waits until so many tickets are settled, or the first of them fails."""

    left: int
    over: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class Ticket(Generic[Item, Result]):
    """One item, and those who wait for its result."""

    item: Item = field(repr=False)
    lane: Lane[Item, Result] = field(repr=False)
    since: float
    waits: list[Wait] = field(default_factory=list, repr=False)
    waiters: int = 0
    batch: Batch[Item, Result] | None = None
    outcomes: list[Result | Exception] = field(default_factory=list, repr=False)
    """Its result, or what it failed with; nothing before."""

    @property
    def is_settled(self) -> bool:
        """Whether there is a result or a failure."""
        return bool(self.outcomes)

    def settle(self, outcome: Result | Exception) -> None:
        """Tells those who wait, unless they were told already.

        Args:
            outcome: The result, or what it failed with.
        """
        if self.outcomes:
            return
        self.outcomes.append(outcome)
        for wait in self.waits:
            wait.left -= 1
            if (isinstance(outcome, Exception) or not wait.left) and not wait.over.done():
                wait.over.set_result(None)


class Batcher(Generic[Item, Result]):
    """Brings items to a function that takes many at once, used from one event loop.

    Equal items that are asked for while one of them waits or is under way share its result. A batch that nobody waits
    for any more is cancelled.

    Args:
        resource: What the batches are brought to, as named in errors.
        send: Gives for each item of a batch its result, or the exception that it failed with; may raise what came of
            the whole batch. Gets the items, and a function to call when it begins to wait for what it asks: who gives
            up before that says nothing about it.
        lanes: How each kind of items travels; earlier lanes go first.
        at_once: Batches of all lanes under way at most.
        wait: Seconds that an item waits for others to travel with.
        most_waiting: Batches of a lane that may wait for their turn.
        breaker: While it is not closed, one batch is sent at a time, as a probe; callers that give up are counted.
    """

    def __init__(
        self,
        resource: str,
        send: Callable[[Sequence[Item], Callable[[], None]], Awaitable[Sequence[Result | Exception]]],
        lanes: Sequence[Lane[Item, Result]],
        *,
        at_once: int,
        wait: float,
        most_waiting: int,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self._resource = resource
        self._send = send
        self._lanes = lanes
        self._at_once = at_once
        self._wait = wait
        self._most_waiting = most_waiting
        self._breaker = breaker
        self._tickets: dict[Item, Ticket[Item, Result]] = {}
        self._batches: set[Batch[Item, Result]] = set()
        self._look: asyncio.Handle | None = None
        self._looks_at = 0.0
        self._closed = False

    @property
    def under_way(self) -> int:
        """Batches that are under way."""
        return sum(lane.under_way for lane in self._lanes)

    @property
    def waiting(self) -> int:
        """Batches that wait for their turn, those included that others may still join."""
        return sum(math.ceil(len(lane.waiting) / lane.batch) for lane in self._lanes)

    async def results(self, lane: Lane[Item, Result], items: Sequence[Item], limit: float) -> list[Result]:
        """Returns the results of items, in their order.

        Args:
            lane: The items' lane.
            items: At least one.
            limit: Seconds to wait at most.

        Raises:
            CircuitOpenError: The circuit is open.
            OverloadedError: Too many wait already, or their turn did not come in time.
            OperationTimeoutError: It took too long.
            UnavailableError: The batcher is closed.
            Exception: What came of the first item that failed.
        """
        self._refuse(lane)
        budget = enter_step(self._resource, limit)
        wait = Wait(len(items), asyncio.get_running_loop().create_future())
        tickets = [self._join(lane, item, wait) for item in items]
        try:
            async with asyncio.timeout(budget) as timeout:
                await wait.over
        except TimeoutError:
            # The loop may have been held up until answer and timeout came together.
            if not all(ticket.is_settled for ticket in tickets):
                raise self._late(tickets, limit) from None
        except asyncio.CancelledError:
            call = current_deadline()
            if not timeout.expired() and call is not None and call.remaining <= 0:
                self._late(tickets, limit)
            raise
        finally:
            for ticket in tickets:
                self._leave(ticket)
        results: list[Result] = []
        # One that failed ends the wait before others have a result.
        for outcome in [outcome for ticket in tickets for outcome in ticket.outcomes]:
            if isinstance(outcome, Exception):
                raise outcome
            results.append(outcome)
        return results

    async def close(self) -> None:
        """Ends every batch, and tells those who wait."""
        self._closed = True
        if self._look is not None:
            self._look.cancel()
        for ticket in [*self._tickets.values()]:
            ticket.settle(self._closed_error())
        for lane in self._lanes:
            lane.waiting.clear()
        tasks = [batch.task for batch in self._batches if batch.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _refuse(self, lane: Lane[Item, Result]) -> None:
        if self._closed:
            raise self._closed_error()
        if self._breaker is not None:
            self._breaker.check()
        if not self._has_place(lane) and len(lane.waiting) // lane.batch >= self._most_waiting:
            raise OverloadedError(self._resource)

    def _closed_error(self) -> UnavailableError:
        return UnavailableError(f"{self._resource} is closed already; open the knowledge base again")

    def _late(self, tickets: Sequence[Ticket[Item, Result]], limit: float) -> UnavailableError:
        batches = [ticket.batch for ticket in tickets if ticket.batch is not None and not ticket.is_settled]
        epochs = [batch.epoch for batch in batches if batch.epoch is not None]
        call = current_deadline()
        if epochs and self._breaker is not None:
            self._breaker.count_failure(max(epochs))
            self._refuse_waiting()
        if call is not None and call.remaining <= 0:
            return call.timed_out()
        return OperationTimeoutError(self._resource, limit) if batches else OverloadedError(self._resource)

    def _join(self, lane: Lane[Item, Result], item: Item, wait: Wait) -> Ticket[Item, Result]:
        ticket = self._tickets.get(item)
        if ticket is None:
            ticket = self._tickets[item] = Ticket(item, lane, asyncio.get_running_loop().time())
            lane.waiting[item] = ticket
            self._look_again(self._ripe_in(lane))
        if ticket.batch is not None and not ticket.waiters:
            ticket.batch.wanted += 1
        ticket.waiters += 1
        ticket.waits.append(wait)
        return ticket

    def _leave(self, ticket: Ticket[Item, Result]) -> None:
        ticket.waiters -= 1
        if ticket.waiters or ticket.is_settled:
            return
        batch = ticket.batch
        if batch is None:
            self._forget(ticket)
            ticket.lane.waiting.pop(ticket.item, None)
            return
        batch.wanted -= 1
        if not batch.wanted:
            self._give_up(batch)

    def _give_up(self, batch: Batch[Item, Result]) -> None:
        for ticket in batch.tickets:
            self._forget(ticket)
        if batch.task is not None:
            batch.task.cancel()

    def _forget(self, ticket: Ticket[Item, Result]) -> None:
        if self._tickets.get(ticket.item) is ticket:
            del self._tickets[ticket.item]

    def _look_again(self, seconds: float) -> None:
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        if self._look is not None:
            if self._looks_at <= when:
                return
            self._look.cancel()
        self._looks_at = when
        # Even without a wait, what is asked for in the same turn of the loop travels together.
        self._look = loop.call_later(seconds, self._pump)

    def _pump(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self._refuse_waiting()
        if self._must_make_way():
            return
        for lane in self._lanes:
            while lane.waiting and self._has_place(lane):
                ripe_in = self._ripe_in(lane)
                if ripe_in > 0:
                    self._look_again(ripe_in)
                    break
                self._begin(lane)

    def _refuse_waiting(self) -> None:
        """Tells those who wait that the circuit is open: they would wait for nothing."""
        if self._breaker is None or self._breaker.state == "closed":
            return
        try:
            self._breaker.check()
        except CircuitOpenError as refused:
            for lane in self._lanes:
                waiting, lane.waiting = lane.waiting, {}
                for ticket in waiting.values():
                    self._forget(ticket)
                    ticket.settle(refused)
            if self._breaker.state == "open":
                self._give_up_batches([batch for batch in self._batches if batch.lane.gives_up], refused)

    def _must_make_way(self) -> bool:
        """Gives up what has been under way since before the circuit opened, so that a probe has a place."""
        if self._breaker is None or self._breaker.state != "open" or not any(lane.waiting for lane in self._lanes):
            return False
        stuck = list(self._batches)
        self._give_up_batches(stuck, UnavailableError(f"{self._resource} did not answer; retry"))
        return bool(stuck)

    def _give_up_batches(self, batches: Sequence[Batch[Item, Result]], reason: Exception) -> None:
        for batch in batches:
            for ticket in batch.tickets:
                ticket.settle(reason)
            self._give_up(batch)

    def _has_place(self, lane: Lane[Item, Result]) -> bool:
        if self._breaker is not None and self._breaker.state != "closed":
            # One probe alone decides; beside it the others would only be refused.
            return not self._batches
        return lane.under_way < lane.at_once and self.under_way < self._at_once

    def _ripe_in(self, lane: Lane[Item, Result]) -> float:
        if len(lane.waiting) >= lane.batch:
            return 0.0
        first = next(iter(lane.waiting.values()))
        return max(0.0, first.since + self._wait - asyncio.get_running_loop().time())

    def _begin(self, lane: Lane[Item, Result]) -> None:
        most = lane.batch
        if lane.evenly:
            free = max(1, min(lane.at_once - lane.under_way, self._at_once - self.under_way))
            # As many times as the places must be filled: full batches first would leave one place a small last one.
            rounds = math.ceil(len(lane.waiting) / (free * most))
            most = math.ceil(len(lane.waiting) / (free * rounds))
        tickets = list(islice(_of_one_kind(lane), most))
        batch = Batch(lane, tickets, len(tickets))
        for ticket in tickets:
            del lane.waiting[ticket.item]
            ticket.batch = batch
        lane.under_way += 1
        self._batches.add(batch)
        # Free of the context, and the deadline, of whoever happened to come first.
        batch.task = asyncio.get_running_loop().create_task(self._sent(batch), context=Context())
        # Not only at the end of what the task does: one that is cancelled at once never begins.
        batch.task.add_done_callback(partial(self._ended, batch))

    async def _sent(self, batch: Batch[Item, Result]) -> None:
        def begun() -> None:
            batch.epoch = 0 if self._breaker is None else self._breaker.epoch

        outcomes = await self._send([ticket.item for ticket in batch.tickets], begun)
        if len(outcomes) != len(batch.tickets):
            raise UnavailableError(f"{self._resource} gave {len(outcomes)} results for {len(batch.tickets)}")
        for ticket, outcome in zip(batch.tickets, outcomes, strict=True):
            self._forget(ticket)
            ticket.settle(outcome)

    def _ended(self, batch: Batch[Item, Result], task: asyncio.Task[None]) -> None:
        self._batches.discard(batch)
        batch.lane.under_way -= 1
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            interrupted = UnavailableError(f"{self._resource} was interrupted; retry")
            for ticket in batch.tickets:
                self._forget(ticket)
                ticket.settle(error if isinstance(error, Exception) else interrupted)
        if not self._closed:
            self._pump()


def _of_one_kind(lane: Lane[Item, Result]) -> Iterable[Ticket[Item, Result]]:
    waiting = lane.waiting.values()
    if lane.kind is None:
        return waiting
    first = lane.kind(next(iter(waiting)).item)
    return (ticket for ticket in waiting if lane.kind(ticket.item) == first)
