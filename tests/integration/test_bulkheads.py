"""Chat, jobs and the model do not get into each other's way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.connection.guard import RedisGuard
from knowledge_base.embedding import models
from knowledge_base.errors import CircuitOpenError, OperationTimeoutError, OverloadedError
from knowledge_base.index import passage_store
from knowledge_base.settings import EmbeddingSettings, Limits, Timeouts
from tests.support.facts import found, hit_ids
from tests.support.polling import eventually

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.embeddings import StubEmbedding

HELD = 30.0
WITHIN = 30.0
BULK = 100


class Gate:
    """Stands before a function that runs in threads; while it is shut, callers of some threads wait."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._open = threading.Event()
        self._open.set()
        self._kept = ""
        self.threads: list[str] = []

    def shut(self, threads: str) -> None:
        """Holds up those who come in threads of this name."""
        self._kept = threads
        self.threads.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def __call__(self, *arguments: Any) -> Any:
        name = threading.current_thread().name
        self.threads.append(name)
        if name == self._kept:
            assert self._open.wait(HELD)
        return self._function(*arguments)


@pytest.fixture
def inserts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(passage_store.insert)
    monkeypatch.setattr(passage_store, "insert", gate)
    yield gate
    gate.open()


@pytest.fixture
def retrievals(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(passage_store.retrieve)
    monkeypatch.setattr(passage_store, "retrieve", gate)
    yield gate
    gate.open()


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Pool and command of every exchange with Redis."""
    seen: list[tuple[str, str]] = []
    run = RedisGuard.run

    async def recorded(
        guard: RedisGuard, command: str, exchange: Callable[[], Awaitable[Any]], *, repeatable: bool = False
    ) -> Any:
        seen.append((guard.pool_name, command))
        return await run(guard, command, exchange, repeatable=repeatable)

    monkeypatch.setattr(RedisGuard, "run", recorded)
    return seen


@pytest.fixture
def slow_async_passages(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubEmbedding]:
    """A model behind a network that can hang for passages while it answers queries."""
    from tests.support.poison import SlowAsyncPassages

    # Models of the caller's own are awaited only when they are known not to block.
    monkeypatch.setattr(models, "_is_openai", lambda model: isinstance(model, SlowAsyncPassages))
    one = SlowAsyncPassages(model_name="stub")
    yield one
    one.become("well")


@pytest.fixture(params=["threads", "network"])
def slow_passages(request: pytest.FixtureRequest) -> Iterator[StubEmbedding]:
    """A model of either kind."""
    from tests.support.poison import SlowPassages

    if request.param == "network":
        yield request.getfixturevalue("slow_async_passages")
        return
    one = SlowPassages(model_name="stub")
    yield one
    one.become("well")


def many(number: int, prefix: str = "penguin") -> list[dict[str, str]]:
    return [{"content": f"{prefix} number {n}"} for n in range(number)]


async def breakers(kb: KnowledgeBase) -> dict[str, str]:
    return {breaker["name"]: breaker["state"] for breaker in (await kb.get_detailed_stats())["breakers"]}


async def pools(kb: KnowledgeBase) -> dict[str, Any]:
    return dict((await kb.get_detailed_stats())["pools"])


async def test_five_late_searches_by_meaning_open_the_threads_breaker_alone(open_kb: Any, retrievals: Gate) -> None:
    kb = open_kb(timeouts=Timeouts(llama_index=0.3), limits=Limits(index_threads=8))
    await kb.store_fact("penguins swim", fact_id="p")
    await kb.search("swimming penguins", mode="vector", timeout=WITHIN)
    retrievals.shut("kb-index")
    for _ in range(5):
        with pytest.raises(OperationTimeoutError):
            await kb.search("swimming penguins", mode="vector")
    asked = len(retrievals.threads)

    results = [await kb.search("swimming penguins") for _ in range(10)]
    by_words = await kb.search("swimming penguins", mode="text")
    with pytest.raises(CircuitOpenError) as caught:
        await kb.search("swimming penguins", mode="vector")
    states = await breakers(kb)
    retrievals.open()

    assert all((hit_ids(one), one["degraded"]) == (["p"], ["vector"]) for one in results)
    assert (hit_ids(by_words), by_words["degraded"]) == (["p"], [])
    assert caught.value.circuit == "LlamaIndex threads"
    assert len(retrievals.threads) == asked, "a thread was used although the breaker is open"
    assert states["LlamaIndex threads"] == "open"
    assert states["Redis"] == "closed"
    assert await kb.get_fact("p")


async def test_bulk_store_uses_connections_and_threads_for_jobs(
    stub_kb: KnowledgeBase, exchanges: list[tuple[str, str]], inserts: Gate
) -> None:
    await stub_kb.store_fact("walruses dive")
    services = await stub_kb._services.start()
    await services.background.close(WITHIN)
    single = {pool for pool, _ in exchanges}, set(inserts.threads)
    exchanges.clear()
    inserts.threads.clear()

    await services.bulk.store(many(BULK), stub_kb.settings.namespace, None)

    assert "main" in single[0]
    assert single[1] == {"kb-index"}
    assert {pool for pool, _ in exchanges} == {"admin"}
    assert set(inserts.threads) == {"kb-jobs"}


async def test_bulk_delete_uses_connections_for_jobs(stub_kb: KnowledgeBase, exchanges: list[tuple[str, str]]) -> None:
    await stub_kb.store_facts({"content": f"penguin {n}", "tags": ["t"]} for n in range(5))
    services = await stub_kb._services.start()
    await services.background.close(WITHIN)
    exchanges.clear()

    result = await services.bulk.delete(stub_kb.settings.namespace, {"tags": "t"}, [], dry_run=False, progress=None)

    assert result["succeeded"] == 5
    assert {pool for pool, _ in exchanges} == {"admin"}


async def test_background_uses_connections_and_threads_for_jobs(
    stub_kb: KnowledgeBase, exchanges: list[tuple[str, str]], inserts: Gate
) -> None:
    await stub_kb.store_fact("walruses dive")
    inserts.threads.clear()
    exchanges.clear()

    await stub_kb.store_fact("penguins swim", wait_indexed=False)
    await eventually(lambda: inserts.threads, WITHIN)

    assert set(inserts.threads) == {"kb-jobs"}
    assert "admin" in {pool for pool, _ in exchanges}


async def test_caller_of_a_job_is_in_none_afterwards(stub_kb: KnowledgeBase, exchanges: list[tuple[str, str]]) -> None:
    await stub_kb.store_facts(many(3))
    exchanges.clear()

    await stub_kb.get_fact()

    assert "main" in {pool for pool, _ in exchanges}


async def test_jobs_whose_threads_are_all_busy_leave_chat_alone(stub_kb: KnowledgeBase, inserts: Gate) -> None:
    await stub_kb.store_fact("walruses dive", fact_id="w")
    limit = stub_kb.settings.limits
    inserts.shut("kb-jobs")
    jobs = [asyncio.create_task(stub_kb.store_facts(many(3, f"job {n}"))) for n in range(limit.concurrent_jobs)]
    await eventually(lambda: inserts.threads.count("kb-jobs") >= limit.concurrent_jobs, WITHIN)
    busy = (await pools(stub_kb))["jobs threads"]

    results = await stub_kb.search("walruses dive", timeout=WITHIN)
    stored = await stub_kb.store_fact("puffins fly", timeout=WITHIN)
    inserts.open()

    assert busy["in_use"] == limit.index_threads
    assert (results["degraded"], hit_ids(results)[0]) == ([], "w")
    assert stored["indexed"] is True
    assert all(done["succeeded"] == 3 for done in await asyncio.gather(*jobs))


async def test_jobs_under_way_are_bounded(open_kb: Any, inserts: Gate) -> None:
    kb = open_kb(limits=Limits(concurrent_jobs=2, waiting_jobs=1, index_threads=4))
    await kb.store_fact("walruses dive", fact_id="w")
    inserts.shut("kb-jobs")
    jobs = [asyncio.create_task(kb.store_facts(many(2, f"job {n}"))) for n in range(3)]
    await eventually(lambda: inserts.threads.count("kb-jobs") == 2, WITHIN)

    with pytest.raises(OverloadedError) as too_many:
        await kb.store_facts(many(1))
    with pytest.raises(OverloadedError):
        await kb.delete_facts({"tags": "t"})
    stored = (await kb.get_stats())["facts"]
    inserts.open()

    assert "jobs" in str(too_many.value)
    assert stored == 1 + 2 * 2, "the third job began although two were under way"
    assert [done["succeeded"] for done in await asyncio.gather(*jobs)] == [2, 2, 2]


async def test_job_that_fails_gives_its_place_back(open_kb: Any) -> None:
    kb = open_kb(limits=Limits(concurrent_jobs=1, waiting_jobs=0))

    def broken() -> Iterator[dict[str, str]]:
        yield {"content": "penguins swim"}
        raise ValueError("the caller's own")

    for _ in range(3):
        with pytest.raises(ValueError, match="the caller's own"):
            await kb.store_facts(broken())

    assert (await kb.store_facts(many(1)))["succeeded"] == 1


async def test_queries_are_embedded_while_passages_take_all_their_room(
    open_kb: Any, slow_passages: StubEmbedding
) -> None:
    kb = open_kb(slow_passages, embedding=EmbeddingSettings(max_concurrent_requests=5, batch_size=4))
    await kb.store_fact("walruses dive", fact_id="w")
    await kb.search("warm")
    slow_passages.become("hanging")
    bulk = asyncio.create_task(kb.store_facts(many(BULK)))
    singles = [asyncio.create_task(kb.store_fact(f"puffin {n}")) for n in range(8)]
    before = len(slow_passages.texts)
    await eventually(lambda: len(slow_passages.texts) > before, WITHIN)

    results = [await kb.search(f"walruses dive {n}", timeout=WITHIN) for n in range(10)]
    health = await kb.health(timeout=WITHIN)
    slow_passages.become("well")

    assert [(one["degraded"], hit_ids(one)[:1]) for one in results] == [([], ["w"])] * 10
    assert health["parts"]["embedding"]["ok"] is True
    assert (await bulk)["succeeded"] == BULK
    assert all(stored["indexed"] for stored in await asyncio.gather(*singles))


async def test_passages_never_take_the_last_place_at_the_model(
    open_kb: Any, slow_async_passages: StubEmbedding
) -> None:
    model = slow_async_passages
    kb = open_kb(model, embedding=EmbeddingSettings(max_concurrent_requests=5, batch_size=1))
    await kb.store_fact("walruses dive", fact_id="w")
    model.become("hanging")
    before = len(model.texts)
    bulk = asyncio.create_task(kb.store_facts(many(BULK)))
    await eventually(lambda: len(model.texts) == before + 4, WITHIN)
    for _ in range(50):
        await asyncio.sleep(0)

    asked = len(model.texts) - before
    by_meaning = await found(kb, "walruses dive", mode="vector", timeout=WITHIN)
    model.become("well")

    assert asked == 4
    assert by_meaning[0] == "w"
    assert (await bulk)["succeeded"] == BULK
