"""Long jobs outlast what is soon over: a server that restarts, a moment of overload."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from knowledge_base.connection.deadline import current_deadline
from knowledge_base.errors import UnavailableError

Result = TypeVar("Result")

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts; together longer than a circuit stays open."""


async def patiently(work: Callable[[bool], Awaitable[Result]]) -> Result:
    """Does something, again and again while something that it needs is away.

    Args:
        work: What to do; told whether it is not the first time.

    Raises:
        UnavailableError: It is away for longer, or the call's budget is spent.
    """
    for attempt, pause in enumerate(PAUSES):
        try:
            return await work(attempt > 0)
        except UnavailableError:
            call = current_deadline()
            if call is not None and call.remaining <= pause:
                raise
        await asyncio.sleep(pause)
    return await work(True)
