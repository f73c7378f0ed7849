"""What a closed knowledge base must not leave behind."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

from tests.support.control import Control
from tests.support.polling import eventually

# The loop's own executor ends with the loop, after every fixture.
LOOP_THREADS = "asyncio_"


def _tasks() -> set[asyncio.Task[Any]]:
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current and not task.done()}


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.name.startswith(LOOP_THREADS)}


@dataclass(frozen=True)
class Footprint:
    """The tasks, threads and server connections at one moment."""

    tasks: set[asyncio.Task[Any]]
    threads: set[threading.Thread]
    clients: int

    @classmethod
    def taken(cls, control: Control) -> Footprint:
        """Returns the footprint of now."""
        return cls(_tasks(), _threads(), len(control.connections()))

    def leaked(self, control: Control) -> list[str]:
        """Returns what is there now and was not then."""
        tasks = [f"task {task.get_name()}: {task.get_coro()}" for task in _tasks() - self.tasks]
        threads = [f"thread {thread.name}" for thread in _threads() - self.threads]
        clients = control.connections()
        connections = [f"connection: {client}" for client in clients] if len(clients) > self.clients else []
        return tasks + threads + connections

    async def assert_regained(self, control: Control, within: float = 10.0) -> None:
        """Fails when something is left that was not there before."""
        found: list[str] = []

        def clean() -> bool:
            found[:] = self.leaked(control)
            return not found

        try:
            await eventually(clean, within)
        except AssertionError:
            raise AssertionError("left behind:\n  " + "\n  ".join(found)) from None
