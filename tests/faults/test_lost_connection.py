"""Connections that die: nobody notices once, everybody is told twice, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import UnavailableError
from knowledge_base.keyspace import Keyspace
from knowledge_base.settings import Timeouts
from tests.support.control import Control
from tests.support.facts import found, only
from tests.support.fault_proxy import FaultProxy
from tests.support.polling import eventually
from tests.support.server import RedisServer

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

WITHIN = 30.0
PATIENT = Timeouts(redis=20.0, connect=20.0, llama_index=20.0, get=60.0, delete=60.0, search=60.0, stats=60.0)
HOLD = 0.6
"""Seconds for which a reply is held back, long enough to see on the server that it was earned."""


@pytest.fixture
def server(new_server: Callable[..., RedisServer]) -> RedisServer:
    return new_server(tcp=True).start()


@pytest.fixture
def beside(server: RedisServer) -> Iterator[Control]:
    """Looks at the server past the proxy."""
    control = Control(server.url)
    yield control
    control.close()


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[FaultProxy]:
    one = FaultProxy(server.port).start()
    yield one
    one.close()


@pytest.fixture
async def kb(open_kb: Any, proxy: FaultProxy) -> AsyncIterator[KnowledgeBase]:
    """A base behind the proxy, whose every connection, thread and script has been used."""
    one: KnowledgeBase = open_kb(redis_url=proxy.url, timeouts=PATIENT)
    await one.store_fact("penguins swim", {"n": 1}, fact_id="p", tags=["t"])
    await one.store_fact("walruses dive", fact_id="w")
    await one.update_fact("w", tags=["heavy"])
    await one.store_fact("gone", fact_id="gone")
    await one.delete_fact("gone")
    await one.search("penguins")
    yield one
    proxy.become("pass")
    await one.close()


async def listed(kb: KnowledgeBase) -> list[str]:
    return sorted([fact["id"] async for fact in kb.iter_facts()])


READS: dict[str, tuple[Callable[[KnowledgeBase], Any], Any]] = {
    "get": (lambda kb: only(kb, "p"), None),
    "list": (lambda kb: kb.get_fact(), None),
    "words": (lambda kb: kb.get_fact(query="penguins"), None),
    "iterate": (listed, ["p", "w"]),
    "history": (lambda kb: kb.get_fact_history("w"), None),
    "stats": (lambda kb: kb.get_stats(), None),
    "hybrid": (lambda kb: found(kb, "penguins"), ["p", "w"]),
    "vector": (lambda kb: found(kb, "penguins swim", mode="vector", top_k=1), ["p"]),
    "text": (lambda kb: found(kb, "penguins", mode="text"), ["p"]),
    "check": (lambda kb: kb.check_integrity(), None),
}


async def failures(kb: KnowledgeBase) -> int:
    stats = await kb.get_detailed_stats()
    return sum(breaker["failures"] + breaker["opened"] for breaker in stats["breakers"])


async def retried(kb: KnowledgeBase) -> int:
    return sum(pool["retried"] for pool in (await kb.get_detailed_stats())["pools"].values())


def kill_all(beside: Control) -> None:
    beside.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def lose_in_flight(proxy: FaultProxy, call: asyncio.Task[Any]) -> None:
    """Lets the requests of a call vanish together with their connections; new ones are served."""
    await eventually(lambda: any(link.swallowed for link in list(proxy._links.values())) or call.done(), WITHIN)
    proxy.become("pass")


@pytest.mark.parametrize("name", READS)
async def test_read_over_connections_that_died_while_idle_succeeds(
    kb: KnowledgeBase, beside: Control, name: str
) -> None:
    read, expected = READS[name]
    before = await read(kb)

    kill_all(beside)
    after = await read(kb)

    assert after == before
    assert expected is None or after == expected
    assert await failures(kb) == 0


@pytest.mark.parametrize("name", READS)
async def test_read_whose_connections_die_in_flight_succeeds(kb: KnowledgeBase, proxy: FaultProxy, name: str) -> None:
    read, _ = READS[name]
    before = await read(kb)
    proxy.become("blackhole")
    call = asyncio.create_task(read(kb))

    await lose_in_flight(proxy, call)

    assert await call == before
    assert await failures(kb) == 0


async def test_repeat_is_counted(kb: KnowledgeBase, proxy: FaultProxy) -> None:
    before = await retried(kb)
    proxy.become("blackhole")
    call = asyncio.create_task(kb.get_fact("p"))

    await lose_in_flight(proxy, call)
    await call

    stats = await kb.get_detailed_stats()
    assert stats["pools"]["main"]["retried"] >= 1
    assert await retried(kb) > before


async def test_search_whose_connections_die_in_flight_is_whole(kb: KnowledgeBase, proxy: FaultProxy) -> None:
    proxy.become("blackhole")
    call = asyncio.create_task(kb.search("penguins"))

    await lose_in_flight(proxy, call)

    assert (await call)["degraded"] == []


async def test_connection_that_dies_twice_is_reported(kb: KnowledgeBase, proxy: FaultProxy) -> None:
    proxy.become("reset")

    with pytest.raises(UnavailableError):
        await kb.get_fact("p")
    proxy.become("pass")

    assert await kb.get_fact("p")


async def test_refused_connection_is_not_tried_twice(open_kb: Any, proxy: FaultProxy) -> None:
    proxy.become("refuse")
    kb = open_kb(redis_url=proxy.url)

    for _ in range(3):
        with pytest.raises(UnavailableError):
            await kb.get_fact("p")

    assert {name: pool["retried"] for name, pool in kb._services._manager.stats().items() if pool["retried"]} == {}


async def test_store_whose_reply_was_lost_is_one_success(
    kb: KnowledgeBase, proxy: FaultProxy, beside: Control, namespace: str
) -> None:
    proxy.become("delay", HOLD)
    call = asyncio.create_task(kb.store_fact("puffins fly", fact_id="f", tags=["t"], wait_indexed=False))
    await eventually(lambda: beside.run("EXISTS", Keyspace(namespace).fact("f")), WITHIN)

    proxy.drop()
    proxy.become("pass")
    stored = await call

    assert (stored["status"], stored["fact_id"], stored["version"]) == ("success", "f", 1)
    stats = await kb.get_detailed_stats()
    assert (stats["facts"], stats["tags"]) == (3, {"t": 2, "heavy": 1})
    assert stats["pools"]["main"]["retried"] >= 1
    assert await kb.get_fact_history("f") == [await version(kb, "f")]


async def version(kb: KnowledgeBase, fact_id: str) -> dict[str, Any]:
    """A fact as the only entry of its history."""
    fact = await only(kb, fact_id)
    (entry,) = await kb.get_fact_history(fact_id)
    assert (entry["version"], entry["content"]) == (fact["version"], fact["content"])
    return dict(entry)


async def test_update_whose_reply_was_lost_counts_once(
    kb: KnowledgeBase, proxy: FaultProxy, beside: Control, namespace: str
) -> None:
    proxy.become("delay", HOLD)
    call = asyncio.create_task(kb.update_fact("p", tags=["new"], expected_version=1))
    await eventually(lambda: beside.run("HGET", Keyspace(namespace).fact("p"), "version") == b"2", WITHIN)

    proxy.drop()
    proxy.become("pass")
    updated = await call

    assert (updated["version"], updated["tags"]) == (2, ["new"])
    assert (await only(kb, "p"))["version"] == 2
    assert [one["version"] for one in await kb.get_fact_history("p")] == [2, 1]
    assert (await kb.get_detailed_stats())["tags"] == {"new": 1, "heavy": 1}


async def test_deletion_is_not_repeated(kb: KnowledgeBase, proxy: FaultProxy, beside: Control, namespace: str) -> None:
    proxy.become("delay", HOLD)
    call = asyncio.create_task(kb.delete_fact("p"))
    await eventually(lambda: not beside.run("EXISTS", Keyspace(namespace).fact("p")), WITHIN)

    proxy.drop()
    proxy.become("pass")

    with pytest.raises(UnavailableError):
        await call
    assert await kb.get_fact("p") == []
    assert await kb.delete_fact("p") is False
    assert (await kb.get_stats())["facts"] == 1


async def test_bulk_store_goes_on_over_connections_that_die(kb: KnowledgeBase, proxy: FaultProxy) -> None:
    number = 400
    seen: list[int] = []

    def progress(done: int, _: int) -> None:
        seen.append(done)
        proxy.drop()

    result = await kb.store_facts(
        [{"content": f"puffin number {n}", "fact_id": f"f{n}"} for n in range(number)], progress=progress
    )

    assert (result["succeeded"], result["duplicates"], result["failed"], result["completed"]) == (number, 0, [], True)
    assert len(seen) > 5
    assert (await kb.get_stats())["facts"] == number + 2


async def test_hundred_callers_survive_the_death_of_all_connections(kb: KnowledgeBase, beside: Control) -> None:
    await asyncio.gather(*(kb.get_fact("p") for _ in range(100)))
    calls = [asyncio.create_task(only(kb, fact_id)) for fact_id in ("p", "w") * 50]
    await asyncio.sleep(0)

    kill_all(beside)
    facts = await asyncio.gather(*calls)

    assert [fact["id"] for fact in facts] == ["p", "w"] * 50
    assert await failures(kb) == 0


async def test_no_connection_is_left_after_the_close(kb: KnowledgeBase, proxy: FaultProxy) -> None:
    proxy.become("blackhole")
    calls: list[asyncio.Task[Any]] = [asyncio.create_task(kb.get_fact("p")) for _ in range(20)]
    calls += [asyncio.create_task(kb.search("penguins")) for _ in range(5)]
    await eventually(lambda: any(link.swallowed for link in list(proxy._links.values())), WITHIN)

    await asyncio.wait_for(kb.close(), WITHIN)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert {isinstance(outcome, UnavailableError) for outcome in outcomes} == {True}
    await eventually(lambda: proxy.connections == 0, WITHIN)
