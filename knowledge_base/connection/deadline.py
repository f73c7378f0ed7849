"""The one deadline of a public call, carried down in a context variable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TypeVar

from knowledge_base.errors import OperationTimeoutError

Result = TypeVar("Result")

GRACE = 0.05
"""Seconds that the step under way gets to report its own, more telling, timeout."""

_current: ContextVar[Deadline | None] = ContextVar("knowledge_base_deadline", default=None)


class Deadline:
    """When a call must be back, and what it was doing last.

    Args:
        operation: The call, as named in errors.
        budget: Seconds that it may take from now on.
    """

    __slots__ = ("budget", "expires", "operation", "step")

    def __init__(self, operation: str, budget: float) -> None:
        self.operation = operation
        self.budget = budget
        self.expires = time.monotonic() + budget
        self.step: str | None = None

    @property
    def remaining(self) -> float:
        """Seconds that are left; below zero when it is late."""
        return self.expires - time.monotonic()

    def timed_out(self) -> OperationTimeoutError:
        """Returns the error of a call that is late."""
        return OperationTimeoutError(self.operation, self.budget, self.step)


def current_deadline() -> Deadline | None:
    """Returns the deadline of the call under way, if there is one."""
    return _current.get()


def forget_deadline() -> None:
    """Lets what runs in this context have a deadline of its own, or none."""
    _current.set(None)


def enter_step(step: str, limit: float) -> float:
    """Names the step that begins and returns the seconds that it may take.

    Args:
        step: The step, as named in errors.
        limit: The cap of its kind, in seconds.

    Raises:
        OperationTimeoutError: The call's budget is spent already.
    """
    call = _current.get()
    if call is None:
        return limit
    call.step = step
    remaining = call.remaining
    if remaining <= 0:
        raise call.timed_out()
    return min(limit, remaining)


async def bounded(awaitable: Awaitable[Result], seconds: float) -> Result:
    """Waits for something, for some time, and never loses the caller's cancellation.

    Before Python 3.12 ``asyncio.wait_for`` gives the outcome, and forgets the cancellation, when both come together.

    Args:
        awaitable: What to wait for; cancelled when it is late.
        seconds: How long to wait.

    Raises:
        TimeoutError: It was late.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelled_before = task.cancelling()
    inner = asyncio.ensure_future(awaitable)
    inner.add_done_callback(_retrieve)
    try:
        return await asyncio.wait_for(inner, seconds)
    finally:
        if task.cancelling() > cancelled_before:
            raise asyncio.CancelledError


def _retrieve(done: asyncio.Future[Result]) -> None:
    # What fails while it is being cancelled has nobody left to tell; the loop would log it.
    if not done.cancelled():
        done.exception()


class DeadlineScope:
    """Bounds what is done inside; made by ``deadline``. A class, since hundreds a second are entered.

    Args:
        own: The deadline.
    """

    __slots__ = ("_own", "_timeout", "_token")

    def __init__(self, own: Deadline) -> None:
        self._own = own
        self._token: Token[Deadline | None] | None = None
        self._timeout = asyncio.timeout(max(0.0, own.remaining) + GRACE)

    async def __aenter__(self) -> Deadline:
        await self._timeout.__aenter__()
        self._token = _current.set(self._own)
        return self._own

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        _current.reset(self._token)
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as late:
            raise self._own.timed_out() from late


def deadline(operation: str, budget: float) -> DeadlineScope:
    """Bounds what is done inside ``async with``; within another deadline, the earlier one counts.

    Args:
        operation: The call, as named in errors.
        budget: Seconds that it may take.

    Raises:
        OperationTimeoutError: The budget was spent.
    """
    own = Deadline(operation, budget)
    outer = _current.get()
    if outer is not None and outer.expires < own.expires:
        own.expires, own.budget = outer.expires, max(0.0, outer.remaining)
    return DeadlineScope(own)


def share_of_deadline(step: str, share: float) -> AbstractAsyncContextManager[Deadline | None]:
    """Gives a stage a share of what is left, so that others after it still have time.

    Args:
        step: The stage, as named in errors.
        share: Its share, above 0 and below 1; without a deadline the stage is not bounded here.

    Raises:
        OperationTimeoutError: The share was spent.
    """
    call = _current.get()
    return nullcontext() if call is None else deadline(step, max(0.0, call.remaining) * share)
