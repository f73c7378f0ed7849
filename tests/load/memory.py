"""Whether memory stays flat over very many distinct questions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from statistics import median

from knowledge_base import KnowledgeBase, Settings
from tests.load.questions import Question
from tests.load.verdicts import Verdicts
from tests.soak.footprint import resident_megabytes

QUERIES = 100_000
AT_ONCE = 50
LOOKS = 50
WARM_UP = 0.2
"""Share of the questions after which the caches are full."""

MOST_GROWTH = 0.05


async def memory(
    settings: Settings, server: int, questions: Sequence[Question], verdicts: Verdicts, queries: int = QUERIES
) -> None:
    """Asks, and looks at the memory of this process and of the server.

    Args:
        settings: Of a namespace with facts.
        server: Process id of the server.
        questions: Made distinct by numbers.
        verdicts: What is told.
        queries: How many questions.
    """
    verdicts.heading(f"{queries} distinct questions")
    own: list[float] = []
    servers: list[float] = []
    degraded = 0
    async with KnowledgeBase(settings) as kb:
        for begin in range(0, queries, queries // LOOKS):
            degraded += await _ask(kb, questions, range(begin, begin + queries // LOOKS))
            own.append(resident_megabytes())
            servers.append(resident_megabytes(server))
            print(f"  {begin + queries // LOOKS}: RSS {own[-1]:.1f} MB, server {servers[-1]:.1f} MB", flush=True)
    verdicts.judge("answered without meaning", str(degraded), "0", degraded == 0)
    for name, samples in (("this process", own), ("the server", servers)):
        growth = _growth(samples)
        note = f" ({growth / MOST_GROWTH:.2f} of the limit), at the end {samples[-1]:.0f} MB"
        verdicts.judge(
            f"growth of {name} after warm-up", f"{growth:+.1%}{note}", f"<= {MOST_GROWTH:.0%}", growth <= MOST_GROWTH
        )


async def _ask(kb: KnowledgeBase, questions: Sequence[Question], numbers: range) -> int:
    left = iter(numbers)
    degraded = 0

    async def caller() -> None:
        nonlocal degraded
        for number in left:
            text = f"{questions[number % len(questions)].text} {number}"
            degraded += bool((await kb.search(text))["degraded"])

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return degraded


def _growth(samples: Sequence[float]) -> float:
    few = max(1, len(samples) // 10)
    begin = int(len(samples) * WARM_UP)
    return median(samples[-few:]) / median(samples[begin : begin + few]) - 1
