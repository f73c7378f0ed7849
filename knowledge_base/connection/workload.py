"""Whether what is awaited is a job, which must not hold up those who wait for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from knowledge_base.connection.deadline import forget_deadline
from knowledge_base.connection.worker_threads import WorkerThreads
from knowledge_base.types import PoolStats

Result = TypeVar("Result")

_is_job: ContextVar[bool] = ContextVar("knowledge_base_is_job", default=False)


def in_job() -> bool:
    """Returns whether a job is under way: it uses connections and threads of its own."""
    return _is_job.get()


@contextmanager
def job() -> Iterator[None]:
    """Makes what is awaited inside a job."""
    token = _is_job.set(True)
    try:
        yield
    finally:
        _is_job.reset(token)


def call_outside(function: Callable[..., Result], *args: Any) -> Result:
    """Calls a function of the user's as if outside the job: what it starts has neither our deadline nor our pool.

    Args:
        function: What to call.
        *args: Its arguments.
    """

    def call() -> Result:
        _is_job.set(False)
        forget_deadline()
        return function(*args)

    return copy_context().run(call)


class WorkloadThreads:
    """Worker threads for those who wait for an answer, and others for jobs; all of them yield to the event loop.

    Args:
        name: The kind of work, as named in errors and in the threads' names.
        threads: How many of each run at once.
        waiting: How many calls may wait for one of each.
    """

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        self._name = name
        self._threads = WorkerThreads(name, threads=threads, waiting=waiting, yielding=True)
        self._job_threads = WorkerThreads(f"{name} for jobs", threads=threads, waiting=waiting, yielding=True)

    async def to_thread(self, function: Callable[..., Result], *args: Any, step: str, limit: float) -> Result:
        """Runs a blocking function in a thread; see ``WorkerThreads.to_thread``.

        Args:
            function: What to run.
            *args: Its arguments.
            step: The step, as named in errors.
            limit: Seconds that it may take, the wait for a thread included.
        """
        threads = self._job_threads if in_job() else self._threads
        return await threads.to_thread(function, *args, step=step, limit=limit)

    def stats(self) -> dict[str, PoolStats]:
        """Returns the use of the threads."""
        return {
            f"{self._name} threads": self._threads.stats(),
            f"{self._name} threads for jobs": self._job_threads.stats(),
        }

    async def close(self, within: float) -> None:
        """Ends the threads.

        Args:
            within: Seconds to wait at most for those that are busy.
        """
        both = (self._threads, self._job_threads)
        for threads in both:
            threads.close()
        await asyncio.gather(*(threads.wait_closed(within) for threads in both))
