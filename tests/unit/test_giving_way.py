"""Threads that compute let others have the interpreter; on an event loop nothing ever pauses."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable

import pytest

from knowledge_base.connection import giving_way as module
from knowledge_base.connection.giving_way import giving_way

Pauses = list[tuple[int, float]]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    """Which threads paused, and for how long they asked; a quarter of what a thread may keep passes with each item."""
    found: Pauses = []
    ticks = itertools.count()
    monkeypatch.setattr(module, "KEPT", 1.0)
    monkeypatch.setattr(module, "perf_counter", lambda: next(ticks) / 4)
    monkeypatch.setattr(module, "sleep", lambda seconds: found.append((threading.get_ident(), seconds)))
    return found


def in_thread(function: Callable[[], object]) -> object:
    """Runs a function in a thread and returns its result."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


@pytest.mark.parametrize("number", [0, 1, 100])
def test_items_come_in_order(number: int) -> None:
    assert in_thread(lambda: list(giving_way(range(number)))) == list(range(number))


async def test_items_come_in_order_on_an_event_loop() -> None:
    assert list(giving_way("abc")) == ["a", "b", "c"]


def test_thread_pauses_as_often_as_its_time_is_up(pauses: Pauses) -> None:
    in_thread(lambda: list(giving_way(range(100))))

    assert len(pauses) == 20
    assert {seconds for _, seconds in pauses} == {0}


async def test_event_loop_never_pauses(pauses: Pauses) -> None:
    list(giving_way(range(100)))

    assert pauses == []


async def test_thread_of_an_event_loop_pauses_in_its_workers_only(pauses: Pauses) -> None:
    await asyncio.to_thread(lambda: list(giving_way(range(100))))

    assert pauses
    assert threading.get_ident() not in {thread for thread, _ in pauses}


def test_items_are_not_read_ahead() -> None:
    source = iter(range(3))

    for item in giving_way(source):
        assert list(source) == [1, 2] if item == 0 else pytest.fail("read ahead")
