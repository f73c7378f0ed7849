"""Calls that are cancelled: at random, and at each place where they wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import OverloadedError
from knowledge_base.settings import EmbeddingSettings, IndexingSettings, Limits
from tests.support.bookkeeping import Bookkeeping, settles
from tests.support.cancel_at import MOMENTS, CancelAt, Moment
from tests.support.control import Control
from tests.support.embedded import client_of
from tests.support.facts import found, only
from tests.support.polling import eventually
from tests.support.random_cancellations import cancel_reads

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

CANCELLATIONS = 1_000
POOL = 20
THREADS = 4
POOLS = 3
SETTLES_WITHIN = 20.0

# A place that is not given back is missed by the very next call.
ONE_PLACE = Limits(concurrent_stores=1, concurrent_searches=1, index_threads=1, pool_connections=4)
ONE_REQUEST = EmbeddingSettings(max_concurrent_requests=1, threads=1)
SHORT = IndexingSettings(lease=1.0)

Call = Callable[["KnowledgeBase", str], Coroutine[Any, Any, Any]]


def item(name: str) -> dict[str, Any]:
    return {"content": f"{name} swims", "fact_id": name, "tags": ["new"], "source": "zoo"}


CALLS: dict[str, Call] = {
    "store_fact": lambda kb, name: kb.store_fact(**item(name)),
    "store_facts": lambda kb, name: kb.store_facts([item(f"{name}-{n}") for n in range(3)]),
    "update_fact": lambda kb, name: kb.update_fact(f"{name}-old", content=f"{name} climbs", tags=["new"]),
    "delete_fact": lambda kb, name: kb.delete_fact(f"{name}-old"),
    "search": lambda kb, name: kb.search(f"{name} crawls"),
}


async def in_use(kb: KnowledgeBase) -> dict[str, int]:
    """Connections and threads that are taken, per pool; none when all is well."""
    stats = await kb.get_detailed_stats()
    assert {breaker["state"] for breaker in stats["breakers"]} == {"closed"}
    return {name: pool["in_use"] for name, pool in stats["pools"].items() if pool["in_use"] or pool["waiting"]}


async def nothing_in_use(kb: KnowledgeBase) -> bool:
    return await in_use(kb) == {}


async def test_cancelled_reads_give_nobody_the_reply_of_another(open_kb: Any, control: Control) -> None:
    limits = Limits(pool_connections=POOL, concurrent_searches=100, index_threads=THREADS)
    kb = open_kb(limits=limits)
    before = len(control.connections())

    report = await cancel_reads(kb, control, CANCELLATIONS, seed=3)

    assert report.cancelled >= CANCELLATIONS
    assert report.answered > 0
    assert report.wrong == []
    # Threads cannot be cancelled: while all of them finish what nobody waits for, others are refused.
    assert set(report.errors) <= {OverloadedError.__name__}
    assert report.most_connections <= before + POOLS * POOL + THREADS
    await eventually(lambda: nothing_in_use(kb))


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("call", CALLS)
async def test_call_cancelled_anywhere_is_done_wholly_or_not_at_all(
    open_kb: Any, redis_url: str, namespace: str, call: str, moment: Moment
) -> None:
    kb: KnowledgeBase = open_kb(limits=ONE_PLACE, embedding=ONE_REQUEST, indexing=SHORT)
    await kb.store_fact("walruses dive", fact_id="bystander")
    await kb.search("walruses")
    cancelled = 0

    with client_of(redis_url) as client:
        for place in count():
            name = f"n{place}"
            await kb.store_fact(f"{name} crawls", fact_id=f"{name}-old", tags=["old"], source="zoo")
            before = await only(kb, f"{name}-old")
            at = CancelAt(place, moment)
            beside = asyncio.create_task(kb.get_fact("bystander"))
            outcome = await at.run(CALLS[call](kb, name))

            assert [fact["content"] for fact in await beside] == ["walruses dive"]
            await eventually(lambda: nothing_in_use(kb), SETTLES_WITHIN)
            assert Bookkeeping(client, namespace).faults(settled=False) == [], (place, outcome)
            await assert_whole(kb, name, before)
            if not at.reached:
                break
            cancelled += isinstance(outcome, asyncio.CancelledError)
            # The same call finds every place free.
            await CALLS[call](kb, name)
        left = await settles(client, namespace, SETTLES_WITHIN)

    assert left == []
    assert not isinstance(outcome, BaseException), "a call that was left alone failed"
    assert cancelled > place // 2


async def assert_whole(kb: KnowledgeBase, name: str, before: dict[str, Any]) -> None:
    for fact in await kb.get_fact(query=name):
        verb = fact["content"].split()[1]
        assert fact["tags"] == (["old"] if verb == "crawls" else ["new"])
        if verb == "crawls":
            assert fact == before
        if fact["indexed"]:
            assert await found(kb, fact["content"], mode="vector", filters={"fact_id": fact["id"]}) == [fact["id"]]
        assert fact["id"] in await found(kb, name, mode="text")
