"""How fast an open circuit, and full worker threads, refuse 1 000 callers, against their limit."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from knowledge_base import (
    AsyncRedisManager,
    BreakerSettings,
    CircuitOpenError,
    KnowledgeBase,
    Limits,
    OperationTimeoutError,
    OverloadedError,
    Settings,
    Timeouts,
    UnavailableError,
)
from tests.benchmarks.collection import percentile
from tests.support.server import RedisServer

LIMIT_MS = 1.0
CALLERS = 1_000
THREADS = 4


async def refusals(name: str, call: Callable[[], Awaitable[Any]], expected: type[UnavailableError]) -> None:
    """Lets all callers call at once, and prints how long each of them waited for its refusal."""

    async def refused() -> float:
        before = time.perf_counter()
        try:
            await call()
        except expected:
            return (time.perf_counter() - before) * 1000
        raise AssertionError(f"{name} let a call through")

    took = await asyncio.gather(*(refused() for _ in range(CALLERS)))
    print(
        f"{name}, {CALLERS} callers refused: median {median(took):.3f} ms ({median(took) / LIMIT_MS:.2f} of the limit "
        f"of {LIMIT_MS:.0f} ms), p99 {percentile(took, 0.99):.3f} ms, longest {max(took):.3f} ms"
    )


async def measure_open_circuit(server: RedisServer) -> None:
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
        await refusals("open circuit", lambda: kb.get_fact("some-fact"), CircuitOpenError)


async def measure_full_threads(server: RedisServer) -> None:
    settings = Settings(
        redis_url=server.url,
        # As many failures as there are threads must not open a circuit: it would refuse first.
        breaker=BreakerSettings(failures=THREADS + 1, reset_after=60),
        limits=Limits(index_threads=THREADS),
        timeouts=Timeouts(llama_index=0.2),
    )
    released = threading.Event()
    async with AsyncRedisManager(settings) as manager:

        async def stuck() -> None:
            try:
                await manager.in_thread("a call that does not return", lambda _: released.wait())
            except OperationTimeoutError:
                return
            raise AssertionError("a thread that is stuck returned")

        try:
            await asyncio.gather(*(stuck() for _ in range(THREADS)))
            await refusals(
                f"{THREADS} of {THREADS} worker threads stuck",
                lambda: manager.in_thread("one more call", lambda _: None),
                OverloadedError,
            )
        finally:
            released.set()


def main() -> None:
    server = RedisServer()
    server.start()
    try:
        asyncio.run(measure_open_circuit(server))
        server.start()
        asyncio.run(measure_full_threads(server))
    finally:
        server.remove()
