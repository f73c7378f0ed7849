"""The same questions at rising numbers of concurrent callers: by us, and the two usual ways beside it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any

from knowledge_base import KnowledgeBase, UnavailableError
from tests.benchmarks.collection import percentile
from tests.load.peers import Peers
from tests.load.questions import TOP_K, Question, hits
from tests.load.verdicts import Verdicts
from tests.support.openai_process import EndpointProcess

ROUNDS = {1: 20, 2: 10, 3: 7, 5: 5, 10: 5, 50: 2, 100: 2, 500: 1}
"""How often so many callers ask at once; no question is asked twice."""

LIMITS = {100: 3.0, 500: 10.0}
"""Multiples of the endpoint's latency that p95 may be."""

MOST_REQUESTS = 10

Ask = Callable[[Sequence[Question]], Awaitable["list[tuple[bool, float]]"]]
"""Lets one caller a question ask at the same time; returns for each whether it was answered, and after how long."""


@dataclass(frozen=True)
class Level:
    """What so many callers got."""

    callers: int
    answered: int
    took: list[float]
    counters: dict[str, int]
    processor: float
    """Seconds of processor time that this process took."""

    @property
    def p95(self) -> float:
        """Seconds."""
        return percentile(self.took, 0.95)

    def told(self, latency: float) -> str:
        """Its figures in a line."""
        requests = self.counters["requests"] / max(1, self.counters["texts"])
        return (
            f"{self.answered}/{len(self.took)} answered, p50 {median(self.took) * 1000:.0f} ms, "
            f"p95 {self.p95 * 1000:.0f} ms = {self.p95 / latency:.1f} x latency, {self.counters['most']} at once, "
            f"{requests:.2f} requests a text, {self.processor * 1000 / len(self.took):.1f} ms of processor time each"
        )


class Levels:
    """Asks at every level.

    Args:
        endpoint: Where the vectors come from.
        latency: Seconds that it takes.
        questions: No two alike; each way is asked the same.
        levels: Numbers of callers.
    """

    def __init__(
        self, endpoint: EndpointProcess, latency: float, questions: Sequence[Question], levels: Sequence[int]
    ) -> None:
        self._endpoint = endpoint
        self._latency = latency
        self._questions = questions
        self._levels = levels

    async def ours(self, kb: KnowledgeBase, verdicts: Verdicts) -> None:
        """Measures ``kb.search`` against its limits."""

        async def one(question: Question) -> tuple[bool, float]:
            began = time.perf_counter()
            holds = False
            with contextlib.suppress(UnavailableError):
                holds = hits(question, await kb.search(question.text, TOP_K))
            return holds, time.perf_counter() - began

        async def ask(questions: Sequence[Question]) -> list[tuple[bool, float]]:
            return await asyncio.gather(*map(one, questions))

        verdicts.heading(f"search, {self._latency * 1000:.0f} ms of endpoint latency, distinct questions")
        async for level in self._all(ask):
            name = f"{level.callers} callers"
            verdicts.tell(name, level.told(self._latency))
            success = level.answered / len(level.took)
            verdicts.at_least(f"{name}, success", 100 * success, 100.0, " %")
            verdicts.at_most(f"{name}, requests at once", level.counters["most"], MOST_REQUESTS, "")
            if level.callers in LIMITS:
                verdicts.at_most(f"{name}, p95 / latency", level.p95 / self._latency, LIMITS[level.callers], " x")

    async def theirs(self, peers: Peers, verdicts: Verdicts) -> None:
        """Measures the two usual ways; what they miss is no fault of ours."""
        ways: dict[str, Ask] = {"one after another": peers.sequentially, "a thread a request": peers.in_threads}
        for name, ask in ways.items():
            verdicts.heading(f"LlamaIndex's retriever, {name}, the same questions (any answer counts)")
            async for level in self._all(ask):
                verdicts.tell(f"{level.callers} callers", level.told(self._latency))

    async def _all(self, ask: Ask) -> Any:
        left = iter(self._questions)
        for callers in self._levels:
            yield await self._level(ask, callers, left)

    async def _level(self, ask: Ask, callers: int, left: Iterator[Question]) -> Level:
        await asyncio.to_thread(self._endpoint.reset)
        outcomes: list[tuple[bool, float]] = []
        before = time.process_time()
        for _ in range(ROUNDS.get(callers, 1)):
            questions = list(islice(left, callers))
            assert len(questions) == callers, "the collection has too few questions"
            outcomes += await ask(questions)
        processor = time.process_time() - before
        counters = await asyncio.to_thread(self._endpoint.counters)
        answered = sum(holds for holds, _ in outcomes)
        return Level(callers, answered, [took for _, took in outcomes], counters, processor)
