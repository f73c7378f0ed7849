"""The full figures of what outlives kills, cancellations and random use: ``python -m tests.faults.durability``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import time

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from knowledge_base import KnowledgeBase, Settings
from knowledge_base.settings import BreakerSettings, Limits
from tests.support.control import Control
from tests.support.embeddings import StubEmbedding
from tests.support.fact_machine import fact_machine
from tests.support.many_stores import Survey
from tests.support.process_kills import store_in_killed_processes
from tests.support.random_cancellations import cancel_reads
from tests.support.server import RedisServer
from tests.support.server_kills import store_through_kills
from tests.support.storing_process import DYING, HANGING, WELL

IMPATIENT = BreakerSettings(reset_after=0.2)
MOODS = (WELL, HANGING, DYING)
LEASE = Settings().indexing.lease
EXAMPLES = 25
STEPS = 50


def new_base(server: RedisServer, limits: Limits | None = None) -> KnowledgeBase:
    chosen = Settings(redis_url=server.url, namespace="durability", breaker=IMPATIENT, limits=limits or Limits())
    return KnowledgeBase(chosen, embed_model=StubEmbedding(model_name="stub"))


def told(survey: Survey) -> str:
    unseen = ", ".join(f"{len(ids)} not found by {kind}" for kind, ids in survey.unseen.items())
    return (
        f"{len(survey.acknowledged)} acknowledged, {len(survey.facts)} there, {len(survey.lost)} lost, "
        f"{survey.duplicates} duplicates, {survey.pending} pending afterwards, {unseen}, faults: {survey.faults}"
    )


async def kill_server(server: RedisServer, stores: int, kills: int) -> None:
    begun = time.monotonic()
    async with new_base(server) as kb:
        report = await store_through_kills(kb, server, stores, kills)
    print(
        f"server killed {kills} times during {stores} stores: {told(report.survey)}; {report.given_up} gave up; "
        f"all indexed {report.seconds_until_indexed:.1f} s after the last; took {time.monotonic() - begun:.0f} s"
    )


async def kill_ours(server: RedisServer, stores: int, kills: int) -> None:
    begun = time.monotonic()
    moods = [MOODS[at % len(MOODS)] for at in range(kills)]
    kb = new_base(server)
    try:
        report = await store_in_killed_processes(kb, server.url, moods, stores, LEASE)
    finally:
        await kb.close()
    print(
        f"our process killed {kills} times during {stores} stores ({', '.join(moods)}): {told(report.survey)}; "
        f"pending at the kills: {report.pending_at_kills}; longest without a vector: {report.longest_wait:.1f} s "
        f"(limit 60 s); took {time.monotonic() - begun:.0f} s"
    )


async def cancel(server: RedisServer, cancellations: int) -> None:
    control = Control(server.url)
    async with new_base(server, Limits(concurrent_searches=100)) as kb:
        report = await cancel_reads(kb, control, cancellations, seed=int(time.time()))
        stats = await kb.get_detailed_stats()
    control.close()
    print(
        f"{report.cancelled} reads cancelled, {report.answered} answered, {len(report.wrong)} wrong replies, "
        f"errors: {dict(report.errors)}, at most {report.most_connections} connections, "
        f"circuits {[breaker['state'] for breaker in stats['breakers']]}, "
        f"in use afterwards {sum(pool['in_use'] for pool in stats['pools'].values())}; took {report.seconds:.1f} s"
    )


def use_at_random(server: RedisServer, steps: int) -> None:
    begun = time.monotonic()
    done: list[None] = []
    while len(done) < steps:
        run_state_machine_as_test(
            fact_machine(server, lambda: done.append(None)),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                print_blob=True,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
        print(f"{len(done)} steps of the model, no divergence, {time.monotonic() - begun:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", type=int, default=0, help="facts stored while something is killed")
    parser.add_argument("--kills", type=int, default=5, help="how often it is killed")
    parser.add_argument("--ours", action="store_true", help="kill our processes instead of the server")
    parser.add_argument("--cancellations", type=int, default=0, help="reads that are cancelled")
    parser.add_argument("--steps", type=int, default=0, help="steps of the state machine")
    chosen = parser.parse_args()
    # What fails on purpose is logged with its traceback by the libraries below.
    logging.disable(logging.ERROR)
    server = RedisServer(fsync="always")
    try:
        server.start()
        if chosen.stores:
            kill = kill_ours if chosen.ours else kill_server
            asyncio.run(kill(server, chosen.stores, chosen.kills))
        if chosen.cancellations:
            asyncio.run(cancel(server, chosen.cancellations))
        if chosen.steps:
            use_at_random(server, chosen.steps)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
