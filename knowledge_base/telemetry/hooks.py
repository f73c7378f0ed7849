"""Listeners that are told what was done: counts, times and similarities, never content, queries or names."""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from knowledge_base.connection.workload import call_outside
from knowledge_base.errors import InvalidInputError

logger = logging.getLogger(__name__)

RETRIEVAL = "retrieval"
"""The event of a retrieval for RAG; its values are ``RAGOperationMetrics``."""

Listener: TypeAlias = Callable[[str, Mapping[str, Any]], None]
"""Called with the name of an event and its values, which are the listener's own."""

_listeners: list[Listener] = []


def add_listener(listener: Listener) -> None:
    """Tells a function of every event of this process from now on, in the event loop of whoever caused it.

    Args:
        listener: Must return at once; what it raises is logged and harms nobody. One that is there already is not
            added again.

    Raises:
        InvalidInputError: It cannot be called, or has to be awaited.
    """
    check_listener("listener", listener)
    if listener not in _listeners:
        _listeners.append(listener)


def check_listener(field: str, listener: Any) -> None:
    """Refuses what cannot be told at once.

    Args:
        field: The argument's name.
        listener: What the caller passed.

    Raises:
        InvalidInputError: It cannot be called, or has to be awaited.
    """
    if not callable(listener):
        raise InvalidInputError(field, f"must be a function, not {type(listener).__name__}")
    if inspect.iscoroutinefunction(listener) or inspect.iscoroutinefunction(type(listener).__call__):
        raise InvalidInputError(field, "must not be a coroutine function; start a task in it instead")


def remove_listener(listener: Listener) -> None:
    """Tells a function nothing any more; does nothing when it was told nothing.

    Args:
        listener: What ``add_listener`` was given.
    """
    if listener in _listeners:
        _listeners.remove(listener)


def emit(event: str, values: Mapping[str, Any]) -> None:
    """Tells every listener, and the log at DEBUG.

    Args:
        event: Its name.
        values: Numbers, names of parts of the package, and lists and mappings of them.
    """
    logger.debug("%s", event, extra={"event": event, "values": values})
    for listener in _listeners.copy():
        tell(listener, event, event, copy.deepcopy(dict(values)))


def tell(listener: Callable[..., None], event: str, *arguments: Any) -> None:
    """Calls a function of the user's; what it raises is logged.

    Args:
        listener: The function.
        event: What it is told about, for the log.
        *arguments: What it is called with.
    """
    try:
        call_outside(listener, *arguments)
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - theirs; nobody here may suffer from it
        logger.warning("a listener failed", extra={"event": event, "reason": type(error).__name__})
