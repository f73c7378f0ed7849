"""Search, facts and memory as the base grows, against peers on the same server with the same vectors.

``python -m tests.benchmarks speed [--sizes 1000,20000,100000] [--seconds 1.5] [--no-visitors] [--json FILE]``
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks.speed.bases import grow_own, grow_peer
from tests.benchmarks.speed.contest import (
    HYBRID,
    LLAMAINDEX,
    OWN_SEARCHES,
    RAW,
    SEARCHES,
    VECTOR,
    Contest,
    Way,
)
from tests.benchmarks.speed.figures import Figures, json_path
from tests.benchmarks.speed.passages import Material
from tests.support.server import RedisServer

SIZES = (1_000, 20_000, 100_000)
CALLERS = (1, 10, 100)
JUDGED = 20_000
"""Passages of the base on which the targets are set."""

MANY = 100
READERS = 50
BULK = 2_000
STEADY = tuple(Way(f"get_fact, {name}", "own", what) for name, what in (("by id", "get"), ("a page of 100", "page")))
STATS = Way("get_stats", "own", "stats")
OWN_GET, RAW_GET = Way("get_fact by id", "own", "get"), Way("redis-py, HGETALL", "raw", "get")
OWN_STORE, RAW_STORE = Way("store_fact, indexed", "own", "store"), Way("redis-py, HSET with the vector", "raw", "store")
AT_HOME = ("raw", "llamaindex", "own")

Measured = Mapping[Way, Mapping[str, float]]


class Speed:
    """One run.

    Args:
        contest: The contenders.
        material: The vectors.
        figures: Where the measurements go.
    """

    def __init__(self, contest: Contest, material: Material, figures: Figures) -> None:
        self._contest = contest
        self._material = material
        self._figures = figures
        self._memory = {"own": 0, "peer": 0}

    def run(self, sizes: tuple[int, ...], *, visitors: bool) -> None:
        """Grows the bases from size to size, and measures at each."""
        for module in AT_HOME:
            self._contest.admit(module)
        begin = 0
        for size in sizes:
            self._grow(begin, size)
            self._contest.open(size, AT_HOME)
            self._size(size)
            if size == JUDGED:
                self._judged(size, visitors=visitors)
            begin = size
        self._growth(sizes)

    def _grow(self, first: int, end: int) -> None:
        url, peer = self._contest.url, self._contest.processes["llamaindex"]
        before = self._used()
        asyncio.run(grow_own(url, self._material, first, end))
        between = self._used()
        peer.open(url, self._contest.folder, end)
        grow_peer(peer, first, end)
        self._memory["own"] += between - before
        self._memory["peer"] += self._used() - between
        for name, used in self._memory.items():
            self._figures.row(passages=end, memory_of=name, bytes_each=used / end)
        if end == JUDGED:
            ratio = self._memory["own"] / self._memory["peer"]
            self._figures.ratio(f"memory of a fact / of RedisVectorStore's passage, {end} passages", ratio, most=1.5)

    def _used(self) -> int:
        return int(self._contest.server.info("memory")["used_memory"])

    def _size(self, size: int) -> None:
        self._contest.recall((RAW, LLAMAINDEX, VECTOR), size)
        for callers in CALLERS:
            self._contest.measure(SEARCHES, callers, passages=size)
        for way in OWN_SEARCHES:
            self._alone(way, size)
        self._contest.measure((*STEADY, STATS), 1, passages=size, steady=True)

    def _alone(self, way: Way, size: int) -> None:
        """One caller's time, less the server's own."""
        server = self._contest.server
        server.config_resetstat()
        measured = self._contest.processes[way.module].measure(way.what, 1, self._contest.seconds)
        stats = server.info("commandstats")
        asked = stats["cmdstat_FT.SEARCH"]["calls"] / (2 if way == HYBRID else 1)
        # What a script calls is counted with the script.
        spent = sum(stats[name]["usec"] for name in ("cmdstat_FT.SEARCH", "cmdstat_evalsha") if name in stats)
        server_ms = spent / asked / 1000
        whole = 1000 / measured["per_second"]
        self._figures.row(passages=size, alone=way.name, ms=whole, server_ms=server_ms, client_ms=whole - server_ms)

    def _judged(self, size: int, *, visitors: bool) -> None:
        figures, at = self._figures, {"passages": size, "callers": MANY}
        peer, own = (figures.find("per_second", way=way.name, **at) for way in (LLAMAINDEX, VECTOR))
        figures.ratio("search, vector / aretrieve, throughput, 100 callers", own / peer, least=1.5)
        raw, own, both = (figures.find("p95_ms", way=way.name, **at) for way in (RAW, VECTOR, HYBRID))
        figures.ratio("search, vector / raw KNN, p95, 100 callers", own / raw, most=5)
        figures.ratio("search, hybrid / vector, p95, 100 callers", both / own, most=1.6)
        stall = max(figures.find("stall_p999_ms", way=way.name, **at) for way in OWN_SEARCHES)
        figures.ratio("event loop late by, ms, p99.9, 100 callers", stall, most=20)
        self._facts()
        if visitors:
            there = self._contest.visitors(size)
            for callers in CALLERS:
                # Ours once more, since what else goes on has changed meanwhile.
                measured = self._contest.measure((VECTOR, *there), callers, passages=size)
            for way in there:
                name = f"search, vector / {way.name}, throughput, {CALLERS[-1]} callers"
                figures.ratio(name, _times(measured, VECTOR, way))
                self._contest.processes.pop(way.module).end()

    def _facts(self) -> None:
        for callers in (1, 10, READERS, MANY):
            read = self._contest.measure((RAW_GET, OWN_GET), callers)
            stored = self._contest.measure((RAW_STORE, OWN_STORE), callers)
            if callers == READERS:
                self._figures.ratio(
                    f"get_fact by id / HGETALL, throughput, {callers} callers",
                    _times(read, OWN_GET, RAW_GET),
                    least=0.6,
                )
                self._figures.ratio(
                    f"store_fact indexed / HSET into a vector index, throughput, {callers} callers",
                    _times(stored, OWN_STORE, RAW_STORE),
                    least=0.25,
                )
        own, peer = (self._contest.processes[name] for name in ("own", "llamaindex"))
        first = len(self._material.vectors) - BULK
        rates = {}
        for name, process, method in (("store_facts", own, "add"), ("RedisVectorStore.add", peer, "add_apart")):
            rates[name] = BULK / float(process.run(method, first=first, count=BULK))
            self._figures.row(way=name, bulk=BULK, per_second=rates[name])
        ratio = rates["store_facts"] / rates["RedisVectorStore.add"]
        self._figures.ratio(f"store_facts / RedisVectorStore.add, {BULK} facts with ready vectors", ratio, least=0.7)

    def _growth(self, sizes: tuple[int, ...]) -> None:
        if len(sizes) < 2:
            return
        small, large = sizes[0], sizes[-1]
        for way in OWN_SEARCHES:
            first, last = (self._figures.find("client_ms", passages=size, alone=way.name) for size in (small, large))
            name = f"{way.name}: the client's time at {large} / at {small} passages"
            self._figures.ratio(name, last / first, most=1.1)
        for way in (*STEADY, STATS):
            first, last = (
                self._figures.find("p50_ms", passages=size, way=way.name, steady=True) for size in (small, large)
            )
            self._figures.ratio(f"{way.name}: p50 at {large} / at {small} passages", last / first, most=1.1)


def _times(measured: Measured, one: Way, other: Way) -> float:
    return measured[one]["per_second"] / measured[other]["per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks speed")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--no-visitors", action="store_true")
    options, _ = parser.parse_known_args(sys.argv[1:])
    sizes = tuple(sorted(int(size) for size in options.sizes.split(",")))
    figures = Figures(json_path(), "speed")
    server = RedisServer()
    server.start()
    with tempfile.TemporaryDirectory(prefix="kb-bench-") as folder:
        contest = Contest(server.url, Path(folder), options.seconds, figures)
        try:
            # Those that are stored in bulk come after the others.
            material = Material.make(Path(folder), sizes[-1] + BULK, sizes)
            Speed(contest, material, figures).run(sizes, visitors=not options.no_visitors)
        finally:
            contest.end()
            server.remove()
    figures.write()
