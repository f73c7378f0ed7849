"""The longest stall of the event loop while 50 callers store and 200 search at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator

from knowledge_base import KnowledgeBase, Settings
from tests.benchmarks.collection import percentile, texts
from tests.support.server import RedisServer

LIMIT_MS = 50
STORES = 50
SEARCHES = 200
ROUNDS = 5
TICK = 0.001


@contextlib.asynccontextmanager
async def measured_stalls() -> AsyncIterator[list[float]]:
    """Yields a list that collects, every millisecond, by how much the loop was late, in milliseconds."""
    stalls: list[float] = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK)
            stalls.append((time.perf_counter() - before - TICK) * 1000)

    task = asyncio.create_task(tick())
    try:
        yield stalls
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def measure(url: str) -> None:
    passages, questions = texts("corpus"), texts("queries")
    async with KnowledgeBase(Settings(redis_url=url, namespace="bench")) as kb:
        await kb.store_facts({"content": passage} for passage in passages)
        await kb.search("warm")
        worst: list[float] = []
        for turn in range(ROUNDS):
            asked = questions[turn * SEARCHES : (turn + 1) * SEARCHES]
            stored = [f"{passage[:300]} {uuid.uuid4()}" for passage in passages[:STORES]]
            started = time.perf_counter()
            async with measured_stalls() as stalls:
                results = await asyncio.gather(*map(kb.store_fact, stored), *map(kb.search, asked))
            took = time.perf_counter() - started
            succeeded = sum(result.get("status") == "success" or bool(result.get("hits")) for result in results)
            worst.append(max(stalls))
            print(
                f"round {turn + 1}: {succeeded} of {len(results)} succeeded in {took:.2f} s; longest stall of the loop "
                f"{max(stalls):.1f} ms ({max(stalls) / LIMIT_MS:.2f} of limit), p99 {percentile(stalls, 0.99):.1f} ms"
            )
        print(f"longest of all: {max(worst):.1f} ms, {max(worst) / LIMIT_MS:.2f} of the limit of {LIMIT_MS} ms")


def main() -> None:
    server = RedisServer()
    server.start()
    try:
        asyncio.run(measure(server.url))
    finally:
        server.remove()
