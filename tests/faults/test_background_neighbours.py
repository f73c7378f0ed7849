"""Namespaces and facts that are ill, or busy, do not hold up their neighbours."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from knowledge_base.keyspace import NAMESPACES_KEY, Keyspace
from knowledge_base.settings import BreakerSettings, EmbeddingSettings, IndexingSettings
from tests.support.control import Control
from tests.support.poison import PoisonedEmbedding
from tests.support.polling import eventually


async def test_busy_namespace_does_not_keep_it_from_the_others(
    stub_kb: Any, open_kb: Any, namespace: str, control: Control
) -> None:
    other = f"{namespace}:other"
    await stub_kb.store_fact("walruses dive")
    await stub_kb.store_fact("walruses dive", namespace=other)
    await stub_kb.store_fact("penguins swim", fact_id="p", namespace=other)
    # As a process leaves it that was killed between store and vectors, its lease over.
    keys = Keyspace(other)
    control.run("HSET", keys.fact("p"), "indexed", "0")
    control.run("ZADD", keys.pending, 1, "p")
    begun, number = time.monotonic(), 0
    while time.monotonic() - begun < 25 and control.run("ZCARD", keys.pending):
        await stub_kb.store_fact(f"penguin {number}", wait_indexed=False)
        number += 1
        await asyncio.sleep(0.3)
    assert control.run("ZCARD", keys.pending) == 0


async def test_key_of_a_wrong_type_in_one_namespace_holds_up_no_other(new_server: Any, open_kb: Any) -> None:
    server = new_server().start()
    kb = open_kb(redis_url=server.url)
    await kb.store_fact("penguins swim", fact_id="p", namespace="z")
    control = Control(server.url)
    control.run("SADD", NAMESPACES_KEY, "broken")
    control.run("SET", Keyspace("broken").pending, "text")
    keys = Keyspace("z")
    control.run("HSET", keys.fact("p"), "indexed", "0")
    control.run("ZADD", keys.pending, 1, "p")
    try:
        await eventually(lambda: not control.run("ZCARD", keys.pending), 40)
    finally:
        control.close()


@pytest.mark.parametrize("failures", [1, 2, 5])
async def test_fact_that_the_model_refuses_holds_up_nobody_however_soon_the_circuit_opens(
    open_kb: Any, failures: int
) -> None:
    model = PoisonedEmbedding(model_name="stub")
    kb = open_kb(
        model,
        breaker=BreakerSettings(failures=failures, reset_after=0.1),
        indexing=IndexingSettings(attempts=2, retry_after=0.05, longest_pause=0.1),
        embedding=EmbeddingSettings(dimension=32),
    )
    await kb.store_fact("walruses dive")
    model.refuse("plutonium")
    facts = [{"content": "plutonium", "fact_id": "a"}] + [{"content": f"penguin {n}"} for n in range(5)]
    await kb.store_facts(facts)

    async def settled() -> bool:
        stats = await kb.get_stats()
        return (stats["pending"], stats["parked"]) == (0, 1)

    await eventually(settled, 60)
