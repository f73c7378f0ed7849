"""Listeners: told of every event, on their own, and unable to harm anybody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from knowledge_base.connection.deadline import current_deadline, deadline
from knowledge_base.connection.workload import in_job, job
from knowledge_base.errors import InvalidInputError
from knowledge_base.telemetry import hooks
from knowledge_base.telemetry.hooks import add_listener, emit, remove_listener

Events = list[tuple[str, Mapping[str, Any]]]


@pytest.fixture(autouse=True)
def no_listener_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_listeners", [])


@pytest.fixture
def events() -> Iterator[Events]:
    told: Events = []

    def listen(event: str, values: Mapping[str, Any]) -> None:
        told.append((event, values))

    add_listener(listen)
    yield told
    remove_listener(listen)


def test_listener_is_told_of_each_event_in_order(events: Events) -> None:
    emit("first", {"n": 1})
    emit("second", {})

    assert events == [("first", {"n": 1}), ("second", {})]


def test_removed_listener_is_told_nothing() -> None:
    told: list[str] = []

    def listen(event: str, _: Mapping[str, Any]) -> None:
        told.append(event)

    add_listener(listen)
    add_listener(listen)
    emit("first", {})
    remove_listener(listen)
    emit("second", {})
    remove_listener(listen)

    assert told == ["first"]


@pytest.mark.parametrize("error", [RuntimeError("secret words"), asyncio.CancelledError(), StopIteration()])
def test_failing_listener_harms_nobody(
    error: BaseException, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def fail(*_: Any) -> None:
        raise error

    add_listener(fail)
    add_listener(lambda event, _: told.append(event))

    emit("event", {})

    assert told == ["event"]
    assert "secret" not in caplog.text
    assert [record.__dict__["reason"] for record in caplog.records if record.levelno == logging.WARNING] == [
        type(error).__name__
    ]


def test_listener_that_changes_the_values_changes_only_its_own(events: Events) -> None:
    values = {"histogram": [1, 2]}

    def spoil(_: str, own: Mapping[str, Any]) -> None:
        own["histogram"].clear()

    hooks._listeners.insert(0, spoil)
    emit("event", values)

    assert values == {"histogram": [1, 2]}
    assert events == [("event", {"histogram": [1, 2]})]


def test_listener_that_removes_itself_hides_nothing_from_the_next(events: Events) -> None:
    def once(*_: Any) -> None:
        remove_listener(once)

    hooks._listeners.insert(0, once)

    emit("event", {})

    assert [event for event, _ in events] == ["event"]


async def test_listener_has_neither_our_deadline_nor_our_job() -> None:
    found: list[Any] = []
    add_listener(lambda *_: found.extend([current_deadline(), in_job()]))

    async with deadline("a call", 10.0):
        with job():
            emit("event", {})

    assert found == [None, False]


async def _coroutine(_: str, __: Mapping[str, Any]) -> None:
    """Would never be awaited."""


@pytest.mark.parametrize("bad", [None, 3, "print", _coroutine])
def test_what_cannot_be_called_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidInputError, match="listener"):
        add_listener(bad)


def test_events_are_logged_at_debug_only(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="knowledge_base.telemetry"):
        emit("event", {"n": 1})

    assert [(record.levelname, record.__dict__["values"]) for record in caplog.records] == [("DEBUG", {"n": 1})]
