"""A server that keeps its connections and answers nothing: SIGSTOP, and SIGCONT after it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import CircuitOpenError, KnowledgeBaseError, OperationTimeoutError, UnavailableError
from knowledge_base.settings import BreakerSettings, Timeouts
from tests.support.facts import found
from tests.support.polling import eventually
from tests.support.server import RedisServer

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

REDIS_TIMEOUT = 0.3
SLACK = 2.0
NEVER_OPENS = BreakerSettings(failures=1_000)
OPENS_FOR_LONG = BreakerSettings(failures=5, reset_after=60)
OPENS_BRIEFLY = BreakerSettings(failures=5, reset_after=0.3)


async def iterate(kb: KnowledgeBase) -> list[Any]:
    return [fact async for fact in kb.iter_facts()]


CALLS: dict[str, Callable[[KnowledgeBase], Any]] = {
    "store": lambda kb: kb.store_fact("new words"),
    "get": lambda kb: kb.get_fact("f"),
    "list": lambda kb: kb.get_fact(),
    "iterate": iterate,
    "search": lambda kb: kb.search("penguins"),
    "search text": lambda kb: kb.search("penguins", mode="text"),
    "search vector": lambda kb: kb.search("penguins", mode="vector"),
    "update": lambda kb: kb.update_fact("f", content="new"),
    "delete": lambda kb: kb.delete_fact("f"),
    "delete many": lambda kb: kb.delete_facts({"tags": "t"}),
    "history": lambda kb: kb.get_fact_history("f"),
    "stats": lambda kb: kb.get_stats(),
    "details": lambda kb: kb.get_detailed_stats(),
}


@pytest.fixture
def server(new_server: Any) -> RedisServer:
    started: RedisServer = new_server().start()
    return started


@pytest.fixture
async def ready(server: RedisServer, open_kb: Any) -> AsyncIterator[Callable[[BreakerSettings], Any]]:
    """Makes a base that has worked with the server, and has one fact."""
    opened: list[KnowledgeBase] = []

    async def make(breaker: BreakerSettings) -> KnowledgeBase:
        timeouts = Timeouts(redis=REDIS_TIMEOUT, connect=REDIS_TIMEOUT, llama_index=1.0)
        kb: KnowledgeBase = open_kb(redis_url=server.url, breaker=breaker, timeouts=timeouts)
        opened.append(kb)
        await kb.store_fact("penguins swim", fact_id="f")
        await kb.search("penguins")
        return kb

    yield make
    server.thaw()
    for kb in opened:
        await kb.close()


async def outcome(call: Any) -> type[Exception] | None:
    try:
        await call
    except KnowledgeBaseError as error:
        return type(error)
    return None


async def test_every_call_ends_in_time_and_typed(ready: Any, server: RedisServer) -> None:
    kb = await ready(NEVER_OPENS)
    server.freeze()

    for name, call in CALLS.items():
        begun = time.monotonic()
        with pytest.raises(UnavailableError):
            await call(kb)
        assert time.monotonic() - begun < 1.0 + 3 * REDIS_TIMEOUT + SLACK, name


async def test_timed_out_call_names_itself_and_its_budget(ready: Any, server: RedisServer) -> None:
    kb = await ready(NEVER_OPENS)
    server.freeze()

    with pytest.raises(OperationTimeoutError) as late:
        await kb.get_fact("f")

    assert late.value.operation
    assert late.value.budget > 0
    assert late.value.retryable is True


async def test_budget_of_the_caller_bounds_the_call(ready: Any, server: RedisServer) -> None:
    kb = await ready(NEVER_OPENS)
    server.freeze()

    begun = time.monotonic()
    with pytest.raises(UnavailableError):
        await kb.get_fact("f", timeout=0.05)

    assert time.monotonic() - begun < REDIS_TIMEOUT


async def test_circuit_opens_after_five_failures_and_then_refuses_fast(ready: Any, server: RedisServer) -> None:
    kb = await ready(OPENS_FOR_LONG)
    server.freeze()

    first = [await outcome(kb.get_fact("f")) for _ in range(5)]
    begun = time.monotonic()
    with pytest.raises(CircuitOpenError) as refused:
        await kb.get_fact("f")
    took = time.monotonic() - begun

    assert first[0] is OperationTimeoutError
    assert set(first) <= {OperationTimeoutError, CircuitOpenError}
    assert took < REDIS_TIMEOUT / 2
    assert 50 < refused.value.retry_after <= 60
    assert [await outcome(call(kb)) for call in CALLS.values()] == [CircuitOpenError] * len(CALLS)


async def test_circuit_of_more_failures_stays_closed_for_longer(ready: Any, server: RedisServer) -> None:
    kb = await ready(NEVER_OPENS)
    server.freeze()

    outcomes = Counter([await outcome(kb.get_fact("f")) for _ in range(7)])

    assert outcomes == {OperationTimeoutError: 7}


async def test_callers_own_deadlines_open_the_circuit_too(ready: Any, server: RedisServer) -> None:
    kb = await ready(OPENS_FOR_LONG)
    server.freeze()

    await asyncio.gather(*(outcome(kb.get_fact("f", timeout=0.05)) for _ in range(5)))

    assert await outcome(kb.get_fact("f")) is CircuitOpenError


async def test_data_errors_do_not_open_the_circuit(ready: Any, server: RedisServer) -> None:
    kb = await ready(OPENS_FOR_LONG)

    for _ in range(10):
        assert await outcome(kb.update_fact("nobody", content="new")) is not None
        assert await outcome(kb.update_fact("f", content="new", expected_version=99)) is not None

    assert await outcome(kb.get_fact("f")) is None


async def test_cancelled_calls_do_not_open_the_circuit(ready: Any, server: RedisServer) -> None:
    kb = await ready(OPENS_FOR_LONG)
    server.freeze()
    calls = [asyncio.create_task(kb.get_fact("f")) for _ in range(20)]
    for _ in range(5):
        await asyncio.sleep(0)

    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    server.thaw()

    assert [fact["id"] for fact in await kb.get_fact("f", timeout=10)] == ["f"]


async def test_circuit_closes_by_itself_when_the_server_goes_on(ready: Any, server: RedisServer) -> None:
    kb = await ready(OPENS_BRIEFLY)
    server.freeze()
    while await outcome(kb.get_fact("f")) is not CircuitOpenError:
        pass

    server.thaw()

    async def answers() -> bool:
        return await outcome(kb.get_fact("f")) is None

    await eventually(answers)
    assert [fact["id"] for fact in await kb.get_fact("f")] == ["f"]
    assert await found(kb, "penguins") == ["f"]
    assert (await kb.store_fact("puffins fly"))["status"] == "success"
    stats = await kb.get_detailed_stats()
    states = {breaker["name"]: (breaker["state"], breaker["opened"]) for breaker in stats["breakers"]}
    assert {state for state, _ in states.values()} == {"closed"}
    assert max(opened for _, opened in states.values()) >= 1


async def test_health_is_told_while_the_server_is_frozen(ready: Any, server: RedisServer) -> None:
    kb = await ready(OPENS_FOR_LONG)
    server.freeze()

    health = await kb.health()

    assert (health["live"], health["ready"]) == (True, False)
    assert health["parts"]["redis"]["ok"] is False


async def test_frozen_server_does_not_hold_up_close(ready: Any, server: RedisServer) -> None:
    kb = await ready(NEVER_OPENS)
    server.freeze()
    calls = [asyncio.create_task(outcome(call(kb))) for call in CALLS.values()]
    await asyncio.sleep(0)

    await asyncio.wait_for(kb.close(), 5.0 + SLACK)

    assert len(await asyncio.wait_for(asyncio.gather(*calls), 10)) == len(calls)


async def test_stores_cut_off_are_whole_or_absent(ready: Any, server: RedisServer, short_lease: None) -> None:
    kb = await ready(OPENS_BRIEFLY)
    calls = [asyncio.create_task(outcome(kb.store_fact(f"penguin {n}", fact_id=f"p{n}"))) for n in range(40)]
    await eventually(lambda: any(call.done() for call in calls))
    server.freeze()
    outcomes = await asyncio.gather(*calls)
    server.thaw()

    async def answers() -> bool:
        return await outcome(kb.get_stats()) is None

    await eventually(answers)
    there = {fact["id"] for fact in await kb.get_fact(limit=1_000)} - {"f"}
    acknowledged = {f"p{n}" for n, one in enumerate(outcomes) if one is None}
    assert acknowledged <= there

    async def all_indexed() -> bool:
        return bool((await kb.get_stats())["pending"] == 0)

    await eventually(all_indexed, within=30)
    assert set(await found(kb, "penguin", mode="text", top_k=100)) - {"f"} == there
    assert (await kb.get_stats())["facts"] == len(there) + 1
