"""How late the event loop is under mixed load with faults, against its limits: ``mixed_load [--stacks]``."""

from __future__ import annotations

import asyncio
import sys

from knowledge_base import BreakerSettings, EmbeddingSettings, KnowledgeBase, Settings
from tests.soak.embedding import FailingLocalEmbedding
from tests.soak.faults import Faults, in_turn
from tests.soak.outcomes import Outcomes
from tests.soak.stalls import Spread, heartbeat
from tests.soak.workload import Workload, sentences
from tests.support.server import RedisServer

LIMIT_P999_MS = 20.0
LIMIT_WORST_MS = 100.0
SECONDS = 90.0
BASE_FACTS = 1_100
PAUSE = 0.1
RECOVERY = 10.0
LOOKED_INTO_ABOVE_MS = 15.0
STACKS = "--stacks"


def told(name: str, spread: Spread) -> str:
    """The figures of one measure beside its limits."""
    p999 = spread.percentile(0.999)
    return (
        f"{name}: p99.9 {p999:.1f} ms ({p999 / LIMIT_P999_MS:.2f} of the limit of {LIMIT_P999_MS:.0f} ms), worst "
        f"{spread.worst:.1f} ms ({spread.worst / LIMIT_WORST_MS:.2f} of the limit of {LIMIT_WORST_MS:.0f} ms), "
        f"{spread.above(LIMIT_P999_MS)} of {spread.total} above {LIMIT_P999_MS:.0f} ms"
    )


async def measure(server: RedisServer, seconds: float, stacks: bool) -> None:
    model = await asyncio.to_thread(FailingLocalEmbedding.load)
    assert isinstance(model, FailingLocalEmbedding)
    settings = Settings(
        redis_url=server.url,
        namespace="mixed",
        embedding=EmbeddingSettings(cache_size=500),
        # A loop whose callers are all refused is not under load.
        breaker=BreakerSettings(reset_after=1.0),
    )
    outcomes = Outcomes()
    faults = Faults(server, model)
    schedule = {
        "the server is frozen for 3 s": lambda: faults.frozen(3.0),
        "the server is killed, and started 1 s later": lambda: faults.killed(1.0),
        "the embedder fails for 5 s": lambda: faults.embedder_failing(5.0),
    }
    async with KnowledgeBase(settings, embed_model=model) as kb:
        load = Workload(kb, outcomes, PAUSE)
        await load.prepare(sentences(BASE_FACTS))
        await kb.search("warm")
        # Alone first: what the machine itself and those who share it cost.
        async with heartbeat() as (alone, _):
            await asyncio.sleep(5)
        print(told("the loop alone", alone.late))
        async with heartbeat(LOOKED_INTO_ABOVE_MS if stacks else None) as (beats, watcher):
            tasks = [
                asyncio.create_task(load.run([*load.callers(), *load.big_callers()])),
                asyncio.create_task(in_turn(schedule, RECOVERY, lambda name: print(f"  {name}", flush=True))),
            ]
            done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in done:
                task.result()
    print(outcomes.table())
    print(outcomes.why())
    print("\n".join(outcomes.tracebacks))
    print(told("the loop is late", beats.late))
    print(told("processor time of its thread", beats.own))
    print(f"untyped errors: {outcomes.untyped}")
    if watcher is not None:
        print(watcher.report())


def main() -> None:
    server = RedisServer()
    server.start()
    try:
        asyncio.run(measure(server, SECONDS, STACKS in sys.argv))
    finally:
        server.remove()
