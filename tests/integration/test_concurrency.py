"""Many callers on one event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import OverloadedError
from knowledge_base.settings import Limits
from tests.support.facts import found
from tests.support.polling import eventually

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.embeddings import StubEmbedding

PULSE = 0.005

WITHIN = 10.0


class LoopWatch:
    """Measures the longest time for which the event loop did not come round."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> LoopWatch:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(PULSE)
            self.longest = max(self.longest, time.perf_counter() - begun - PULSE)


async def test_fifty_stores_and_two_hundred_searches_at_once_all_succeed(
    kb: KnowledgeBase, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["river", "mountain", "ocean", "desert", "forest", "glacier", "volcano", "island", "valley", "canyon"]
    await kb.store_facts(
        {"content": f"The {word} number {n} is a place.", "tags": [word]} for word in words for n in range(5)
    )
    modes = ["hybrid", "vector", "text", "hybrid"]

    async with LoopWatch() as watch:
        results = await asyncio.gather(
            *(kb.store_fact(f"A traveller saw the {words[n % 10]} on day {n}.") for n in range(50)),
            *(kb.search(f"{words[n % 10]} seen {n // 40}", mode=modes[n % 4]) for n in range(200)),  # type: ignore[arg-type]
        )

    stored: list[Any] = list(results[:50])
    searched: list[Any] = list(results[50:])
    assert Counter(result["status"] for result in stored) == {"success": 50}
    assert all(result["indexed"] for result in stored)
    assert all(result["hits"] and result["degraded"] == [] for result in searched)
    for number, result in enumerate(searched):
        assert words[number % 10] in result["hits"][0]["content"]
    with capsys.disabled():
        print(f" [longest stall of the loop: {watch.longest * 1000:.0f} ms]", end="")
    assert watch.longest < 1.0


async def test_synchronous_model_does_not_stop_the_loop(stub_kb: KnowledgeBase, stub_embedding: StubEmbedding) -> None:
    await stub_kb.store_fact("penguins swim")
    stub_embedding.become("hanging")
    searching = asyncio.create_task(stub_kb.search("penguins on ice"))
    storing = asyncio.create_task(stub_kb.store_fact("puffins fly"))

    await eventually(lambda: stub_embedding.queries and "puffins fly" in stub_embedding.texts)
    by_words = await found(stub_kb, "penguins", mode="text")
    stub_embedding.become("well")

    assert len(by_words) == 1
    assert (await searching)["hits"]
    assert (await storing)["status"] == "success"


async def test_more_callers_than_connections_are_all_served(open_kb: Any) -> None:
    kb = open_kb(limits=Limits(pool_connections=4))

    results = await asyncio.gather(*(kb.store_fact(f"penguin {number}") for number in range(120)))
    facts = await asyncio.gather(*(kb.get_fact(result["fact_id"]) for result in results))
    searches = await asyncio.gather(*(kb.search(f"penguin {number}") for number in range(120)))
    stats = await kb.get_detailed_stats()

    assert all(len(one) == 1 for one in facts)
    assert all(search["hits"] and not search["degraded"] for search in searches)
    assert {stats["pools"][name]["limit"] for name in ("main", "search")} == {4}
    assert all(0 < stats["pools"][name]["connections"] <= 4 for name in ("main", "search"))


async def test_searches_beyond_the_queue_are_refused_at_once(open_kb: Any) -> None:
    kb = open_kb(limits=Limits(concurrent_searches=2, waiting_searches=3))
    await kb.store_fact("penguins swim")
    places = (await kb._services.start()).searches
    for _ in range(2):
        await places.enter(WITHIN)
    searches = [asyncio.create_task(kb.search(f"penguins {number}")) for number in range(10)]

    await eventually(lambda: sum(search.done() for search in searches) >= 7)
    refused = [search.exception() for search in searches if search.done()]
    waiting = [search for search in searches if not search.done()]
    for _ in range(2):
        places.leave()
    served = await asyncio.gather(*waiting)

    assert len(refused) == 7
    for error in refused:
        assert isinstance(error, OverloadedError)
        assert error.retry_after > 0
    assert [bool(result["hits"]) for result in served] == [True] * 3


async def test_searches_whose_vectors_are_waited_for_take_no_places(
    open_kb: Any, stub_embedding: StubEmbedding
) -> None:
    kb = open_kb(limits=Limits(concurrent_searches=1, waiting_searches=0))
    await kb.store_fact("penguins swim")
    stub_embedding.become("hanging")
    waiting = asyncio.create_task(kb.search("penguins"))
    await eventually(lambda: "penguins" in stub_embedding.queries)

    by_words = await kb.search("penguins", mode="text")

    assert by_words["hits"]
    assert not waiting.done()
    stub_embedding.become("well")
    assert (await waiting)["degraded"] == []


async def test_two_starts_at_once_are_one(open_kb: Any) -> None:
    kb = open_kb()

    await asyncio.gather(*(kb.start() for _ in range(20)))
    await kb.start()

    assert (await kb.health())["ready"] is True


async def test_first_call_starts_the_base(open_kb: Any) -> None:
    results = await asyncio.gather(*(open_kb().store_fact("the very same words") for _ in range(5)))

    assert Counter(result["status"] for result in results) == {"success": 1, "duplicate": 4}


async def test_constructing_does_nothing(open_kb: Any) -> None:
    tasks, threads = len(asyncio.all_tasks()), threading.active_count()

    open_kb(redis_url="redis://127.0.0.1:1/0")

    assert (len(asyncio.all_tasks()), threading.active_count()) == (tasks, threads)


async def test_close_may_be_called_twice_and_without_start(open_kb: Any) -> None:
    never_started, used = open_kb(), open_kb()
    await used.store_fact("words")

    for kb in (never_started, used, never_started, used):
        await kb.close()


async def test_context_manager_starts_and_closes(open_kb: Any) -> None:
    async with open_kb() as kb:
        assert (await kb.store_fact("words"))["status"] == "success"


async def test_calls_under_way_at_close_end(open_kb: Any, stub_embedding: StubEmbedding) -> None:
    kb = open_kb()
    await kb.store_fact("words")
    stub_embedding.become("hanging")
    calls = [asyncio.create_task(kb.search(f"words {number}", mode="vector")) for number in range(5)]
    await eventually(lambda: stub_embedding.queries)

    closing = asyncio.create_task(kb.close())
    await asyncio.sleep(0)
    stub_embedding.become("well")
    await asyncio.wait_for(closing, 15)

    _, unfinished = await asyncio.wait(calls, timeout=15)
    assert unfinished == set()


async def test_close_ends_whenever_it_comes(open_kb: Any) -> None:
    """A cancellation that arrives together with a reply of Redis must not be lost."""
    for number in range(40):
        kb = open_kb()
        await kb.start()
        for _ in range(number % 6):
            await asyncio.sleep(0)

        await asyncio.wait_for(kb.close(), 10)
