"""``SharedReads``: hashes that many callers read at the same time come in one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import partial

from knowledge_base.connection.deadline import GRACE, current_deadline, deadline, enter_step
from knowledge_base.connection.hashes import READ_AT_ONCE, HashGroup, Row, read_hash_groups
from knowledge_base.connection.manager import AsyncRedisManager, PoolName
from knowledge_base.connection.workload import in_job
from knowledge_base.errors import CircuitOpenError, OperationTimeoutError, UnavailableError

STEP = "reading from Redis"
AT_ONCE = 2
"""Round trips under way at most. The server answers one after the other; what comes meanwhile travels together."""


@dataclass(slots=True, eq=False)
class _Read:
    """What one caller asks for."""

    groups: Sequence[HashGroup]
    hashes: int
    place: str
    """What their keys begin with: only keys of one namespace are sure to stand on one server."""
    since: float
    answer: asyncio.Future[list[list[Row]]]
    trip: _Trip | None = None


@dataclass(slots=True, eq=False)
class _Trip:
    """Reads that travel together, and for how many of them somebody still waits."""

    reads: Sequence[_Read]
    wanted: int
    epoch: int
    """That of the circuit when it began."""
    task: asyncio.Task[None] | None = None


class SharedReads:
    """Reads hashes over one pool, used from one event loop.

    An exchange of its own would cost each caller several times as much as the reading. Nobody waits for others to come:
    who is alone is served in the same turn of the loop.

    Args:
        manager: The connections.
        pool: Over which of them is read.
    """

    def __init__(self, manager: AsyncRedisManager, pool: PoolName) -> None:
        self._manager = manager
        self._pool: PoolName = pool
        self._waiting: list[_Read] = []
        self._under_way: set[_Trip] = set()

    async def rows(self, groups: Sequence[HashGroup]) -> list[list[Row]]:
        """Returns for each group the values of its fields, hash by hash.

        Args:
            groups: What is asked for; keys of one namespace.

        Raises:
            UnavailableError: Redis could not be reached, or not in time.
        """
        hashes = sum(len(group.keys) for group in groups)
        client = await self._manager.client(self._pool)
        if in_job() or not 0 < hashes <= READ_AT_ONCE:
            return await read_hash_groups(client, groups)
        self._manager.breaker.check()
        limit = self._manager.settings.timeouts.redis
        enter_step(STEP, limit)
        loop = asyncio.get_running_loop()
        read = _Read(groups, hashes, _place(groups), loop.time(), loop.create_future())
        if not self._waiting:
            loop.call_soon(self._send, context=Context())
        self._waiting.append(read)
        try:
            # A trip that is as late as its reads fails first, and is counted.
            async with asyncio.timeout(limit + GRACE):
                return await read.answer
        except TimeoutError:
            # The loop may have been held up until answer and timeout came together.
            if read.answer.done() and not read.answer.cancelled():
                return read.answer.result()
            self._given_up(read, is_late=False)
            call = current_deadline()
            if call is not None and call.remaining <= 0:
                raise call.timed_out() from None
            raise OperationTimeoutError(STEP, limit, STEP) from None
        except asyncio.CancelledError:
            call = current_deadline()
            self._given_up(read, is_late=call is not None and call.remaining <= 0)
            raise

    def _send(self) -> None:
        while self._waiting and len(self._under_way) < AT_ONCE:
            reads = self._together()
            trip = _Trip(reads, len(reads), self._manager.breaker.epoch)
            for read in reads:
                read.trip = trip
            self._under_way.add(trip)
            # Free of the deadline of whoever came first.
            trip.task = asyncio.get_running_loop().create_task(self._travel(trip), context=Context())
            trip.task.add_done_callback(partial(self._ended, trip))

    def _together(self) -> list[_Read]:
        """Takes from those who wait what travels next: the first, and others of its namespace."""
        taken: list[_Read] = []
        left: list[_Read] = []
        room, place = READ_AT_ONCE, self._waiting[0].place
        for read in self._waiting:
            if read.place == place and read.hashes <= room:
                taken.append(read)
                room -= read.hashes
            else:
                left.append(read)
        self._waiting = left
        return taken

    async def _travel(self, trip: _Trip) -> None:
        merged: dict[tuple[str, ...], list[str]] = {}
        for read in trip.reads:
            for group in read.groups:
                merged.setdefault(tuple(group.fields), []).extend(group.keys)
        # The last to come has its whole time; those before it, who may have waited for others, give up by themselves.
        limit = self._manager.settings.timeouts.redis
        waited = asyncio.get_running_loop().time() - trip.reads[-1].since
        async with deadline(STEP, max(0.0, limit - waited)):
            client = await self._manager.client(self._pool)
            found = await read_hash_groups(client, [HashGroup(keys, fields) for fields, keys in merged.items()])
        rows = dict(zip(merged, map(iter, found), strict=True))
        for read in trip.reads:
            own = [[next(rows[tuple(group.fields)]) for _ in group.keys] for group in read.groups]
            if not read.answer.done():
                read.answer.set_result(own)

    def _ended(self, trip: _Trip, task: asyncio.Task[None]) -> None:
        self._under_way.discard(trip)
        error = UnavailableError(f"{STEP} was interrupted; retry") if task.cancelled() else task.exception()
        if error is not None:
            failed = [read for read in trip.reads if not read.answer.done()]
            if isinstance(error, UnavailableError) and not isinstance(error, CircuitOpenError):
                # The guard has counted one of them.
                for _ in failed[1:]:
                    self._manager.breaker.count_failure(trip.epoch)
            for read in failed:
                read.answer.set_exception(error)
                # Whoever waited may have gone; the loop would log it.
                read.answer.exception()
        self._send()

    def _given_up(self, read: _Read, *, is_late: bool) -> None:
        trip = read.trip
        if trip is None:
            if read in self._waiting:
                self._waiting.remove(read)
            return
        if is_late:
            self._manager.breaker.count_failure(trip.epoch)
        trip.wanted -= 1
        if not trip.wanted and trip.task is not None:
            trip.task.cancel()


def _place(groups: Sequence[HashGroup]) -> str:
    return next(group.keys[0].partition("}")[0] for group in groups if group.keys)
