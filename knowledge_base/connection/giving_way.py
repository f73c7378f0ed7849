"""Threads that compute let others, the event loop above all, have the interpreter."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from time import perf_counter, sleep
from typing import TypeVar

Item = TypeVar("Item")

KEPT = 0.001
"""Seconds that a computing thread keeps the interpreter. Left alone it keeps it for 5 ms, whoever waits for it."""


def giving_way(items: Iterable[Item]) -> Iterator[Item]:
    """Yields items and, in a worker thread, lets waiting threads go first about once in a millisecond.

    On an event loop it only yields the items: pausing there would hold up everybody.

    Args:
        items: What is worked on, one piece at a time.
    """
    if _is_event_loop():
        yield from items
        return
    began = perf_counter()
    for item in items:
        yield item
        if perf_counter() - began > KEPT:
            # Gives the interpreter's lock to a thread that waits for it; costs a microsecond when none does.
            sleep(0)
            began = perf_counter()


def _is_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
