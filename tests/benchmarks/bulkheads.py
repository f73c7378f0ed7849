"""What chat pays for jobs beside it: the latency of its searches alone and during each kind of job."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

from knowledge_base import KnowledgeBase, Settings
from tests.benchmarks.collection import percentile, texts
from tests.support.many_facts import populate
from tests.support.server import RedisServer

QUESTIONS = 230
BETWEEN_QUESTIONS = 0.02
BULK_FACTS = 6_000
BACKLOG = 2_000
JOBS = "jobs"
MANY = "many"
MANY_FACTS = 40_000
WARM_UP = 20


def passages() -> Iterator[str]:
    """Real passages without end, each unlike all others."""
    return (f"{passage} {uuid.uuid4()}" for passage in cycle(texts("corpus")))


class Chat:
    """One caller who asks one question after the other, none of them twice."""

    def __init__(self, kb: KnowledgeBase) -> None:
        self._kb = kb
        self._questions = iter(texts("queries"))
        self._alone: list[float] = []

    async def ask(self, questions: int) -> tuple[list[float], int]:
        """Returns the milliseconds of each answer, and how many had to do without meaning."""
        took: list[float] = []
        degraded = 0
        for question in islice(self._questions, questions):
            before = time.perf_counter()
            results = await self._kb.search(question)
            took.append((time.perf_counter() - before) * 1000)
            degraded += bool(results["degraded"])
            await asyncio.sleep(BETWEEN_QUESTIONS)
        return took, degraded

    async def measure(self, name: str) -> None:
        """Asks, and prints the latency beside the one that was measured first."""
        took, degraded = await self.ask(QUESTIONS)
        self._alone = self._alone or took
        halves = median(took), median(self._alone)
        tails = percentile(took, 0.95), percentile(self._alone, 0.95)
        print(
            f"{name}: p50 {halves[0]:.1f} ms ({halves[0] / halves[1]:.2f} x alone), "
            f"p95 {tails[0]:.1f} ms ({tails[0] / tails[1]:.2f} x alone), longest {max(took):.0f} ms, "
            f"{degraded} of {len(took)} by words only",
            flush=True,
        )


async def measure(url: str) -> None:
    async with KnowledgeBase(Settings(redis_url=url, namespace="chat")) as kb:
        await kb.store_facts({"content": passage} for passage in texts("corpus"))
        chat = Chat(kb)
        await chat.ask(WARM_UP)
        await chat.measure("alone")
        await during_bulk(kb, chat)
        await over_backlog(kb, chat)
        await populate(kb, MANY_FACTS, namespace=MANY)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "many.jsonl"
            await during(chat, "an export", lambda: kb.export_all_data(path, namespace=MANY, include_vectors=True))
        await during(chat, "a rebuild", lambda: kb.rebuild_search_index(namespace=MANY))


async def during_bulk(kb: KnowledgeBase, chat: Chat) -> None:
    stored = 0
    begun = asyncio.Event()

    def progress(done: int, _: int) -> None:
        nonlocal stored
        stored = done
        begun.set()

    facts = [{"content": content} for content in islice(passages(), BULK_FACTS)]
    job = asyncio.create_task(kb.store_facts(facts, namespace=JOBS, progress=progress))
    await begun.wait()
    began, before = time.perf_counter(), stored
    await chat.measure("while store_facts runs")
    rate = (stored - before) / (time.perf_counter() - began)
    assert not job.done(), "the job ended first: it has too few facts"
    job.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await job
    print(f"  it stored {rate:.0f} passages a second meanwhile")


async def during(chat: Chat, name: str, call: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Measures beside a job that is begun again for as long as the questions last."""
    done = 0

    async def repeat() -> None:
        nonlocal done
        while True:
            await call()
            done += 1

    job = asyncio.create_task(repeat())
    await chat.measure(f"while {name} runs")
    job.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await job
    print(f"  of {MANY_FACTS} facts; it was done {done} times meanwhile")


async def over_backlog(kb: KnowledgeBase, chat: Chat) -> None:
    contents = islice(passages(), BACKLOG)
    await asyncio.gather(*(kb.store_fact(content, namespace=JOBS, wait_indexed=False) for content in contents))
    began, before = time.perf_counter(), (await kb.get_stats(namespace=JOBS))["pending"]
    await chat.measure(f"while the indexer works through {before} pending facts")
    left = (await kb.get_stats(namespace=JOBS))["pending"]
    assert left, "the backlog was done first: it has too few facts"
    print(
        f"  it indexed {(before - left) / (time.perf_counter() - began):.0f} facts a second meanwhile, {left} are left"
    )


def main() -> None:
    server = RedisServer()
    server.start()
    try:
        asyncio.run(measure(server.url))
    finally:
        server.remove()
