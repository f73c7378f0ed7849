"""The contenders, and how they are measured in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import redis

from tests.benchmarks.speed.figures import Figures
from tests.benchmarks.speed.processes import ContenderError, ContenderProcess

ROUNDS = 2


class Way(NamedTuple):
    """A contender, and what it is asked."""

    name: str
    module: str
    what: str


class Peer(NamedTuple):
    """A contender that needs an environment of its own."""

    module: str
    requirements: tuple[str, ...]


RAW = Way("redis-py, KNN", "raw", "knn")
LLAMAINDEX = Way("LlamaIndex, aretrieve", "llamaindex", "vector")
VECTOR = Way("search, vector", "own", "vector")
TEXT = Way("search, text", "own", "text")
HYBRID = Way("search, hybrid", "own", "hybrid")
SEARCHES = (RAW, LLAMAINDEX, VECTOR, TEXT, HYBRID)
OWN_SEARCHES = (VECTOR, TEXT, HYBRID)

PEERS = {
    Way("RedisVL 0.28, AsyncSearchIndex", "redisvl_index", "vector"): ("redisvl==0.28.0", "numpy==2.4.6"),
    Way("langchain-redis 0.2.6", "langchain_store", "vector"): ("langchain-redis==0.2.6", "redisvl==0.28.0"),
    Way("Chroma 1.5.9, in memory", "chroma", "vector"): ("chromadb==1.5.9",),
}
"""The latest versions; they cannot be installed beside those that LlamaIndex's store asks for."""


@dataclass
class Contest:
    """Contenders on one server.

    Args:
        url: The server's.
        folder: Where the vectors are.
        seconds: For how long each is measured at a time.
        figures: Where the measurements go.
    """

    url: str
    folder: Path
    seconds: float
    figures: Figures

    def __post_init__(self) -> None:
        self.processes: dict[str, ContenderProcess] = {}
        self.server: Any = redis.Redis.from_url(self.url)

    def admit(self, module: str, requirements: Sequence[str] = ()) -> ContenderProcess:
        """Starts a contender.

        Args:
            module: Its module.
            requirements: Packages that it needs an environment of its own for.
        """
        self.processes[module] = ContenderProcess(module, requirements)
        return self.processes[module]

    def open(self, size: int, modules: Sequence[str]) -> None:
        """Opens contenders on the first so many passages."""
        for module in modules:
            self.processes[module].open(self.url, self.folder, size)

    def measure(self, ways: Sequence[Way], callers: int, **labels: object) -> dict[Way, Mapping[str, float]]:
        """Measures some ways in turn, several times, so that all share whatever else goes on.

        Args:
            ways: What is measured.
            callers: How many ask at the same time.
            **labels: Said in each row.

        Returns:
            For each way, the median of each figure.
        """
        found: dict[Way, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way in ways:
                found[way].append(self.processes[way.module].measure(way.what, callers, self.seconds))
        result: dict[Way, Mapping[str, float]] = {}
        for way, rounds in found.items():
            result[way] = {name: median(one[name] for one in rounds) for name in rounds[0]}
            self.figures.row(**labels, way=way.name, callers=callers, **result[way])
        return result

    def recall(self, ways: Sequence[Way], size: int) -> dict[Way, float]:
        """The recall@10 of some ways against exact search."""
        found = {way: self.processes[way.module].recall(way.what, size) for way in ways}
        for way, share in found.items():
            self.figures.row(passages=size, way=way.name, recall=share)
        return found

    def visitors(self, size: int) -> list[Way]:
        """Starts and opens the peers that can be had here; says which cannot."""
        there = []
        for way, requirements in PEERS.items():
            try:
                self.admit(way.module, requirements)
                self.open(size, [way.module])
                self.recall([way], size)
            except (ContenderError, OSError, ValueError) as error:
                print(f"{way.name} cannot be measured here: {error}")
            else:
                there.append(way)
        return there

    def end(self) -> None:
        """Ends every contender."""
        for process in self.processes.values():
            process.end()
        self.server.close()
