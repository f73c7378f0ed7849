"""Rebuilds that are cut off, refused or run into trouble: the live index stays as it was, and the next one ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import redis

from knowledge_base.errors import KnowledgeBaseError, OperationTimeoutError, UnavailableError
from knowledge_base.keyspace import Keyspace
from knowledge_base.settings import BreakerSettings
from tests.support.cancel_at import MOMENTS, CancelAt, Moment
from tests.support.control import Control
from tests.support.embedded import client_of
from tests.support.embeddings import StubEmbedding
from tests.support.facts import found
from tests.support.many_facts import content, populate
from tests.support.polling import eventually
from tests.support.rebuilds import (
    PATIENT,
    SHORT,
    generation_of,
    index_faults,
    leftovers,
    rebuild_of,
)
from tests.support.server import RedisServer

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

FACTS = 1_000
CLEANED_WITHIN = 30.0
ABANDONED = {
    "number": "2",
    "owner": "gone",
    "lease": "1",
    "base": "1",
    "model": "another",
    "dimension": "7",
    "cursor": "9",
    "done": "9",
    "total": "9",
    "changes": "9",
    "started": "1",
    "cut": "",
}
SOON = BreakerSettings(reset_after=0.1)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with client_of(redis_url) as one:
        yield one


@pytest.fixture(autouse=True)
def nobody_else_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the old index go soon: no other process has to see the switch."""
    monkeypatch.setattr("knowledge_base.admin.rebuild.index_rebuild.FRESH_FOR", 0.0)


class Stopwatch:
    """A progress callback that tells when a rebuild is in the midst of its work."""

    def __init__(self) -> None:
        self.is_copying = asyncio.Event()

    def __call__(self, done: int, total: int) -> None:
        self.is_copying.set()


async def is_found(kb: KnowledgeBase, number: int) -> bool:
    return f"f{number}" in await found(kb, content(number), mode="text", timeout=PATIENT)


async def test_second_rebuild_is_refused_while_the_first_is_at_it(
    open_kb: Any, client: redis.Redis, namespace: str
) -> None:
    first: KnowledgeBase = open_kb(timeouts=SHORT)
    second: KnowledgeBase = open_kb(timeouts=SHORT)
    await populate(first, FACTS)
    watch = Stopwatch()
    running = asyncio.create_task(first.rebuild_search_index(progress=watch))
    await watch.is_copying.wait()

    with pytest.raises(UnavailableError, match=f"of {FACTS} facts done") as refused:
        await second.rebuild_search_index()

    assert namespace in str(refused.value)
    assert "another process" in str(refused.value)
    assert (await running)["generation"] == 2
    assert leftovers(client, namespace) == []


async def test_rebuilds_at_once_end_with_one_new_index(open_kb: Any, client: redis.Redis, namespace: str) -> None:
    bases: list[KnowledgeBase] = [open_kb(timeouts=SHORT) for _ in range(3)]
    await populate(bases[0], 100)

    outcomes = await asyncio.gather(*(kb.rebuild_search_index() for kb in bases), return_exceptions=True)

    reports = [outcome for outcome in outcomes if isinstance(outcome, dict)]
    assert len(reports) == 1
    assert [type(outcome) for outcome in outcomes if not isinstance(outcome, dict)] == [UnavailableError] * 2
    assert generation_of(client, namespace)["number"] == "2"
    assert leftovers(client, namespace) == []


async def test_timeout_that_is_too_short_drops_what_was_built(
    open_kb: Any, client: redis.Redis, namespace: str
) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    await populate(kb, FACTS)

    with pytest.raises(OperationTimeoutError, match="rebuild_search_index"):
        await kb.rebuild_search_index(timeout=0.1)

    assert generation_of(client, namespace)["number"] == "1"
    await eventually(lambda: leftovers(client, namespace) == [], CLEANED_WITHIN)
    assert await is_found(kb, 7)
    assert (await kb.rebuild_search_index())["resumed"] is False


@pytest.mark.timeout(900)
@pytest.mark.parametrize("moment", MOMENTS)
async def test_rebuild_cancelled_anywhere_is_done_wholly_or_dropped(
    open_kb: Any, client: redis.Redis, namespace: str, stub_embedding: StubEmbedding, moment: Moment
) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    await kb.store_fact("terns fly", fact_id="a")
    await kb.store_fact("walruses dive", fact_id="b")
    cancelled = 0

    for place in count():
        number = int(generation_of(client, namespace)["number"])
        at = CancelAt(place, moment)
        outcome = await at.run(kb.rebuild_search_index())

        assert isinstance(outcome, dict | asyncio.CancelledError), outcome
        # The lease is free at once.
        assert rebuild_of(client, namespace) == {}, place
        assert int(generation_of(client, namespace)["number"]) >= number
        assert await found(kb, "terns fly", mode="vector", top_k=1, timeout=PATIENT) == ["a"]
        assert await found(kb, "walruses", mode="text", timeout=PATIENT) == ["b"]
        if not at.reached:
            break
        cancelled += isinstance(outcome, asyncio.CancelledError)

    assert isinstance(outcome, dict)
    assert cancelled > place // 2
    await eventually(lambda: leftovers(client, namespace) == [], CLEANED_WITHIN)
    assert index_faults(client, namespace, stub_embedding) == []


async def test_close_ends_a_rebuild_in_time(
    open_kb: Any, client: redis.Redis, namespace: str, stub_embedding: StubEmbedding
) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    await populate(kb, FACTS)
    watch = Stopwatch()
    running = asyncio.create_task(kb.rebuild_search_index(progress=watch))
    await watch.is_copying.wait()
    begun = time.monotonic()

    await kb.close()
    outcome = (await asyncio.gather(running, return_exceptions=True))[0]

    assert time.monotonic() - begun < 5.5
    assert isinstance(outcome, UnavailableError | asyncio.CancelledError)
    assert generation_of(client, namespace)["number"] == "1"
    other: KnowledgeBase = open_kb(timeouts=SHORT)
    assert await is_found(other, 7)

    async def is_rebuilt() -> bool:
        try:
            return (await other.rebuild_search_index())["generation"] is not None
        except UnavailableError:
            # Nobody could tell the server that it was given up.
            return False

    await eventually(is_rebuilt, 30.0)
    await eventually(lambda: leftovers(client, namespace) == [], CLEANED_WITHIN)


@pytest.mark.parametrize(
    "garbage",
    [
        {"number": "2"},
        {"nonsense": "1"},
        {"number": "two", "owner": "x", "lease": "soon", "base": "1"},
        {**ABANDONED, "base": "7"},
        {**ABANDONED, "number": "1", "model": "StubEmbedding:stub", "dimension": "32"},
    ],
    ids=["half", "other", "text", "other base", "the live one"],
)
async def test_record_that_somebody_else_wrote_neither_breaks_the_base_nor_the_index(
    open_kb: Any, client: redis.Redis, namespace: str, stub_embedding: StubEmbedding, garbage: dict[str, str]
) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    await kb.store_fact("terns fly", fact_id="a")
    client.hset(Keyspace(namespace).rebuild, mapping=dict(garbage))

    outcome = (await asyncio.gather(kb.rebuild_search_index(), return_exceptions=True))[0]

    assert isinstance(outcome, dict | KnowledgeBaseError), outcome
    assert await found(kb, "terns fly", mode="vector", timeout=PATIENT) == ["a"]
    await kb.store_fact("terns dive", fact_id="b")
    assert set(await found(kb, "terns", mode="text", timeout=PATIENT)) == {"a", "b"}
    if not isinstance(outcome, dict):
        assert not isinstance(outcome, UnavailableError), "to try again does not help"
        client.delete(Keyspace(namespace).rebuild)
    await kb.rebuild_search_index()
    assert index_faults(client, namespace, stub_embedding) == []
    await eventually(lambda: leftovers(client, namespace) == [], CLEANED_WITHIN)


async def test_live_index_that_vanishes_meanwhile_is_replaced(
    open_kb: Any, client: redis.Redis, namespace: str
) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    await populate(kb, FACTS)
    keys = Keyspace(namespace)

    watch = Stopwatch()

    def drop(done: int, total: int) -> None:
        there: Any = client.execute_command("FT._LIST")
        for name in {keys.text_index(1), keys.vector_index(1)} & set(there):
            client.execute_command("FT.DROPINDEX", name)
        watch(done, total)

    running = asyncio.create_task(kb.rebuild_search_index(progress=drop))
    await watch.is_copying.wait()

    async def is_whole() -> bool:
        try:
            return await is_found(kb, 7)
        except UnavailableError:
            return False

    await eventually(is_whole)
    await running

    for number in range(0, FACTS, 100):
        assert await is_found(kb, number)
    await eventually(lambda: leftovers(client, namespace) == [], CLEANED_WITHIN)


async def test_emptied_server_ends_a_rebuild_and_is_as_new(open_kb: Any, new_server: Any, namespace: str) -> None:
    server: RedisServer = new_server().start()
    kb: KnowledgeBase = open_kb(redis_url=server.url, timeouts=SHORT)
    await populate(kb, FACTS)
    watch = Stopwatch()
    running = asyncio.create_task(kb.rebuild_search_index(progress=watch))
    await watch.is_copying.wait()

    with client_of(server.url) as client:
        client.flushall()
        with pytest.raises(KnowledgeBaseError):
            await running

        await kb.store_fact("terns fly", fact_id="a")
        assert await found(kb, "terns fly", timeout=PATIENT) == ["a"]
        report = await kb.rebuild_search_index()
        assert (report["facts"], report["resumed"]) == (1, False)
        assert await found(kb, "terns fly", mode="vector", timeout=PATIENT) == ["a"]
        assert leftovers(client, namespace) == []


@pytest.mark.parametrize("is_saved", [False, True], ids=["log", "snapshot"])
async def test_rebuild_outlives_a_server_that_is_killed(
    open_kb: Any, new_server: Any, namespace: str, is_saved: bool
) -> None:
    server: RedisServer = new_server(fsync="always").start()
    kb: KnowledgeBase = open_kb(redis_url=server.url, timeouts=SHORT, breaker=SOON)
    await populate(kb, FACTS)
    watch = Stopwatch()
    running = asyncio.create_task(kb.rebuild_search_index(progress=watch))
    await watch.is_copying.wait()
    if is_saved:
        with client_of(server.url) as client:
            client.bgrewriteaof()
            await eventually(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0)  # type: ignore[index]

    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)
    report = await running

    assert report["generation"] == 2
    assert report["facts"] == FACTS
    with client_of(server.url) as client:
        for number in range(0, FACTS, 50):
            assert await is_found(kb, number)
        await eventually(lambda: leftovers(client, namespace) == [], CLEANED_WITHIN)


async def test_server_without_memory_gets_back_what_the_rebuild_took(
    open_kb: Any, new_server: Any, namespace: str
) -> None:
    server: RedisServer = new_server().start()
    kb: KnowledgeBase = open_kb(redis_url=server.url, timeouts=SHORT)
    await populate(kb, FACTS)
    with client_of(server.url) as client:
        used: Any = client.info("memory")
        client.config_set("maxmemory", int(used["used_memory"]) + 1_000_000)

        with pytest.raises(UnavailableError, match="memory"):
            await kb.rebuild_search_index(timeout=60.0)

        assert generation_of(client, namespace)["number"] == "1"
        assert rebuild_of(client, namespace) == {}
        await eventually(lambda: leftovers(client, namespace) == [], CLEANED_WITHIN)
        await kb.store_fact("terns fly", fact_id="a")
        assert await found(kb, "terns fly", mode="text", top_k=1, timeout=PATIENT) == ["a"]
        client.config_set("maxmemory", 0)
        assert (await kb.rebuild_search_index())["facts"] == FACTS + 1


async def test_failed_rebuild_leaves_its_lease_to_the_next(
    open_kb: Any, client: redis.Redis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from knowledge_base.admin.rebuild import index_rebuild as rebuild

    first: KnowledgeBase = open_kb(timeouts=SHORT)
    second: KnowledgeBase = open_kb(timeouts=SHORT)
    await populate(first, FACTS)
    failures = 0

    async def fails(*_: Any) -> None:
        nonlocal failures
        failures += 1
        raise UnavailableError("not now")

    monkeypatch.setattr(rebuild, "PATIENCE", 0.0)
    with monkeypatch.context() as context:
        context.setattr(rebuild.IndexRebuild, "_switch", fails)
        with pytest.raises(UnavailableError, match="not now"):
            await first.rebuild_search_index()
    assert rebuild_of(client, namespace)["done"] == str(FACTS)

    report = await second.rebuild_search_index()

    assert failures > 0
    assert (report["resumed"], report["generation"], report["facts"]) == (True, 2, FACTS)
    assert leftovers(client, namespace) == []


async def test_abandoned_rebuild_for_another_model_is_dropped_and_begun_anew(
    open_kb: Any, client: redis.Redis, control: Control, namespace: str, stub_embedding: StubEmbedding
) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    await kb.store_fact("terns fly", fact_id="a")
    keys = Keyspace(namespace)
    client.hset(keys.rebuild, mapping=dict(ABANDONED))
    client.hset(keys.counters, "generations", "2")
    client.zadd(keys.changed, {"gone": 3})
    client.hset(f"{keys.passages(2)}:a:1-x-1:0", "text", "terns fly")

    report = await kb.rebuild_search_index()

    assert (report["generation"], report["resumed"]) == (3, False)
    assert leftovers(client, namespace) == []
    assert control.indexes(namespace) == {keys.text_index(3), keys.vector_index(3)}
    assert await found(kb, "terns fly", timeout=PATIENT) == ["a"]
    assert index_faults(client, namespace, stub_embedding) == []
