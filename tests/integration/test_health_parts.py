"""Health: each part that is ill is named, the others are not, and the answer comes in time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import InvalidInputError
from knowledge_base.settings import BreakerSettings, EmbeddingSettings, Limits, Timeouts
from tests.support.control import Control
from tests.support.facts import found
from tests.support.polling import eventually
from tests.support.server import RedisServer

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from knowledge_base.types import Health
    from tests.support.embeddings import AsyncStubEmbedding, StubEmbedding

PARTS = {"redis", "search", "index", "embedding", "capacity", "indexer"}
IMPATIENT = BreakerSettings(reset_after=0.1)
HELD = 20.0
SLACK = 2.0
"""Seconds that a busy machine may add to what is bounded."""


def ill(health: Health) -> set[str]:
    return {name for name, part in health["parts"].items() if not part["ok"]}


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Lets go what the test holds up."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
async def server_kb(new_server: Callable[..., RedisServer], open_kb: Any) -> AsyncIterator[tuple[Any, RedisServer]]:
    """A base on a server of its own."""
    server = new_server().start()
    kb = open_kb(redis_url=server.url, breaker=IMPATIENT)
    await kb.store_fact("penguins swim", fact_id="p")
    yield kb, server
    await kb.close()


async def stick(kb: KnowledgeBase, released: threading.Event) -> None:
    """Leaves an index thread with work that nobody waits for."""
    manager = kb._services._manager
    stuck_before = manager.stats()["index threads"]["abandoned"]
    begun = threading.Event()

    def work(_: object) -> None:
        begun.set()
        released.wait(HELD)

    call = asyncio.create_task(manager.in_thread("stuck", work))
    await eventually(begun.is_set)
    call.cancel()
    await eventually(lambda: manager.stats()["index threads"]["abandoned"] > stuck_before)


async def test_whole_base_is_ready_and_every_part_says_what_it_found(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("penguins swim")

    health = await stub_kb.health()

    assert set(health["parts"]) == PARTS
    assert (health["live"], health["ready"], ill(health)) == (True, True, set())
    assert all(part["detail"] and part["took_ms"] >= 0 for part in health["parts"].values())
    assert "stub" in health["parts"]["embedding"]["detail"]


async def test_empty_namespace_is_ready(open_kb: Any) -> None:
    health = await open_kb().health()

    assert (health["live"], health["ready"], ill(health)) == (True, True, set())


@pytest.mark.parametrize("mood", ["failing", "wrong dimension", "not a number"])
async def test_ill_model_is_named(stub_kb: KnowledgeBase, stub_embedding: StubEmbedding, mood: Any) -> None:
    await stub_kb.store_fact("penguins swim")
    stub_embedding.become(mood)

    health = await stub_kb.health()
    stub_embedding.become("well")

    assert (health["live"], health["ready"], ill(health)) == (True, False, {"embedding"})
    assert (await stub_kb.health())["ready"] is True


async def test_model_that_hangs_is_named_within_the_timeout(open_kb: Any, async_embedding: AsyncStubEmbedding) -> None:
    kb = open_kb(async_embedding, timeouts=Timeouts(health=0.3))
    await kb.store_fact("penguins swim")
    async_embedding.become("hanging")

    begun = time.monotonic()
    health = await kb.health()
    took = time.monotonic() - begun

    assert (health["live"], ill(health)) == (True, {"embedding"})
    assert took < 0.3 + SLACK
    assert 300 <= health["parts"]["embedding"]["took_ms"] < 300 + 1000 * SLACK


async def test_timeout_of_the_call_counts_and_not_the_setting(
    open_kb: Any, async_embedding: AsyncStubEmbedding
) -> None:
    kb = open_kb(async_embedding, timeouts=Timeouts(health=60.0))
    await kb.store_fact("penguins swim")
    async_embedding.become("hanging")

    begun = time.monotonic()
    health = await kb.health(timeout=0.1)
    took = time.monotonic() - begun

    assert ill(health) == {"embedding"}
    assert "0.1 s" in health["parts"]["embedding"]["detail"]
    assert took < 0.1 + SLACK


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), "1"])
async def test_timeout_that_is_none_is_refused(stub_kb: KnowledgeBase, timeout: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await stub_kb.health(timeout=timeout)

    assert caught.value.field == "timeout"


@pytest.mark.parametrize("changes", [{"model_name": "another"}, {"size": 48}], ids=["model", "dimension"])
async def test_index_of_another_model_is_named(stub_kb: KnowledgeBase, open_kb: Any, changes: dict[str, Any]) -> None:
    from tests.support.embeddings import StubEmbedding

    await stub_kb.store_fact("penguins swim")
    other = open_kb(StubEmbedding(**{"model_name": "stub", "size": 32, **changes}))

    health = await other.health()

    assert (health["live"], health["ready"], ill(health)) == (True, False, {"index"})
    assert "stub/32" in health["parts"]["index"]["detail"]


async def test_server_without_the_query_engine_is_named(new_server: Callable[..., RedisServer], open_kb: Any) -> None:
    server = new_server(search=False).start()

    health = await open_kb(redis_url=server.url).health()

    assert health["live"] is True
    assert {"search"} <= ill(health) <= {"search", "index"}
    assert "RediSearch" in health["parts"]["search"]["detail"]


async def test_index_that_vanished_is_made_again(stub_kb: KnowledgeBase, control: Control, namespace: str) -> None:
    await stub_kb.store_fact("penguins swim", fact_id="p")
    for name in control.indexes(namespace):
        control.run("FT.DROPINDEX", name)

    async def ready() -> bool:
        return (await stub_kb.health())["ready"]

    await eventually(ready, 30.0)
    assert await found(stub_kb, "penguins") == ["p"]


async def test_killed_server_is_named_and_the_process_lives(server_kb: tuple[KnowledgeBase, RedisServer]) -> None:
    kb, server = server_kb
    server.kill()

    health = await kb.health()

    assert (health["live"], health["ready"]) == (True, False)
    assert {"redis", "search", "index"} <= ill(health)
    assert "embedding" not in ill(health)
    assert "capacity" not in ill(health)


async def test_frozen_server_is_named_within_the_timeout(server_kb: tuple[KnowledgeBase, RedisServer]) -> None:
    kb, server = server_kb
    server.freeze()

    begun = time.monotonic()
    health = await kb.health(timeout=0.5)
    took = time.monotonic() - begun
    server.thaw()

    assert (health["live"], health["ready"]) == (True, False)
    assert {"redis", "search", "index"} <= ill(health)
    assert took < 0.5 + SLACK

    async def ready() -> bool:
        return (await kb.health())["ready"]

    await eventually(ready, 30.0)


async def test_server_that_was_never_there_is_named_and_the_process_lives(open_kb: Any) -> None:
    kb = open_kb(redis_url="redis://127.0.0.1:1/0", embedding=EmbeddingSettings(dimension=32))

    health = await kb.health()

    assert (health["live"], health["ready"]) == (True, False)
    assert "redis" in ill(health)
    assert "embedding" not in ill(health)


async def test_threads_that_are_all_stuck_are_named(open_kb: Any, released: threading.Event) -> None:
    kb: KnowledgeBase = open_kb(limits=Limits(index_threads=2))
    await kb.store_fact("penguins swim", fact_id="p")
    await stick(kb, released)
    before = await kb.health()

    await stick(kb, released)
    during = await kb.health()
    released.set()

    assert (before["ready"], ill(before)) == (True, set())
    assert (during["live"], during["ready"], ill(during)) == (True, False, {"capacity"})
    assert "index threads" in during["parts"]["capacity"]["detail"]

    async def ready() -> bool:
        return (await kb.health())["ready"]

    await eventually(ready)


async def test_indexer_that_waits_says_for_what(open_kb: Any, stub_embedding: StubEmbedding) -> None:
    kb = open_kb(breaker=IMPATIENT)
    await kb.store_fact("walruses dive")
    stub_embedding.become("failing")
    await kb.store_fact("penguins swim")

    async def says() -> bool:
        return "waits after" in (await kb.health())["parts"]["indexer"]["detail"]

    await eventually(says, 30.0)
    health = await kb.health()

    assert (health["live"], health["parts"]["indexer"]["ok"]) == (True, True)


async def test_base_whose_background_has_died_says_so_once_and_starts_it_anew(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("penguins swim")
    services = await stub_kb._services.start()
    task = services.background._task
    assert task is not None
    task.cancel()
    await asyncio.wait({task})

    first, second = await stub_kb.health(), await stub_kb.health()

    assert (first["live"], first["ready"], ill(first)) == (False, False, {"indexer"})
    assert (second["live"], second["ready"], ill(second)) == (True, True, set())


async def test_those_who_ask_at_once_all_get_their_answer(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("penguins swim")

    answers = await asyncio.gather(*(stub_kb.health(timeout=20.0) for _ in range(4)))

    assert all(health["ready"] for health in answers)


async def test_as_many_searches_as_are_let_in_leave_it_ready(stub_kb: KnowledgeBase, released: threading.Event) -> None:
    await stub_kb.store_fact("penguins swim")
    services = await stub_kb._services.start()
    threads = services.embedding._query_threads
    waiting = [
        asyncio.create_task(threads.to_thread(released.wait, HELD, step="query", limit=HELD))
        for _ in range(stub_kb.settings.limits.concurrent_searches)
    ]
    await eventually(lambda: threads.stats()["waiting"] >= len(waiting) - threads.stats()["limit"])

    capacity = (await stub_kb.health(timeout=0.2))["parts"]["capacity"]
    released.set()

    assert capacity["ok"] is True
    assert all(await asyncio.gather(*waiting))
