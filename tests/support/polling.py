"""Waiting for what must become true, without fixed sleeps."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PAUSE = 0.01


async def eventually(predicate: Callable[[], Any], within: float = 10.0) -> Any:
    """Polls until the predicate gives something true, and returns that.

    Args:
        predicate: Called again and again; may be a coroutine function.
        within: Seconds after which the test fails.
    """
    ends = time.monotonic() + within
    while True:
        outcome = predicate()
        value = await outcome if inspect.isawaitable(outcome) else outcome
        if value:
            return value
        assert time.monotonic() < ends, f"not within {within:g} s: {value!r}"
        await asyncio.sleep(PAUSE)
