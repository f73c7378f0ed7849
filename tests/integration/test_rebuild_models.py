"""A base that is moved to another embedding model: words are searched throughout, and everybody sees the switch."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import redis

from knowledge_base.errors import IndexMismatchError
from knowledge_base.keyspace import Keyspace
from knowledge_base.settings import BreakerSettings, IndexingSettings, Settings
from tests.support.bookkeeping import settles
from tests.support.embedded import client_of
from tests.support.embeddings import StubEmbedding
from tests.support.facts import found, hit_ids
from tests.support.many_facts import populate
from tests.support.moving_process import MODES, READY
from tests.support.polling import eventually
from tests.support.rebuilds import (
    OTHER_SIZE,
    PATIENT,
    SHORT,
    generation_of,
    index_faults,
    leftovers,
    moving_base,
    other_model,
)

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

PROCESSES = 3
FACTS = 300
FRESH_FOR = 1.0
SETTLES_WITHIN = 60.0
SOON = BreakerSettings(reset_after=0.1)
OpenMoving = Callable[..., Awaitable["KnowledgeBase"]]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with client_of(redis_url) as one:
        yield one


@pytest.fixture
def new_model() -> Iterator[StubEmbedding]:
    model = other_model()
    yield model
    model.become("well")


@pytest.fixture
async def open_moving(
    settings: Settings, stub_embedding: StubEmbedding, new_model: StubEmbedding
) -> AsyncIterator[OpenMoving]:
    """Opens bases with both models, or with those that are given."""
    async with AsyncExitStack() as opened:

        async def open_one(
            old: StubEmbedding = stub_embedding, new: StubEmbedding | None = new_model, **changes: Any
        ) -> KnowledgeBase:
            changes = {"timeouts": SHORT, "breaker": SOON} | changes
            return await opened.enter_async_context(moving_base(settings, old, new, **changes))

        yield open_one
        # Otherwise closing would wait for it.
        new_model.become("well")


def start_process(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def nothing_pending(kb: KnowledgeBase) -> bool:
    return (await kb.get_stats())["pending"] == 0


async def test_index_gets_the_vectors_of_the_new_model(
    open_moving: OpenMoving, client: redis.Redis, namespace: str, new_model: StubEmbedding
) -> None:
    kb = await open_moving()
    long = "\n\n".join(f"Part {n} about walruses. " + "Ice and snow. " * 40 for n in range(30))
    await kb.store_fact("terns fly", fact_id="a", tags=["bird"])
    await kb.store_fact(long, fact_id="long", principals=["ann"], expires_in=1_000.0)
    told: list[tuple[int, int]] = []

    report = await kb.rebuild_search_index(progress=lambda done, total: told.append((done, total)))

    assert (report["model"], report["dimension"], report["embedded"]) == ("StubEmbedding:other", OTHER_SIZE, 2)
    assert told[-1] == (2, 2)
    record = generation_of(client, namespace)
    assert (record["model"], record["dimension"]) == ("StubEmbedding:other", str(OTHER_SIZE))
    assert index_faults(client, namespace, new_model) == []
    assert leftovers(client, namespace) == []
    assert await found(kb, "terns fly", mode="vector", filters={"tags": "bird"}, timeout=PATIENT) == ["a"]
    assert await found(kb, "part 7 walruses", mode="vector", top_k=1, principals=["ann"], timeout=PATIENT) == ["long"]
    assert (await kb.get_stats())["embedding_model"] == "StubEmbedding:other"


async def test_another_process_with_the_new_model_alone_moves_the_base(
    open_moving: OpenMoving, stub_embedding: StubEmbedding, new_model: StubEmbedding
) -> None:
    before = await open_moving(new=None)
    await before.store_fact("terns fly", fact_id="a")
    kb = await open_moving(old=new_model, new=None)
    with pytest.raises(IndexMismatchError, match="kb reindex"):
        await kb.search("terns", timeout=PATIENT)

    report = await kb.rebuild_search_index()

    assert (report["embedded"], report["dimension"]) == (1, OTHER_SIZE)
    assert await found(kb, "terns fly", mode="vector", timeout=PATIENT) == ["a"]
    await kb.store_fact("terns dive", fact_id="b")
    assert await found(kb, "terns dive", mode="vector", top_k=1, timeout=PATIENT) == ["b"]


async def test_base_with_the_old_model_alone_is_told_what_to_do(
    open_moving: OpenMoving, client: redis.Redis, namespace: str
) -> None:
    old = await open_moving(new=None)
    moving = await open_moving()
    await old.store_fact("terns fly", fact_id="a")
    assert await found(old, "terns fly", timeout=PATIENT) == ["a"]

    await moving.rebuild_search_index()
    await asyncio.sleep(FRESH_FOR)

    for call in (
        old.search("terns", mode="hybrid", timeout=PATIENT),
        old.search("terns", mode="vector", timeout=PATIENT),
        old.store_fact("terns dive"),
        old.update_fact("a", content="terns rest"),
    ):
        with pytest.raises(IndexMismatchError, match=f"kb reindex --namespace {namespace}"):
            await call
    assert await found(old, "terns", mode="text", timeout=PATIENT) == ["a"]
    assert [fact["content"] for fact in await old.get_fact("a")] == ["terns fly"]
    assert await old.delete_fact("a")
    assert leftovers(client, namespace) == []


async def test_model_of_the_same_name_and_another_dimension_is_told_apart(
    open_moving: OpenMoving, client: redis.Redis, namespace: str
) -> None:
    shorter, longer = other_model(24, "same"), other_model(40, "same")
    kb = await open_moving(shorter, longer)
    await kb.store_fact("terns fly", fact_id="a")

    await kb.rebuild_search_index()

    # One that has not asked either model for anything yet.
    fresh = await open_moving(other_model(24, "same"), other_model(40, "same"))
    for mode in ("vector", "hybrid"):
        results = await fresh.search("terns fly", mode=mode, timeout=PATIENT)
        assert (hit_ids(results), results["degraded"]) == (["a"], [])
    another = await open_moving(other_model(24, "same"), other_model(40, "same"))
    assert (await another.store_fact("terns dive", fact_id="b"))["indexed"]
    assert index_faults(client, namespace, longer) == []


async def test_three_processes_see_the_switch_within_a_second(
    open_moving: OpenMoving, redis_url: str, namespace: str
) -> None:
    kb = await open_moving(indexing=IndexingSettings(lease=1.0))
    await populate(kb, FACTS, with_vectors=False)
    await eventually(lambda: nothing_pending(kb), SETTLES_WITHIN)
    command = [sys.executable, "-m", "tests.support.moving_process", redis_url, namespace, str(FACTS)]
    processes = [start_process(command) for _ in range(PROCESSES)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert (await asyncio.to_thread(process.stdout.readline)).strip() == READY
        generations = (await kb._services.start()).generations
        running = asyncio.create_task(kb.rebuild_search_index())
        switched = 0.0
        while not switched:
            live = await generations.read(namespace)
            switched = time.time() if live is not None and live.number == 2 else 0.0
            await asyncio.sleep(0.005)
        await running
        endings = (asyncio.to_thread(process.communicate, "") for process in processes)
        told = [json.loads(out) for out, _ in await asyncio.gather(*endings)]
    finally:
        for process in processes:
            process.kill()
            process.communicate()

    for seen in told:
        assert set(seen["outcomes"]) == {"right"}
        # What is known may be a second old, and a search may be on its way.
        assert seen["seen"]["2"] - switched < FRESH_FOR + 0.5
    assert all(seen["outcomes"]["right"] > len(MODES) for seen in told)


@pytest.mark.parametrize("mood", ["hanging", "failing", "wrong dimension"])
async def test_model_that_is_away_holds_up_nothing_but_the_rebuild(
    open_moving: OpenMoving,
    client: redis.Redis,
    namespace: str,
    stub_embedding: StubEmbedding,
    new_model: StubEmbedding,
    mood: Any,
) -> None:
    kb = await open_moving()
    await kb.store_fact("terns fly", fact_id="a")
    await (await kb._services.start()).embeddings.target.identity()
    new_model.become(mood)
    asked = len(new_model.texts)
    running = asyncio.create_task(kb.rebuild_search_index())
    await eventually(lambda: len(new_model.texts) > asked or running.done())

    for mode in ("text", "vector", "hybrid"):
        results = await kb.search("terns fly", mode=mode, timeout=PATIENT)
        assert (hit_ids(results), results["degraded"]) == (["a"], [])
    assert (await kb.store_fact("terns dive", fact_id="b"))["indexed"]
    await kb.update_fact("a", content="terns rest", tags=["new"])
    assert generation_of(client, namespace)["number"] == "1"
    new_model.become("well")
    await running

    assert generation_of(client, namespace)["number"] == "2"
    await eventually(lambda: nothing_pending(kb), SETTLES_WITHIN)
    assert await found(kb, "terns dive", mode="vector", top_k=1, timeout=PATIENT) == ["b"]
    assert await found(kb, "terns rest", mode="vector", filters={"tags": "new"}, timeout=PATIENT) == ["a"]
    assert index_faults(client, namespace, new_model) == []
    assert await settles(client, namespace, SETTLES_WITHIN) == []


class Refusing(StubEmbedding):
    """Refuses texts with a certain word."""

    def _vector(self, text: str) -> list[float]:
        if "poison" in text:
            raise ValueError("not this one")
        return super()._vector(text)


async def test_text_that_the_new_model_refuses_waits_and_the_others_are_moved(
    open_moving: OpenMoving, client: redis.Redis, namespace: str
) -> None:
    refusing = Refusing(model_name="other", size=OTHER_SIZE)
    kb = await open_moving(new=refusing, indexing=IndexingSettings(attempts=2, retry_after=0.1))
    for number in range(5):
        await kb.store_fact(f"terns number {number}", fact_id=f"f{number}")
    await kb.store_fact("poison ivy grows", fact_id="refused")
    assert (await kb.get_stats())["pending"] == 0

    report = await kb.rebuild_search_index()

    assert report["facts"] == 6
    assert report["embedded"] == 5
    for number in range(5):
        assert await found(kb, f"terns number {number}", mode="vector", top_k=1, timeout=PATIENT) == [f"f{number}"]
    assert await found(kb, "poison ivy", mode="text", timeout=PATIENT) == ["refused"]

    async def is_parked() -> bool:
        stats = await kb.get_stats()
        return (stats["pending"], stats["parked"]) == (0, 1)

    await eventually(is_parked, SETTLES_WITHIN)
    assert await settles(client, namespace, SETTLES_WITHIN) == []
    assert leftovers(client, namespace) == []


async def test_fact_that_the_old_model_refused_is_found_when_the_new_one_takes_it(
    open_moving: OpenMoving, client: redis.Redis, namespace: str, new_model: StubEmbedding
) -> None:
    refusing = Refusing(model_name="stub")
    kb = await open_moving(old=refusing, indexing=IndexingSettings(attempts=1, retry_after=0.1))
    await kb.store_fact("terns fly", fact_id="a")
    await kb.store_fact("poison ivy grows", fact_id="parked", wait_indexed=False)

    async def is_parked() -> bool:
        return (await kb.get_stats())["parked"] == 1

    await eventually(is_parked, SETTLES_WITHIN)

    await kb.rebuild_search_index()

    async def is_settled() -> bool:
        stats = await kb.get_stats()
        return (stats["pending"], stats["parked"]) == (0, 0)

    assert await found(kb, "poison ivy grows", mode="vector", top_k=1, timeout=PATIENT) == ["parked"]
    await eventually(is_settled, SETTLES_WITHIN)
    assert index_faults(client, namespace, new_model) == []
    assert await settles(client, namespace, SETTLES_WITHIN) == []


async def test_vectors_that_come_when_another_has_taken_over_leave_nothing(
    open_moving: OpenMoving, client: redis.Redis, namespace: str, new_model: StubEmbedding
) -> None:
    slow = other_model()
    first = await open_moving(new=slow)
    second = await open_moving()
    await first.store_fact("terns fly", fact_id="a")
    await first.store_fact("walruses dive", fact_id="b")
    await (await first._services.start()).embeddings.target.identity()
    asked = len(slow.texts)
    slow.become("hanging")
    frozen = asyncio.create_task(first.rebuild_search_index())
    await eventually(lambda: len(slow.texts) > asked)
    client.hset(Keyspace(namespace).rebuild, "lease", "0")

    report = await second.rebuild_search_index()
    await second.update_fact("a", content="terns rest")
    await second.delete_fact("b")
    slow.become("well")
    outcome = (await asyncio.gather(frozen, return_exceptions=True))[0]

    assert report["resumed"] is True
    assert isinstance(outcome, dict | Exception)
    assert await found(second, "terns", mode="vector", timeout=PATIENT) == ["a"]
    assert index_faults(client, namespace, new_model) == []
    assert await settles(client, namespace, SETTLES_WITHIN) == []
    assert leftovers(client, namespace) == []
