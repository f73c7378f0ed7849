"""What began before a switch and ends after it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import redis

from knowledge_base.connection.workload import job
from knowledge_base.index.indexer import PassageSet
from tests.support.bookkeeping import Bookkeeping, settles
from tests.support.embedded import client_of
from tests.support.embeddings import StubEmbedding
from tests.support.facts import found, hit_ids
from tests.support.polling import eventually
from tests.support.rebuilds import PATIENT, SHORT, generation_of, index_faults, leftovers

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

SETTLES_WITHIN = 60.0


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with client_of(redis_url) as one:
        yield one


async def is_live(client: redis.Redis, namespace: str, number: str) -> bool:
    return generation_of(client, namespace)["number"] == number


@pytest.mark.parametrize("mode", ["text", "vector", "hybrid"])
async def test_search_that_began_before_the_switch_ends_well(
    open_kb: Any, client: redis.Redis, namespace: str, mode: Any
) -> None:
    kb: KnowledgeBase = open_kb()
    rebuilding: KnowledgeBase = open_kb(timeouts=SHORT)
    await kb.store_fact("terns fly", fact_id="a")
    services: Any = await kb._services.start()
    waits, may_go_on = asyncio.Event(), asyncio.Event()
    find = services.finder.find

    async def find_and_wait(*arguments: Any) -> Any:
        outcome = await find(*arguments)
        waits.set()
        await may_go_on.wait()
        return outcome

    services.finder.find = find_and_wait
    searching = asyncio.create_task(kb.search("terns fly", mode=mode, timeout=PATIENT))
    await waits.wait()
    running = asyncio.create_task(rebuilding.rebuild_search_index())
    await eventually(lambda: is_live(client, namespace, "2"))

    # Some hits of the old index are known, and are read only now.
    may_go_on.set()
    results = await searching

    assert (hit_ids(results), results["degraded"]) == (["a"], [])
    assert results["hits"][0]["content"] == "terns fly"
    await running
    assert leftovers(client, namespace) == []


@pytest.mark.parametrize("mode", ["text", "vector", "hybrid"])
async def test_search_that_looks_for_the_old_index_when_it_is_gone_is_answered(
    open_kb: Any, client: redis.Redis, namespace: str, mode: Any
) -> None:
    kb: KnowledgeBase = open_kb()
    rebuilding: KnowledgeBase = open_kb(timeouts=SHORT)
    await kb.store_fact("terns fly", fact_id="a")
    services: Any = await kb._services.start()
    waits, may_go_on = asyncio.Event(), asyncio.Event()
    find = services.finder.find

    async def wait_and_find(*arguments: Any) -> Any:
        waits.set()
        await may_go_on.wait()
        return await find(*arguments)

    services.finder.find = wait_and_find
    searching = asyncio.create_task(kb.search("terns fly", mode=mode, timeout=PATIENT))
    await waits.wait()
    await rebuilding.rebuild_search_index()
    may_go_on.set()
    results: Any = (await asyncio.gather(searching, return_exceptions=True))[0]

    # It took far longer than a search may; whatever it says, it makes no index of what is gone.
    assert isinstance(results, Exception) or hit_ids(results) == ["a"], results
    assert leftovers(client, namespace) == []
    assert await found(kb, "terns fly", mode=mode, timeout=PATIENT) == ["a"]


@pytest.mark.parametrize("is_dropped", [False, True], ids=["old index there", "old index gone"])
async def test_vectors_that_come_late_for_the_old_index_leave_no_orphan(
    open_kb: Any, client: redis.Redis, namespace: str, stub_embedding: StubEmbedding, is_dropped: bool
) -> None:
    kb: KnowledgeBase = open_kb()
    rebuilding: KnowledgeBase = open_kb(timeouts=SHORT)
    await kb.store_fact("terns fly", fact_id="a")
    services = await kb._services.start()
    old = await services.generations.current(namespace)
    assert old is not None
    revision = str(client.hget(f"kb:{{{namespace}}}:fact:a", "revision"))
    running = asyncio.create_task(rebuilding.rebuild_search_index())
    await eventually(lambda: is_live(client, namespace, "2"))
    if is_dropped:
        await running

    with job():
        outcome: Any = await asyncio.gather(
            services.indexer.index(old, [PassageSet("a", revision, ["terns fly"])]), return_exceptions=True
        )

    assert list(outcome) != [[True]]
    await running
    assert leftovers(client, namespace) == []
    assert index_faults(client, namespace, stub_embedding) == []
    assert Bookkeeping(client, namespace).faults() == []
    assert await found(kb, "terns fly", mode="vector", timeout=PATIENT) == ["a"]


async def test_update_that_embeds_ahead_across_the_switch_is_found(
    open_kb: Any, client: redis.Redis, namespace: str, stub_embedding: StubEmbedding
) -> None:
    kb: KnowledgeBase = open_kb()
    rebuilding: KnowledgeBase = open_kb(StubEmbedding(model_name="stub"), timeouts=SHORT)
    await kb.store_fact("terns fly", fact_id="a")
    asked = len(stub_embedding.texts)
    stub_embedding.become("hanging")
    updating = asyncio.create_task(kb.update_fact("a", content="terns rest on rocks", tags=["new"]))
    await eventually(lambda: len(stub_embedding.texts) > asked)

    # The old index is gone when the vectors come.
    await rebuilding.rebuild_search_index()
    stub_embedding.become("well")
    fact = await updating

    assert (fact["content"], fact["version"]) == ("terns rest on rocks", 2)

    async def is_found() -> bool:
        return await found(kb, "terns rest on rocks", mode="vector", filters={"tags": "new"}, timeout=PATIENT) == ["a"]

    await eventually(is_found, SETTLES_WITHIN)
    assert await settles(client, namespace, SETTLES_WITHIN) == []
    assert index_faults(client, namespace, stub_embedding) == []
    assert leftovers(client, namespace) == []


async def test_store_that_waits_for_its_vectors_across_the_switch_is_found(
    open_kb: Any, client: redis.Redis, namespace: str, stub_embedding: StubEmbedding
) -> None:
    kb: KnowledgeBase = open_kb()
    rebuilding: KnowledgeBase = open_kb(StubEmbedding(model_name="stub"), timeouts=SHORT)
    await kb.store_fact("terns fly", fact_id="a")
    asked = len(stub_embedding.texts)
    stub_embedding.become("hanging")
    storing = asyncio.create_task(kb.store_fact("walruses dive", fact_id="b"))
    await eventually(lambda: len(stub_embedding.texts) > asked)

    await rebuilding.rebuild_search_index()
    assert await found(kb, "walruses", mode="text", timeout=PATIENT) == ["b"]
    stub_embedding.become("well")
    assert (await storing)["status"] == "success"

    async def is_found() -> bool:
        return await found(kb, "walruses dive", mode="vector", top_k=1, timeout=PATIENT) == ["b"]

    await eventually(is_found, SETTLES_WITHIN)
    assert await settles(client, namespace, SETTLES_WITHIN) == []
    assert index_faults(client, namespace, stub_embedding) == []
    assert leftovers(client, namespace) == []
