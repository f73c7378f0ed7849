"""Bounded worker threads for blocking work.

``asyncio.to_thread`` shares six or so threads with everything else in the process, queues without a bound, and a
call that never returns blocks the interpreter's exit. These threads are daemons, belong to one kind of work, refuse
what would wait too long, and give a place back only when the thread is really done.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Any, TypeVar

from knowledge_base.connection.admission import Admission
from knowledge_base.connection.deadline import current_deadline, enter_step
from knowledge_base.errors import OperationTimeoutError, OverloadedError, UnavailableError
from knowledge_base.types import PoolStats

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
Job = Callable[[], None]

NICENESS = 10
"""Of threads that let others go first; the event loop has 0."""

SOON = 1.0
"""Seconds that the thread of a cancelled call is given before it counts as stuck."""


class WorkerThreads:
    """A few daemon threads for one kind of blocking work, used from one event loop.

    Args:
        name: The kind of work, as named in errors and in the threads' names.
        threads: How many run at once.
        waiting: How many calls may wait for a thread.
        yielding: Whether the threads let others go first when there are more of them than processors, the event loop
            above all.
    """

    def __init__(self, name: str, *, threads: int, waiting: int, yielding: bool = False) -> None:
        self.name = name
        self._limit = threads
        self._waiting_limit = waiting
        self.yielding = yielding
        self._admission = Admission(f"the {name} threads", threads, waiting)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._abandoned = 0
        self._awaited: dict[asyncio.Future[Any], asyncio.Future[Any]] = {}
        self._closed = False

    @property
    def in_use(self) -> int:
        """Threads that are busy, the abandoned ones included."""
        return self._admission.in_use

    @property
    def abandoned(self) -> int:
        """Busy threads whose caller has gone."""
        return self._abandoned

    def stats(self) -> PoolStats:
        """Returns the use of the threads."""
        return {
            "connections": len(self._threads),
            "in_use": self._admission.in_use,
            "waiting": self._admission.waiting,
            "limit": self._limit,
            "waiting_limit": self._waiting_limit,
            "retried": 0,
            "abandoned": self._abandoned,
        }

    async def to_thread(self, function: Callable[..., Result], *args: Any, step: str, limit: float) -> Result:
        """Runs a blocking function in a thread, in a copy of the caller's context.

        A call that is late is abandoned: the caller is told, the thread runs on, and its place stays taken until
        the function returns.

        Args:
            function: What to run.
            *args: Its arguments.
            step: The step, as named in errors.
            limit: Seconds that it may take, the wait for a thread included.

        Returns:
            What the function returned.

        Raises:
            OverloadedError: No thread is free and enough calls wait already, or the wait took too long.
            OperationTimeoutError: The function did not return in time.
            UnavailableError: The threads are closed.
        """
        budget = enter_step(step, limit)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await self._enter(budget)
        budget -= loop.time() - started
        # Whoever gives up cancels the answer; only the thread's return settles the other.
        answer: asyncio.Future[Result] = loop.create_future()
        done: asyncio.Future[Result] = loop.create_future()
        self._awaited[done] = answer
        done.add_done_callback(self._forget)
        job = self._job(loop, (answer, done), contextvars.copy_context(), function, args)
        try:
            self._submit(job)
        except OverloadedError:
            self._forget(done)
            raise
        try:
            async with asyncio.timeout(budget):
                return await answer
        except TimeoutError:
            if done.done():
                return done.result()
            self._abandon(done, step)
            call = current_deadline()
            if call is not None and call.remaining <= 0:
                raise call.timed_out() from None
            raise OperationTimeoutError(step, limit, step) from None
        except asyncio.CancelledError:
            if not done.done():
                # It is soon back, if it is not stuck.
                self._abandon(done, step, after=SOON)
            raise

    def close(self) -> None:
        """Lets idle threads end now and busy ones when they return; waits for none."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)

    async def wait_closed(self, within: float) -> bool:
        """Waits until every thread has ended; in the end, tells those who wait for one that has not.

        Args:
            within: Seconds to wait at most.

        Returns:
            Whether all have ended.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + within
        while any(thread.is_alive() for thread in self._threads):
            if loop.time() >= until:
                for both in list(self._awaited.items()):
                    _settle(both, None, self._closed_error())
                return False
            await asyncio.sleep(0.005)
        return True

    async def _enter(self, budget: float) -> None:
        self._refuse_when_closed()
        if self._abandoned >= self._limit:
            raise OverloadedError(f"the {self.name} threads")
        await self._admission.enter(budget)
        try:
            self._refuse_when_closed()
        except UnavailableError:
            self._admission.leave()
            raise

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> UnavailableError:
        return UnavailableError(f"the {self.name} threads are closed already; open the knowledge base again")

    def _submit(self, job: Job) -> None:
        if len(self._threads) < min(self._admission.in_use, self._limit):
            thread = threading.Thread(
                target=_serve, args=(self._jobs, self.yielding), name=f"kb-{self.name}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                self._admission.leave()
                raise OverloadedError(f"the {self.name} threads") from None
            self._threads.append(thread)
        self._jobs.put(job)

    def _job(
        self,
        loop: asyncio.AbstractEventLoop,
        futures: tuple[asyncio.Future[Result], ...],
        context: contextvars.Context,
        function: Callable[..., Result],
        args: tuple[Any, ...],
    ) -> Job:
        def settle(result: Result | None, error: BaseException | None) -> None:
            self._admission.leave()
            _settle(futures, result, error)

        def run() -> None:
            result: Result | None = None
            failure: BaseException | None = None
            try:
                result = context.run(function, *args)
            except StopIteration as error:
                # A future refuses to carry it.
                failure = RuntimeError("the function raised StopIteration")
                failure.__cause__ = error
            except BaseException as error:  # noqa: BLE001 - handed to the caller, who decides
                failure = error
            try:
                loop.call_soon_threadsafe(settle, result, failure)
            except RuntimeError:
                logger.debug("the loop ended before its worker thread", extra={"threads": self.name})

        return run

    def _forget(self, done: asyncio.Future[Any]) -> None:
        self._awaited.pop(done, None)

    def _abandon(self, done: asyncio.Future[Result], step: str, after: float = 0.0) -> None:
        is_stuck = False

        def count() -> None:
            nonlocal is_stuck
            is_stuck = True
            self._abandoned += 1
            logger.warning("abandoned a worker thread", extra={"threads": self.name, "step": step})

        def returned(late: asyncio.Future[Result]) -> None:
            if is_stuck:
                self._abandoned -= 1
            elif timer is not None:
                timer.cancel()
            if not late.cancelled():
                late.exception()

        timer = asyncio.get_running_loop().call_later(after, count) if after else None
        if timer is None:
            count()
        done.add_done_callback(returned)


def _settle(futures: Iterable[asyncio.Future[Any]], result: Any, error: BaseException | None) -> None:
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
            # Nobody may wait any more; the loop would log it.
            future.exception()


def _serve(jobs: SimpleQueue[Job | None], yielding: bool) -> None:
    if yielding and sys.platform == "linux":
        # There a priority is the thread's own. Where it may not be lowered, work is merely less polite.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    while (job := jobs.get()) is not None:
        job()
        del job
