"""How fast an open circuit refuses 1 000 callers, against its limit."""

from __future__ import annotations

import asyncio
import time
from statistics import median

from knowledge_base import BreakerSettings, CircuitOpenError, KnowledgeBase, Settings, Timeouts, UnavailableError
from tests.benchmarks.collection import percentile
from tests.support.server import RedisServer

LIMIT_MS = 1.0
CALLERS = 1_000


async def measure(server: RedisServer) -> None:
    settings = Settings(
        redis_url=server.url, breaker=BreakerSettings(failures=5, reset_after=60), timeouts=Timeouts(redis=0.2)
    )
    async with KnowledgeBase(settings) as kb:
        await kb.get_fact("some-fact")
        server.kill()
        while True:
            try:
                await kb.get_fact("some-fact")
            except CircuitOpenError:
                break
            except UnavailableError:
                continue

        async def refused() -> float:
            before = time.perf_counter()
            try:
                await kb.get_fact("some-fact")
            except CircuitOpenError:
                return (time.perf_counter() - before) * 1000
            raise AssertionError("an open circuit let a call through")

        took = await asyncio.gather(*(refused() for _ in range(CALLERS)))
    print(
        f"{CALLERS} callers refused: median {median(took):.3f} ms ({median(took) / LIMIT_MS:.2f} of the limit of "
        f"{LIMIT_MS:.0f} ms), p99 {percentile(took, 0.99):.3f} ms"
    )


def main() -> None:
    server = RedisServer()
    server.start()
    try:
        asyncio.run(measure(server))
    finally:
        server.remove()
