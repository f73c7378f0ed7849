"""Callers that ask at the same time, and how long each waits. Only the standard library: peers run it as well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.soak.stalls import heartbeat

Ask = Callable[[int], Awaitable[Any]]


def percentile(values: list[float], share: float) -> float:
    """A percentile by nearest rank."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))]


async def measured(ask: Ask, callers: int, seconds: float) -> dict[str, float]:
    """Lets so many callers ask one question after the other for some time.

    Args:
        ask: Asks the question of a number.
        callers: How many ask at the same time.
        seconds: For how long.

    Returns:
        Answers a second, milliseconds that one takes, how late the event loop was, and the processor's time of this
        process for an answer in milliseconds.
    """
    took: list[float] = []
    numbers = iter(range(10**9))
    loop_time = time.perf_counter

    async def caller(until: float) -> None:
        while (begun := loop_time()) < until:
            await ask(next(numbers))
            took.append((loop_time() - begun) * 1000)

    cpu = time.process_time()
    begun = loop_time()
    async with heartbeat() as (beats, _):
        await asyncio.gather(*(caller(begun + seconds) for _ in range(callers)))
    lasted = loop_time() - begun
    return {
        "per_second": len(took) / lasted,
        "p50_ms": percentile(took, 0.5),
        "p95_ms": percentile(took, 0.95),
        "stall_p999_ms": beats.late.percentile(0.999),
        "stall_worst_ms": beats.late.worst,
        "cpu_ms": (time.process_time() - cpu) / len(took) * 1000,
    }
