"""A server that dies without a word and comes back with its data."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import UnavailableError
from knowledge_base.settings import BreakerSettings
from tests.support.control import Control
from tests.support.facts import found, only
from tests.support.polling import eventually
from tests.support.server import RedisServer

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.embeddings import StubEmbedding

IMPATIENT = BreakerSettings(reset_after=0.2)


@pytest.fixture
def server(new_server: Any) -> RedisServer:
    started: RedisServer = new_server(fsync="always").start()
    return started


@pytest.fixture
def killed_kb(server: RedisServer, open_kb: Any) -> KnowledgeBase:
    """A base whose server the test kills."""
    kb: KnowledgeBase = open_kb(redis_url=server.url, breaker=IMPATIENT)
    return kb


async def finds_only(kb: KnowledgeBase, query: str, mode: str, fact_id: str) -> bool:
    return await found(kb, query, mode=mode) == [fact_id]


async def answers_again(kb: KnowledgeBase) -> None:
    async def answers() -> bool:
        try:
            return bool((await kb.get_stats())["facts"])
        except UnavailableError:
            return False

    await eventually(answers, within=20)


async def test_everything_acknowledged_is_there_after_a_kill(killed_kb: KnowledgeBase, server: RedisServer) -> None:
    await killed_kb.store_fact("walruses dive", {"n": 1}, fact_id="w", tags=["t"], source="zoo")
    await killed_kb.update_fact("w", content="walruses dive deep")
    await killed_kb.store_fact("gone already", fact_id="gone")
    await killed_kb.delete_fact("gone")
    await killed_kb.store_fact("hidden", fact_id="h", principals=["user:ann"])
    before = await only(killed_kb, "w")
    stats = await killed_kb.get_detailed_stats()

    server.kill()
    with pytest.raises(UnavailableError):
        await killed_kb.get_fact("w")
    server.restart()
    await answers_again(killed_kb)

    assert await only(killed_kb, "w") == before
    assert [version["content"] for version in await killed_kb.get_fact_history("w")] == [
        "walruses dive deep",
        "walruses dive",
    ]
    assert await killed_kb.get_fact("gone") == []
    assert await killed_kb.get_fact("h") == []
    for mode in ("hybrid", "vector", "text"):
        assert await found(killed_kb, "walruses", mode=mode, filters={"tags": "t", "metadata.n": 1}) == ["w"]
    after = await killed_kb.get_detailed_stats()
    for key in ("facts", "passages", "pending", "tags", "sources", "index_name", "dimension"):
        assert after[key] == stats[key]
    assert (await killed_kb.store_fact("walruses dive deep"))["status"] == "duplicate"


async def test_kill_in_the_midst_of_writing_loses_nothing_acknowledged(
    killed_kb: KnowledgeBase, server: RedisServer, short_lease: None
) -> None:
    acknowledged: set[str] = set()
    await killed_kb.store_fact("first", fact_id="first")

    async def store(number: int) -> None:
        try:
            stored = await killed_kb.store_fact(f"penguin number {number}", fact_id=f"p{number}")
        except UnavailableError:
            return
        acknowledged.add(stored["fact_id"])

    writing = asyncio.gather(*(store(number) for number in range(300)))
    await eventually(lambda: len(acknowledged) >= 30)
    server.kill()
    await writing
    server.restart()
    await answers_again(killed_kb)

    facts = {fact["id"] for fact in await killed_kb.get_fact(limit=1_000)} - {"first"}
    assert acknowledged - facts == set()
    assert (await killed_kb.get_stats())["facts"] == len(facts) + 1

    async def all_indexed() -> bool:
        return (await killed_kb.get_stats())["pending"] == 0

    await eventually(all_indexed, within=30)
    assert set(await found(killed_kb, "penguin number", top_k=1_000, mode="text")) == facts
    assert set(await found(killed_kb, "penguin number", top_k=1_000, mode="vector")) - {"first"} == facts


async def test_search_goes_on_after_a_restart_between_two_calls(killed_kb: KnowledgeBase, server: RedisServer) -> None:
    await killed_kb.store_fact("walruses dive", fact_id="w")
    await killed_kb.search("walruses")

    server.restart()
    await answers_again(killed_kb)

    for mode in ("hybrid", "vector", "text"):
        assert await found(killed_kb, "walruses", mode=mode) == ["w"]


async def test_pending_facts_survive_a_kill(
    killed_kb: KnowledgeBase, server: RedisServer, stub_embedding: StubEmbedding
) -> None:
    await killed_kb.store_fact("walruses dive", fact_id="w")
    stub_embedding.become("failing")
    await killed_kb.store_fact("penguins swim", fact_id="p")

    server.kill()
    server.restart()
    stub_embedding.become("well")
    await answers_again(killed_kb)

    async def completed() -> bool:
        return bool((await only(killed_kb, "p"))["indexed"])

    await eventually(completed, within=30)
    assert (await found(killed_kb, "penguins", mode="vector"))[0] == "p"


async def test_server_that_comes_back_empty_is_served_again(killed_kb: KnowledgeBase, server: RedisServer) -> None:
    await killed_kb.store_fact("walruses dive", fact_id="w")
    beside = Control(server.url)
    beside.run("FLUSHALL")
    beside.close()

    async def stored() -> bool:
        try:
            return (await killed_kb.store_fact("penguins swim", fact_id="p"))["indexed"]
        except UnavailableError:
            return False

    await eventually(stored, within=20)
    assert await killed_kb.get_fact("w") == []
    for mode in ("hybrid", "vector", "text"):
        # The server fills a new index in the background.
        await eventually(partial(finds_only, killed_kb, "penguins", mode, "p"))
