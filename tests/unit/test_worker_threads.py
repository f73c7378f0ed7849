"""Worker threads: bounded, honest about what is abandoned, and transparent for errors."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from knowledge_base.connection import worker_threads
from knowledge_base.connection.deadline import deadline
from knowledge_base.connection.worker_threads import WorkerThreads
from knowledge_base.errors import OperationTimeoutError, OverloadedError, UnavailableError
from tests.support.polling import eventually
from tests.support.pools import pool_stats

SHORT = 0.02
LONG = 100.0

asked_by: ContextVar[str] = ContextVar("asked_by", default="nobody")


class Blocker:
    """A function that blocks its thread until the test lets it go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.released = threading.Event()
        self.error: BaseException | None = None

    def __call__(self) -> str:
        self.begun.set()
        assert self.released.wait(20.0)
        if self.error is not None:
            raise self.error
        return "done"


@pytest.fixture
def new_blocker() -> Iterator[Callable[[], Blocker]]:
    made: list[Blocker] = []

    def make() -> Blocker:
        made.append(Blocker())
        return made[-1]

    yield make
    for one in made:
        one.released.set()


@pytest.fixture
def blocker(new_blocker: Callable[[], Blocker]) -> Blocker:
    return new_blocker()


@pytest.fixture
def new_threads() -> Iterator[Callable[..., WorkerThreads]]:
    made: list[WorkerThreads] = []

    def make(threads: int = 1, waiting: int = 10) -> WorkerThreads:
        made.append(WorkerThreads("index", threads=threads, waiting=waiting))
        return made[-1]

    yield make
    for one in made:
        one.close()


def call(threads: WorkerThreads, function: Callable[..., Any], *args: Any, limit: float = LONG) -> asyncio.Task[Any]:
    return asyncio.create_task(threads.to_thread(function, *args, step="LlamaIndex insert", limit=limit))


async def abandon(threads: WorkerThreads, blocker: Blocker) -> None:
    """Leaves a thread with a function that its caller no longer waits for."""
    with pytest.raises(OperationTimeoutError):
        await call(threads, blocker, limit=SHORT)


async def test_function_runs_in_a_thread_with_its_arguments(new_threads: Callable[..., WorkerThreads]) -> None:
    threads = new_threads()

    def work(first: int, second: int) -> tuple[int, str, bool]:
        own = threading.current_thread()
        return first + second, own.name, own.daemon

    assert threads.stats()["connections"] == 0
    assert await call(threads, work, 1, 2) == (3, "kb-index", True)
    assert threads.stats() == pool_stats(1, 1, waiting_limit=10)


async def test_context_variables_are_copied(new_threads: Callable[..., WorkerThreads]) -> None:
    threads = new_threads()
    asked_by.set("ann")

    def work() -> str:
        found = asked_by.get()
        asked_by.set("the thread")
        return found

    assert await call(threads, work) == "ann"
    asked_by.set("bob")
    assert await call(threads, work) == "bob"
    assert asked_by.get() == "bob"


async def test_no_more_threads_are_made_than_are_needed(new_threads: Callable[..., WorkerThreads]) -> None:
    threads = new_threads(threads=4)

    for number in range(10):
        assert await call(threads, lambda value: value, number) == number

    assert threads.stats()["connections"] == 1


async def test_as_many_run_at_once_as_there_are_threads(
    new_threads: Callable[..., WorkerThreads], new_blocker: Callable[[], Blocker]
) -> None:
    threads = new_threads(threads=3)
    blockers = [new_blocker() for _ in range(5)]

    tasks = [call(threads, one) for one in blockers]
    await eventually(lambda: sum(one.begun.is_set() for one in blockers) == 3)

    assert threads.stats() == pool_stats(3, 3, in_use=3, waiting=2, waiting_limit=10)
    for one in blockers:
        one.released.set()
    assert await asyncio.gather(*tasks) == ["done"] * 5
    assert threads.stats() == pool_stats(3, 3, waiting_limit=10)


async def test_too_many_waiting_calls_are_refused(new_threads: Callable[..., WorkerThreads], blocker: Blocker) -> None:
    threads = new_threads(waiting=1)
    running = call(threads, blocker)
    waiting = call(threads, lambda: "second")
    await eventually(lambda: threads.stats()["waiting"] == 1)

    with pytest.raises(OverloadedError) as caught:
        await call(threads, lambda: "third")

    assert "index" in caught.value.resource
    blocker.released.set()
    assert list(await asyncio.gather(running, waiting)) == ["done", "second"]


async def test_wait_for_a_thread_is_bounded(new_threads: Callable[..., WorkerThreads], blocker: Blocker) -> None:
    threads = new_threads()
    running = call(threads, blocker)
    await eventually(blocker.begun.is_set)

    with pytest.raises(OverloadedError):
        await call(threads, lambda: "second", limit=SHORT)

    assert threads.stats()["waiting"] == 0
    blocker.released.set()
    assert await running == "done"
    assert await call(threads, lambda: "third") == "third"


async def test_late_call_is_told_and_named(new_threads: Callable[..., WorkerThreads], blocker: Blocker) -> None:
    with pytest.raises(OperationTimeoutError) as caught:
        await call(new_threads(), blocker, limit=SHORT)

    assert caught.value.spent_in == "LlamaIndex insert"
    assert caught.value.budget == SHORT


async def test_callers_deadline_bounds_the_call(new_threads: Callable[..., WorkerThreads], blocker: Blocker) -> None:
    with pytest.raises(OperationTimeoutError) as caught:
        async with deadline("store_fact", SHORT):
            await new_threads().to_thread(blocker, step="LlamaIndex insert", limit=LONG)

    assert (caught.value.operation, caught.value.budget) == ("store_fact", SHORT)
    assert caught.value.spent_in == "LlamaIndex insert"


async def test_spent_deadline_begins_nothing(new_threads: Callable[..., WorkerThreads]) -> None:
    threads = new_threads()

    async with deadline("store_fact", LONG) as own:
        own.expires -= 2 * LONG
        with pytest.raises(OperationTimeoutError) as caught:
            await threads.to_thread(pytest.fail, "it was begun", step="LlamaIndex insert", limit=LONG)

    assert (caught.value.operation, caught.value.spent_in) == ("store_fact", "LlamaIndex insert")
    assert threads.stats()["connections"] == 0


async def test_abandoned_call_keeps_its_place_until_the_function_returns(
    new_threads: Callable[..., WorkerThreads], blocker: Blocker
) -> None:
    threads = new_threads(threads=2)
    await abandon(threads, blocker)
    assert (threads.abandoned, threads.in_use) == (1, 1)

    running = [call(threads, lambda: "free") for _ in range(3)]
    assert await asyncio.gather(*running) == ["free"] * 3
    assert (threads.abandoned, threads.in_use) == (1, 1)

    blocker.released.set()
    await eventually(lambda: threads.in_use == 0)
    assert threads.abandoned == 0


async def test_call_is_refused_at_once_when_every_thread_is_abandoned(
    new_threads: Callable[..., WorkerThreads], blocker: Blocker
) -> None:
    threads = new_threads(waiting=1_000)
    await abandon(threads, blocker)

    with pytest.raises(OverloadedError):
        # No waiting was needed: the limit is longer than the test may take.
        await asyncio.wait_for(call(threads, lambda: "never", limit=LONG), 10.0)

    assert threads.stats()["waiting"] == 0
    blocker.released.set()
    await eventually(lambda: threads.abandoned == 0)
    assert await call(threads, lambda: "again") == "again"


async def test_thread_of_a_cancelled_caller_is_abandoned_unless_it_is_soon_back(
    new_threads: Callable[..., WorkerThreads], blocker: Blocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_threads, "SOON", SHORT)
    threads = new_threads()
    task = call(threads, blocker)
    await eventually(blocker.begun.is_set)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (threads.abandoned, threads.in_use) == (0, 1)
    await eventually(lambda: threads.abandoned == 1)
    blocker.released.set()
    await eventually(lambda: (threads.abandoned, threads.in_use) == (0, 0))


async def test_thread_of_a_cancelled_caller_that_is_back_was_never_abandoned(
    new_threads: Callable[..., WorkerThreads], blocker: Blocker, caplog: pytest.LogCaptureFixture
) -> None:
    threads = new_threads()
    task = call(threads, blocker)
    await eventually(blocker.begun.is_set)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    blocker.released.set()
    await eventually(lambda: threads.in_use == 0)

    assert threads.abandoned == 0
    assert caplog.records == []


async def test_cancelled_wait_for_a_thread_leaves_nothing(
    new_threads: Callable[..., WorkerThreads], blocker: Blocker
) -> None:
    threads = new_threads()
    running = call(threads, blocker)
    waiting = call(threads, pytest.fail, "it was begun")
    await eventually(lambda: threads.stats()["waiting"] == 1)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert threads.stats()["waiting"] == 0
    assert threads.abandoned == 0
    blocker.released.set()
    assert await running == "done"


class OwnError(Exception):
    pass


@pytest.mark.parametrize(
    "error",
    [OwnError("mine"), TimeoutError("mine"), OperationTimeoutError("mine", 1.0), SystemExit(3)],
    ids=lambda value: type(value).__name__,
)
async def test_error_of_the_function_comes_through(
    new_threads: Callable[..., WorkerThreads], error: BaseException
) -> None:
    threads = new_threads()

    def work() -> None:
        raise error

    found: BaseException | None = None
    try:
        await threads.to_thread(work, step="LlamaIndex insert", limit=LONG)
    except BaseException as caught:
        found = caught

    assert found is error
    assert (threads.abandoned, threads.in_use) == (0, 0)


async def test_stop_iteration_of_the_function_does_not_hang_the_caller(
    new_threads: Callable[..., WorkerThreads],
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    with pytest.raises(RuntimeError):
        await call(new_threads(), lambda: next(iter(())), limit=1.0)

    assert complaints == []


@pytest.mark.parametrize("error", [None, OwnError("late")])
async def test_late_outcome_of_an_abandoned_call_is_silent(
    new_threads: Callable[..., WorkerThreads], blocker: Blocker, error: Exception | None
) -> None:
    threads = new_threads()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    blocker.error = error
    await abandon(threads, blocker)

    blocker.released.set()
    await eventually(lambda: threads.abandoned == 0)
    gc.collect()

    assert complaints == []


async def test_abandoning_is_logged_with_the_step(
    new_threads: Callable[..., WorkerThreads], blocker: Blocker, caplog: pytest.LogCaptureFixture
) -> None:
    await abandon(new_threads(), blocker)

    (record,) = caplog.records
    assert (record.levelname, record.__dict__["threads"], record.__dict__["step"]) == (
        "WARNING",
        "index",
        "LlamaIndex insert",
    )


async def test_closed_threads_end_and_refuse(new_threads: Callable[..., WorkerThreads]) -> None:
    threads = new_threads(threads=2)
    await asyncio.gather(call(threads, lambda: 1), call(threads, lambda: 2))

    threads.close()

    assert await threads.wait_closed(LONG)
    assert not [thread for thread in threading.enumerate() if thread in threads._threads]
    with pytest.raises(UnavailableError, match="closed"):
        await call(threads, lambda: 1)


async def test_closing_waits_for_no_busy_thread_which_ends_by_itself(
    new_threads: Callable[..., WorkerThreads], blocker: Blocker
) -> None:
    threads = new_threads()
    await abandon(threads, blocker)

    threads.close()

    assert not await threads.wait_closed(0.0)
    blocker.released.set()
    assert await threads.wait_closed(LONG)


async def test_call_under_way_is_finished_by_closed_threads(
    new_threads: Callable[..., WorkerThreads], blocker: Blocker
) -> None:
    threads = new_threads()
    running = call(threads, blocker)
    await eventually(blocker.begun.is_set)

    threads.close()
    blocker.released.set()

    assert await running == "done"


async def test_call_that_waits_while_the_threads_are_closed_is_told(
    new_threads: Callable[..., WorkerThreads], blocker: Blocker
) -> None:
    threads = new_threads()
    running = call(threads, blocker)
    waiting = call(threads, lambda: "second", limit=1.0)
    await eventually(lambda: threads.stats()["waiting"] == 1)

    threads.close()
    blocker.released.set()
    found = await asyncio.gather(running, waiting, return_exceptions=True)

    assert found[0] == "done"
    assert found[1] == "second" or type(found[1]) is UnavailableError
    assert threads.in_use == 0


def test_thread_that_outlives_its_loop_ends_quietly(blocker: Blocker) -> None:
    async def main() -> WorkerThreads:
        threads = WorkerThreads("index", threads=1, waiting=1)
        await abandon(threads, blocker)
        return threads

    threads = asyncio.run(main())
    blocker.released.set()
    threads.close()

    (thread,) = threads._threads
    thread.join(20.0)
    assert not thread.is_alive()
