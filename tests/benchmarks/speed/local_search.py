"""Searches with the local model at work: 100 callers, each question new, against the bare model on the same cores.

``python -m tests.benchmarks local_search [--json FILE]``
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from knowledge_base import EmbeddingSettings, KnowledgeBase, Settings
from knowledge_base.embedding.local_embedding import LocalEmbedding
from tests.benchmarks.collection import texts
from tests.benchmarks.speed.figures import Figures, json_path
from tests.benchmarks.speed.load import percentile
from tests.soak.stalls import heartbeat
from tests.support.server import RedisServer

CALLERS = 100
QUESTIONS = 350
ROUNDS = 3
MOST_TIMES = 1.3
MOST_P95_MS = 500
MOST_STALL_MS = 20


async def bare_seconds(model: LocalEmbedding, questions: Sequence[str], threads: int) -> float:
    """The seconds that the model alone takes in as many threads as the service has."""
    shares = [questions[start::threads] for start in range(threads)]
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(threads) as pool:
        begun = time.perf_counter()
        await asyncio.gather(*(loop.run_in_executor(pool, model.local_model.embed_queries, share) for share in shares))
        return time.perf_counter() - begun


async def search_all(kb: KnowledgeBase, questions: Sequence[str]) -> tuple[float, list[float]]:
    """Lets the callers ask all questions, each once; returns the seconds, and the milliseconds of each."""
    left = iter(questions)
    took: list[float] = []

    async def caller() -> None:
        for question in left:
            begun = time.perf_counter()
            assert (await kb.search(question))["hits"]
            took.append((time.perf_counter() - begun) * 1000)

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return time.perf_counter() - begun, took


async def measure(url: str, figures: Figures) -> None:
    model = LocalEmbedding.load()
    embedding = EmbeddingSettings()
    passages, questions = texts("corpus"), texts("queries")
    async with KnowledgeBase(Settings(redis_url=url, namespace="bench", embedding=embedding), embed_model=model) as kb:
        await kb.store_facts({"content": passage} for passage in passages)
        await search_all(kb, questions[:CALLERS])
        for number in range(ROUNDS):
            asked = questions[CALLERS + number * QUESTIONS :][:QUESTIONS]
            bare = await bare_seconds(model, asked, embedding.threads)
            async with heartbeat() as (beats, _):
                whole, took = await search_all(kb, asked)
            figures.row(
                questions=len(asked),
                bare_s=bare,
                searches_s=whole,
                p95_ms=percentile(took, 0.95),
                stall_p999_ms=beats.late.percentile(0.999),
                stall_worst_ms=beats.late.worst,
            )
    p95, stall = (median(row[name] for row in figures.rows) for name in ("p95_ms", "stall_p999_ms"))
    times = median(row["searches_s"] / row["bare_s"] for row in figures.rows)
    figures.ratio("100 callers, local model: searches / bare model", times, most=MOST_TIMES)
    figures.ratio("100 callers, local model: p95, ms", p95, most=MOST_P95_MS)
    figures.ratio("100 callers, local model: event loop late by, ms, p99.9", stall, most=MOST_STALL_MS)


def main() -> None:
    figures = Figures(json_path(), "local_search")
    server = RedisServer()
    server.start()
    try:
        asyncio.run(measure(server.url, figures))
    finally:
        server.remove()
    figures.write()
