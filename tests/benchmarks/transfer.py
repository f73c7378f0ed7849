"""Export and import of 100 000 facts with vectors, against bare redis-py doing the same reads and writes.

``python -m tests.benchmarks transfer`` takes some ten minutes; ``--facts=5000`` less. It starts servers of its own.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import redis.asyncio

from knowledge_base import KnowledgeBase, Settings
from tests.support.embeddings import StubEmbedding
from tests.support.many_facts import content, populate
from tests.support.server import RedisServer

FACTS = 100_000
DIMENSION = 384
NAMESPACE = "bench"
ROOT = f"kb:{{{NAMESPACE}}}:"
BATCH = 100
NEEDED = 0.5
MOST_MEMORY = 150.0
LATE = 4_000_000_000_000


def resident_bytes() -> int:
    """Returns what this process takes of the memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class PeakMemory:
    """The most memory that this process takes inside, over what it took before; in MB."""

    def __enter__(self) -> PeakMemory:
        self._idle = self._peak = resident_bytes()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def megabytes(self) -> float:
        return (self._peak - self._idle) / 1e6

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self._peak = max(self._peak, resident_bytes())


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[KnowledgeBase]:
    model = StubEmbedding(model_name="bench", size=DIMENSION)
    async with KnowledgeBase(Settings(redis_url=url, namespace=NAMESPACE), embed_model=model) as kb:
        await kb.search("warm")
        yield kb


def _metadata(number: int) -> dict[str, Any]:
    return {"number": number, "nested": {"größe": [number / 8, None, {"emoji": "\U0001f427"}], "deep": {"ok": True}}}


def _history(number: int) -> list[str]:
    if number % 4:
        return []
    version = {"version": "1", "content": f"früher {number}", "metadata": "{}", "tags": "[]", "source": ""}
    return [json.dumps({**version, "updated_at": "1700000000000"})]


def _content(number: int) -> str:
    return f"{content(number)} größer \U0001f427"


def _expiry(number: int) -> int | None:
    return None if number % 10 else LATE


async def fill(kb: KnowledgeBase, count: int) -> None:
    """Stores facts with unicode, nested metadata, history and expiry."""
    await populate(
        kb, count, content=_content, metadata=_metadata, history=_history, expires_at=_expiry,
        tags=["one", "two"], source="bench", version=2,
    )  # fmt: skip


async def raw_reads(url: str) -> tuple[int, float]:
    """Reads every fact with history and passages through pipelines; returns how many, and the seconds."""
    client = redis.asyncio.Redis.from_url(url)
    began = time.perf_counter()
    ids = await client.zrange(f"{ROOT}facts", 0, -1)
    for begin in range(0, len(ids), BATCH):
        names = [fact_id.decode() for fact_id in ids[begin : begin + BATCH]]
        facts = client.pipeline(transaction=False)
        for name in names:
            facts.hgetall(f"{ROOT}fact:{name}")
            facts.lrange(f"{ROOT}history:{name}", 0, -1)
        rows = await facts.execute()
        parts = client.pipeline(transaction=False)
        for name, row in zip(names, rows[::2], strict=True):
            for at in range(int(row[b"passages"])):
                parts.hmget(f"{ROOT}passage:1:{name}:{row[b'revision'].decode()}:{at}", "text", "vector")
        await parts.execute()
    took = time.perf_counter() - began
    await client.aclose()
    return len(ids), took


async def raw_writes(source: str, target: str) -> float:
    """Writes the same keys into a base with the same indices through pipelines; returns the seconds of the writes."""
    async with opened(target) as kb:
        await (await kb._services.start()).indexer.generation(NAMESPACE)
    reading, writing = (redis.asyncio.Redis.from_url(url) for url in (source, target))
    ids = await reading.zrange(f"{ROOT}facts", 0, -1)
    took = 0.0
    for begin in range(0, len(ids), BATCH):
        pipeline = await _same_writes(reading, writing, [name.decode() for name in ids[begin : begin + BATCH]])
        began = time.perf_counter()
        await pipeline.execute()
        took += time.perf_counter() - began
    await reading.aclose()
    await writing.aclose()
    return took


async def _same_writes(reading: Any, writing: Any, names: list[str]) -> Any:
    facts = reading.pipeline(transaction=False)
    for name in names:
        facts.hgetall(f"{ROOT}fact:{name}")
        facts.lrange(f"{ROOT}history:{name}", 0, -1)
    rows = await facts.execute()
    pipeline = writing.pipeline(transaction=False)
    for name, row, history in zip(names, rows[::2], rows[1::2], strict=True):
        keys = [f"{ROOT}passage:1:{name}:{row[b'revision'].decode()}:{at}" for at in range(int(row[b"passages"]))]
        keys += [f"{ROOT}section:1:{name}:{row[b'revision'].decode()}:{at}" for at in range(int(row[b"sections"]))]
        pipeline.hset(f"{ROOT}fact:{name}", mapping=row)
        pipeline.hset(f"{ROOT}contents", row[b"digest"], name)
        pipeline.hincrby(f"{ROOT}counters", "seq", 1)
        pipeline.hincrby(f"{ROOT}counters", "passages", int(row[b"passages"]))
        for kept in ("facts", "visible:*"):
            pipeline.zadd(f"{ROOT}{kept}", {name: int(row[b"seq"])})
        for tag in json.loads(row[b"tags"]):
            pipeline.hincrby(f"{ROOT}tag_counts", tag, 1)
        pipeline.hincrby(f"{ROOT}source_counts", row[b"source"], 1)
        if history:
            pipeline.rpush(f"{ROOT}history:{name}", *history)
        for key in keys:
            pipeline.hset(key, mapping=await reading.hgetall(key))
            if row[b"expires_at"]:
                pipeline.pexpireat(key, int(row[b"expires_at"]))
        if row[b"expires_at"]:
            pipeline.zadd(f"{ROOT}expiring", {name: int(row[b"expires_at"])})
    return pipeline


async def run(count: int, folder: Path, servers: list[RedisServer]) -> None:
    """Prints what each side takes."""
    first, second, third = (server.start().url for server in servers)
    path, again = folder / "first.jsonl", folder / "second.jsonl"
    async with opened(first) as kb:
        await fill(kb, count)
        with PeakMemory() as memory:
            report = await kb.export_all_data(path, include_vectors=True)
    read, raw_took = await raw_reads(first)
    assert report["facts"] == read == count
    _print("export", count, report["took_s"], raw_took, memory.megabytes)

    async with opened(second) as kb:
        began = time.perf_counter()
        with PeakMemory() as memory:
            imported = await kb.import_data(path)
        took = time.perf_counter() - began
        assert (imported["succeeded"], imported["embedded"]) == (count, 0), imported
        await kb.export_all_data(again, include_vectors=True)
    raw_took = await raw_writes(first, third)
    _print("import", count, took, raw_took, memory.megabytes)
    same = path.read_bytes() == again.read_bytes()
    print(f"second export byte-equal: {'yes' if same else 'NO'} ({path.stat().st_size / 1e6:.0f} MB)")


def _print(what: str, count: int, took: float, raw_took: float, megabytes: float) -> None:
    ratio = raw_took / took
    verdict = "ok" if ratio >= NEEDED and megabytes < MOST_MEMORY else "MISSED"
    print(
        f"{what}: {count / took:,.0f} facts/s, bare redis-py {count / raw_took:,.0f}/s: {ratio:.2f} x (≥ {NEEDED}); "
        f"{megabytes:.0f} MB over idle (< {MOST_MEMORY:.0f}) {verdict}",
        flush=True,
    )


def main() -> None:
    given = [word.partition("=")[2] for word in sys.argv if word.startswith("--facts=")]
    servers = [RedisServer() for _ in range(3)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(run(int(given[0]) if given else FACTS, Path(folder), servers))
    finally:
        for server in servers:
            server.remove()


if __name__ == "__main__":
    main()
