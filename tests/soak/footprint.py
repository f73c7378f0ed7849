"""What the process and the server hold, looked at every second and summed up every minute."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import redis

from tests.support.control import Control

BYTES_PER_MEGABYTE = 1_048_576
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_megabytes(pid: int | str = "self") -> float:
    """Memory of a process; 0 when it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * PAGE_BYTES / BYTES_PER_MEGABYTE


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def server_connections(url: str) -> int | None:
    """Connections to the server but for the one that asks; None when it does not answer."""
    control = Control(url)
    try:
        return len(control.connections()) - 1
    except redis.RedisError:
        return None
    finally:
        control.close()


@dataclass(frozen=True)
class Footprint:
    """Medians over some time; connections count only while the server answers."""

    resident: float
    threads: float
    descriptors: float
    connections: float
    tasks: float

    def told(self) -> str:
        return (
            f"RSS {self.resident:.1f} MB, threads {self.threads:.0f}, descriptors {self.descriptors:.0f}, "
            f"connections {self.connections:.0f}, tasks {self.tasks:.0f}"
        )


class Samples:
    """Looks every second, in a thread where the server has to be asked."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._taken: list[tuple[float, int, int, int | None, int]] = []

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            await asyncio.sleep(1)
            await self.take()

    async def take(self) -> None:
        # A fault may begin between the question and the answer.
        connections = None
        with contextlib.suppress(redis.RedisError):
            connections = await asyncio.to_thread(server_connections, self._url)
        self._taken.append(
            (
                resident_megabytes(),
                threading.active_count(),
                open_descriptors(),
                connections,
                len(asyncio.all_tasks()),
            )
        )

    def summed_up(self) -> Footprint:
        """Returns the medians since the last time."""
        taken, self._taken = self._taken, []
        resident, threads, descriptors, connections, tasks = zip(*taken, strict=True)
        answered = [count for count in connections if count is not None]
        return Footprint(median(resident), median(threads), median(descriptors), median(answered or [0]), median(tasks))
