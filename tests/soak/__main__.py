"""Mixed load with faults for a long time: ``python -m tests.soak --minutes 60``; exit code 1 when a limit is broken.

Everything that is stored is deleted again, so whatever grows has leaked. The loop's stalls are printed beside their
limits and not judged here, where whatever else the machine does would fail an hour: ``tests.benchmarks mixed_load``
measures them.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time

from knowledge_base import EmbeddingSettings, KnowledgeBase, Settings
from tests.soak.embedding import FailingLocalEmbedding
from tests.soak.faults import Faults, in_turn
from tests.soak.footprint import Footprint, Samples, open_descriptors, resident_megabytes, server_connections
from tests.soak.outcomes import Outcomes
from tests.soak.stalls import Heartbeat, Spread, heartbeat
from tests.soak.workload import Workload, sentences
from tests.support.polling import eventually
from tests.support.server import RedisServer

BASE_FACTS = 300
MINUTE = 60.0
PAUSE = 0.25
BETWEEN_FAULTS = 20.0
WARM_UP_SHARE = 0.2
LEAST_WARM_UP = 2
QUIET_WITHIN = 90.0
BETWEEN_LOOKS = 0.5
CLOSED_WITHIN = 10.0

MOST_MEMORY_GROWTH = 0.05
MOST_COUNT_GROWTH = 0.10
COUNT_SLACK = 2
P999_MS = 20.0
WORST_MS = 100.0


class Soak:
    """One run, and the limits that it broke."""

    def __init__(self, server: RedisServer, minutes: int) -> None:
        self._server = server
        self._minutes = minutes
        self._warm_up = min(minutes - 1, max(LEAST_WARM_UP, round(minutes * WARM_UP_SHARE)))
        self._outcomes = Outcomes()
        self._footprints: list[Footprint] = []
        self.broken: list[str] = []

    async def run(self) -> None:
        model = await asyncio.to_thread(FailingLocalEmbedding.load)
        assert isinstance(model, FailingLocalEmbedding)
        # The cache of query vectors must be full after the warm-up, or it would look like a leak.
        embedding = EmbeddingSettings(cache_size=100)
        threads, descriptors = set(threading.enumerate()), open_descriptors()
        async with KnowledgeBase(
            Settings(redis_url=self._server.url, namespace="soak", embedding=embedding), embed_model=model
        ) as kb:
            load = Workload(kb, self._outcomes, PAUSE)
            await load.prepare(sentences(BASE_FACTS))
            await self._loaded(load, Faults(self._server, model))
            await self._quiet(kb, load)
        await self._nothing_left(threads, descriptors)
        self._judge_growth()
        self._limit(self._outcomes.untyped == 0, f"{self._outcomes.untyped} untyped errors")

    def told(self) -> None:
        """Prints the whole."""
        print("calls by operation:")
        print(self._outcomes.table())
        print(f"calls by outcome: {self._outcomes.by_outcome()}")
        print("reasons of failures:")
        print(self._outcomes.why())
        print("\n".join(self._outcomes.tracebacks))
        print(f"after warm-up: {self._footprints[self._warm_up].told()}")
        print(f"at the end:    {self._footprints[-1].told()}")
        print("\n".join(f"LIMIT BROKEN: {one}" for one in self.broken) or "every limit held")

    async def _loaded(self, load: Workload, faults: Faults) -> None:
        schedule = {
            "server frozen for 4 s": lambda: faults.frozen(4.0),
            "embedder failing for 6 s": lambda: faults.embedder_failing(6.0),
            "server killed, started 1 s later": lambda: faults.killed(1.0),
            "CLIENT PAUSE for 1.5 s": lambda: faults.paused(1.5),
        }
        samples = Samples(self._server.url)
        async with heartbeat() as (beats, _):
            tasks = [
                asyncio.create_task(load.run(load.callers()), name="load"),
                asyncio.create_task(in_turn(schedule, BETWEEN_FAULTS, lambda name: print(f"  {name}", flush=True))),
                asyncio.create_task(samples.run(), name="samples"),
            ]
            minutes = asyncio.create_task(self._every_minute(samples, beats), name="minutes")
            try:
                done, _pending = await asyncio.wait([*tasks, minutes], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in [*tasks, minutes]:
                    task.cancel()
                await asyncio.gather(*tasks, minutes, return_exceptions=True)
        print(_stalls("whole run, late", beats.late))
        print(_stalls("whole run, processor time of the loop's thread", beats.own))

    async def _every_minute(self, samples: Samples, beats: Heartbeat) -> None:
        began = time.monotonic()
        for minute in range(1, self._minutes + 1):
            await asyncio.sleep(began + minute * MINUTE - time.monotonic())
            self._footprints.append(samples.summed_up())
            print(
                f"minute {minute}: {self._footprints[-1].told()}, server {resident_megabytes(self._server.pid):.0f} MB"
            )
            print(f"  {self._outcomes.by_outcome()}; untyped errors {self._outcomes.untyped}")
            print(f"  {_stalls('so far, late', beats.late)}", flush=True)

    async def _quiet(self, kb: KnowledgeBase, load: Workload) -> None:
        """What was stored in passing goes, what was pending is indexed, and only what was there before is left."""
        self._server.thaw()

        async def calm() -> bool:
            await asyncio.sleep(BETWEEN_LOOKS)
            await load.clear()
            stats = await self._outcomes.of("get_stats", kb.get_stats())
            return stats is not None and stats["facts"] == BASE_FACTS and not stats["pending"]

        try:
            await eventually(calm, QUIET_WITHIN)
        except AssertionError:
            self._limit(False, f"{await kb.get_stats()} instead of {BASE_FACTS} facts and none pending")

    async def _nothing_left(self, threads: set[threading.Thread], descriptors: int) -> None:
        def left() -> list[str]:
            found = [thread.name for thread in set(threading.enumerate()) - threads if "asyncio_" not in thread.name]
            more = open_descriptors() - descriptors
            return [*found, *([f"{more} descriptors"] if more > 0 else [])]

        try:
            await eventually(lambda: not left(), CLOSED_WITHIN)
        except AssertionError:
            self._limit(False, f"left after close(): {', '.join(left())}")
        connections = await asyncio.to_thread(server_connections, self._server.url)
        self._limit(not connections, f"left after close(): {connections} connections")

    def _judge_growth(self) -> None:
        warm, last = self._footprints[self._warm_up], self._footprints[-1]
        growth = last.resident / warm.resident - 1
        print(f"RSS: {growth:+.1%} since warm-up ({growth / MOST_MEMORY_GROWTH:.2f} of the limit)")
        self._limit(growth <= MOST_MEMORY_GROWTH, f"RSS grew by {growth:.1%} since warm-up")
        for name in ("threads", "descriptors", "connections", "tasks"):
            before, after = getattr(warm, name), getattr(last, name)
            most = before * (1 + MOST_COUNT_GROWTH) + COUNT_SLACK
            self._limit(after <= most, f"{name} grew from {before:.0f} to {after:.0f}")

    def _limit(self, holds: bool, broken: str) -> None:
        if not holds:
            self.broken.append(broken)


def _stalls(name: str, spread: Spread) -> str:
    p999 = spread.percentile(0.999)
    return (
        f"{name}: p99.9 {p999:.1f} ms ({p999 / P999_MS:.2f} of {P999_MS:.0f}), worst {spread.worst:.1f} ms "
        f"({spread.worst / WORST_MS:.2f} of {WORST_MS:.0f})"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=int, default=60, help="how long, at least 2")
    minutes = parser.parse_args().minutes
    if minutes < LEAST_WARM_UP:
        parser.error(f"--minutes must be at least {LEAST_WARM_UP}")
    server = RedisServer()
    server.start()
    soak = Soak(server, minutes)
    try:
        asyncio.run(soak.run())
    finally:
        server.remove()
    soak.told()
    return 1 if soak.broken else 0


if __name__ == "__main__":
    sys.exit(main())
