"""Processes of ours that are killed while they store, and the one that completes what they left."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knowledge_base.keyspace import Keyspace
from tests.support.embedded import client_of
from tests.support.many_stores import Survey, content
from tests.support.polling import eventually
from tests.support.storing_process import DONE, HANGING

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

LOOKS_EVERY = 0.05
STARTS_WITHIN = 60.0
COMPLETED_WITHIN = 120.0


@dataclass
class StoringProcess:
    """A storing process, and what it was told is stored."""

    url: str
    namespace: str
    mood: str
    lease: float
    numbers: range
    acknowledged: dict[str, str] = field(default_factory=dict)
    is_done: bool = False

    def __post_init__(self) -> None:
        arguments = [self.url, self.namespace, self.mood, self.lease, self.numbers.start, self.numbers.stop]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.storing_process", *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, name="storing-process-reader")
        self._reader.start()

    @property
    def ended(self) -> bool:
        """Whether it ended, by itself or killed."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """Ends it with SIGKILL and reads what it still had said."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.strip() == DONE:
                    self.is_done = True
                elif line.endswith("\n"):
                    number, fact_id = line.split()
                    self.acknowledged[content(int(number))] = fact_id


class VectorWatch:
    """Looks, from a thread of its own, how long facts wait for their vectors.

    Args:
        url: The server.
        namespace: Whose facts.
    """

    def __init__(self, url: str, namespace: str) -> None:
        self.longest = 0.0
        """Seconds between storing a fact and the last time that it was seen waiting."""
        self._url = url
        self._keys = Keyspace(namespace)
        self._ended = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[VectorWatch]:
        """Looks for as long as the block runs."""
        thread = threading.Thread(target=self._look, name="vector-watch")
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()

    def _look(self) -> None:
        born: dict[str, float] = {}
        with client_of(self._url) as client:
            while not self._ended.wait(LOOKS_EVERY):
                waiting: Any = client.zrange(self._keys.pending, 0, -1)
                now = time.time()
                for fact_id in waiting:
                    if fact_id not in born:
                        created: Any = client.hget(self._keys.fact(fact_id), "created_at")
                        born[fact_id] = now if created is None else int(created) / 1000
                    self.longest = max(self.longest, now - born[fact_id])


@dataclass(frozen=True)
class OursReport:
    """What a run has shown."""

    stores: int
    kills: int
    pending_at_kills: list[int]
    longest_wait: float
    """Seconds that a fact was without its vector, at most."""
    survey: Survey


async def store_in_killed_processes(
    kb: KnowledgeBase, url: str, moods: list[str], stores: int, lease: float
) -> OursReport:
    """Stores facts in one process after the other, each killed in the midst of it, and completes what they left.

    Args:
        kb: A base on the same server; it works from the first kill on, as the next process would.
        url: The server.
        moods: How the model of each process behaves.
        stores: How many facts in all.
        lease: Seconds that a process has for a fact.
    """
    share = stores // len(moods)
    pending: list[int] = []
    acknowledged: dict[str, str] = {}
    namespace = kb.settings.namespace
    with client_of(url) as client, VectorWatch(url, namespace).watching() as watch:
        for at, mood in enumerate(moods):
            process = StoringProcess(url, namespace, mood, lease, range(at * share, (at + 1) * share))

            def enough(process: StoringProcess = process) -> bool:
                # One that hangs has taken what is pending; others are killed at half of their work.
                told = len(process.acknowledged)
                return process.ended or told >= (share - 1 if process.mood == HANGING else share // 2)

            try:
                await eventually(enough, STARTS_WITHIN + share)
            finally:
                await asyncio.to_thread(process.kill)
            assert not process.is_done, "the process was done before it was killed"
            left: Any = client.zcard(Keyspace(namespace).pending)
            pending.append(left)
            acknowledged |= process.acknowledged
            await kb.start()

        async def all_indexed() -> bool:
            return (await kb.get_stats())["pending"] == 0

        await eventually(all_indexed, COMPLETED_WITHIN)
    survey = await Survey.taken(kb, url, acknowledged)
    return OursReport(stores, len(moods), pending, watch.longest, survey)
