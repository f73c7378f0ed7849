"""What a rebuild costs: facts a second against bare writes, and the latency of those who search and store meanwhile.

``python -m tests.benchmarks rebuild --facts 100000``
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from string import ascii_lowercase

import redis

from knowledge_base import KnowledgeBase, Settings
from knowledge_base.index.schema import Generation, text_index_command, vector_index_command
from knowledge_base.settings import Limits
from tests.benchmarks.collection import percentile
from tests.support.embeddings import StubEmbedding
from tests.support.many_facts import content, populate
from tests.support.server import RedisServer

FACTS = 20_000
DIMENSION = 384
SEARCHERS = 20
WRITERS = 5
ALONE_SECONDS = 20.0
THINKS = 0.05
NAMESPACE = "rebuild"
SCRATCH = 900
PIPELINE = 100
SOUGHT = 2_000
"""Facts written meanwhile that are searched for at most."""


def settings(url: str) -> Settings:
    return Settings(redis_url=url, namespace=NAMESPACE, limits=Limits(history=0))


def model(name: str = "stub", size: int = DIMENSION) -> StubEmbedding:
    return StubEmbedding(model_name=name, size=size)


def copy_bare(url: str, generation: Generation, facts: int) -> float:
    """Writes the parts of facts once more through redis-py alone, into indices like theirs; returns facts a second."""
    client = redis.Redis.from_url(url) if "://" in url else redis.Redis(unix_socket_path=url)
    scratch = Generation(generation.namespace, SCRATCH, generation.model, generation.dimension)
    moves = ((generation.section_prefix, scratch.section_prefix), (generation.passage_prefix, scratch.passage_prefix))
    for command in (text_index_command(scratch, scan=False), vector_index_command(scratch, scan=False)):
        client.execute_command(*command)
    names = [key.decode() for key in client.scan_iter(match=f"{generation.section_prefix}:*", count=5_000)]
    node_ids = [name[len(generation.section_prefix) + 1 :] for name in names][:facts]
    begun = time.perf_counter()
    for begin in range(0, len(node_ids), PIPELINE):
        some = node_ids[begin : begin + PIPELINE]
        for old, new in moves:
            reading = client.pipeline(transaction=False)
            for node_id in some:
                reading.hgetall(f"{old}:{node_id}")
            writing = client.pipeline(transaction=False)
            for node_id, fields in zip(some, reading.execute(), strict=True):
                writing.hset(f"{new}:{node_id}", mapping=fields)
            writing.execute()
    rate = len(node_ids) / (time.perf_counter() - begun)
    for name in (scratch.text_index, scratch.vector_index):
        client.execute_command("FT.DROPINDEX", name)
    for _, new in moves:
        for begin in range(0, len(node_ids), PIPELINE):
            client.unlink(*(f"{new}:{node_id}" for node_id in node_ids[begin : begin + PIPELINE]))
    client.close()
    return rate


@dataclass
class Seen:
    """What the callers saw."""

    took: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    stored: list[str] = field(default_factory=list)


class Traffic:
    """Callers who search for what is there, and others who store."""

    def __init__(self, kb: KnowledgeBase, facts: int) -> None:
        self._kb = kb
        self._facts = facts
        self._asked = 0
        self.seen = Seen()

    async def run(self, ends: asyncio.Event) -> None:
        searchers = [self._search(ends) for _ in range(SEARCHERS)]
        await asyncio.gather(*searchers, *(self._write(ends) for _ in range(WRITERS)))

    async def _search(self, ends: asyncio.Event) -> None:
        while not ends.is_set():
            self._asked += 7_919
            number = self._asked % self._facts
            seen, begun = self.seen, time.perf_counter()
            try:
                # Its number, which few others have, and one of the few words that all of them are made of.
                results = await self._kb.search(f"{number} {content(number).split()[2]}")
            except Exception as error:
                seen.outcomes[type(error).__name__] += 1
                continue
            seen.took.append((time.perf_counter() - begun) * 1000)
            found = any(hit["fact_id"] == f"f{number}" for hit in results["hits"])
            seen.outcomes["degraded" if results["degraded"] else "right" if found else "empty or wrong"] += 1
            await asyncio.sleep(THINKS)

    async def _write(self, ends: asyncio.Event) -> None:
        while not ends.is_set():
            text = " ".join("".join(random.choices(ascii_lowercase, k=8)) for _ in range(6))
            try:
                stored = await self._kb.store_fact(text)
            except Exception as error:
                self.seen.outcomes[f"store {type(error).__name__}"] += 1
            else:
                self.seen.stored.append(text)
                self.seen.outcomes["stored" if stored["indexed"] else "stored, not indexed yet"] += 1
            await asyncio.sleep(THINKS)

    def begin_anew(self) -> Seen:
        seen, self.seen = self.seen, Seen()
        return seen


def told(name: str, seen: Seen, alone: Seen) -> str:
    halves = median(seen.took), median(alone.took)
    tails = percentile(seen.took, 0.95), percentile(alone.took, 0.95)
    return (
        f"{name}: {len(seen.took)} searches, p50 {halves[0]:.1f} ms ({halves[0] / halves[1]:.2f} x alone), "
        f"p95 {tails[0]:.1f} ms ({tails[0] / tails[1]:.2f} x alone, limit 2), longest {max(seen.took):.0f} ms; "
        f"{dict(seen.outcomes)}"
    )


async def all_found(kb: KnowledgeBase, texts: list[str]) -> int:
    """Returns how many contents are found first, by words and by meaning."""
    found = 0
    for text in texts:
        hits = [(await kb.search(text, 1, mode=mode))["hits"] for mode in ("text", "vector")]
        found += all(some and some[0]["content"] == text for some in hits)
    return found


async def rebuilding(url: str, name: str, size: int) -> None:
    """Rebuilds in this process, as ``kb reindex`` does, and prints how long it took until the switch."""
    async with KnowledgeBase(settings(url), embed_model=model(name, size)) as kb:
        report = await kb.rebuild_search_index()
    print(f"{report['facts']} {report['took_s']}", flush=True)


async def in_process(url: str, name: str = "stub", size: int = DIMENSION) -> tuple[int, float]:
    command = ("-m", "tests.benchmarks.rebuild", "--child", url, name, str(size))
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    said = (await process.communicate())[0].decode().split()
    return int(said[0]), float(said[1])


async def measure(server: RedisServer, facts: int) -> None:
    async with KnowledgeBase(settings(server.url), embed_model=model()) as kb:
        begun = time.perf_counter()
        await populate(kb, facts)
        print(f"{facts} facts stored in {time.perf_counter() - begun:.0f} s", flush=True)
        live = Generation(NAMESPACE, 1, "StubEmbedding:stub", DIMENSION)
        bare = await asyncio.to_thread(copy_bare, server.url, live, facts)
        print(f"bare redis-py, pipelines of {PIPELINE}: {bare:.0f} facts/s", flush=True)
        done, took = await in_process(server.url)
        print(
            f"rebuild, nobody else there: {done / took:.0f} facts/s ({done / took / bare:.2f} x bare, "
            f"{done / took / 5_000:.2f} x the target of 5 000)",
            flush=True,
        )
        traffic = Traffic(kb, facts)
        ends = asyncio.Event()
        running = asyncio.create_task(traffic.run(ends))
        await asyncio.sleep(ALONE_SECONDS / 4)
        traffic.begin_anew()
        await asyncio.sleep(ALONE_SECONDS)
        alone = traffic.begin_anew()
        print(told("alone", alone, alone), flush=True)
        done, took = await in_process(server.url)
        during = traffic.begin_anew()
        print(told("during a rebuild", during, alone), flush=True)
        print(f"rebuild beside them: {done / took:.0f} facts/s, {took:.0f} s")
        ends.set()
        await running
        stored = [*during.stored, *traffic.seen.stored]
        some = random.sample(stored, min(SOUGHT, len(stored)))
        found = await all_found(kb, some)
        print(f"{len(stored)} facts written meanwhile; of {len(some)} of them {found} are found by words and meaning")


def main() -> None:
    if "--child" in sys.argv:
        url, name, size = sys.argv[-3:]
        asyncio.run(rebuilding(url, name, int(size)))
        return
    facts = int(sys.argv[sys.argv.index("--facts") + 1]) if "--facts" in sys.argv else FACTS
    server = RedisServer()
    try:
        server.start()
        asyncio.run(measure(server, facts))
    finally:
        server.remove()


if __name__ == "__main__":
    main()
