"""An embedding model that fails, hangs or lies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import EmbeddingUnavailableError, UnavailableError
from knowledge_base.settings import BreakerSettings, EmbeddingSettings, Timeouts
from tests.support.facts import found, hit_ids
from tests.support.polling import eventually

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.embeddings import AsyncStubEmbedding, StubEmbedding

IMPATIENT = BreakerSettings(reset_after=0.2)
BAD_MOODS = ("failing", "wrong dimension", "not a number")


@pytest.fixture(params=["synchronous", "asynchronous"])
def model(request: pytest.FixtureRequest) -> StubEmbedding:
    """Each test runs with a model of either kind."""
    name = {"synchronous": "stub_embedding", "asynchronous": "async_embedding"}[request.param]
    chosen: StubEmbedding = request.getfixturevalue(name)
    return chosen


@pytest.fixture
async def with_facts(open_kb: Any, model: StubEmbedding) -> AsyncIterator[KnowledgeBase]:
    """Two facts, stored while the model was well."""
    kb: KnowledgeBase = open_kb(model, breaker=IMPATIENT)
    await kb.store_fact("penguins swim", fact_id="p")
    await kb.store_fact("walruses dive", fact_id="w")
    yield kb
    model.become("well")


@pytest.mark.parametrize("mood", BAD_MOODS)
async def test_search_answers_by_words_and_says_so(with_facts: KnowledgeBase, model: StubEmbedding, mood: Any) -> None:
    model.become(mood)

    results = await with_facts.search("swimming penguins")

    assert results["degraded"] == ["vector"]
    assert results["mode"] == "hybrid"
    assert hit_ids(results) == ["p"]
    assert set(results["hits"][0]["scores"]) == {"text"}


@pytest.mark.parametrize("mood", BAD_MOODS)
async def test_search_by_meaning_alone_is_refused(with_facts: KnowledgeBase, model: StubEmbedding, mood: Any) -> None:
    model.become(mood)

    with pytest.raises(UnavailableError) as down:
        await with_facts.search("swimming penguins", mode="vector")

    assert down.value.retryable is True
    assert "penguins" not in str(down.value)


@pytest.mark.parametrize("mood", ["failing", "wrong dimension"])
async def test_first_refusal_names_the_embedder(with_facts: KnowledgeBase, model: StubEmbedding, mood: Any) -> None:
    model.become(mood)

    with pytest.raises(EmbeddingUnavailableError):
        await with_facts.search("swimming penguins", mode="vector")


async def test_search_without_a_match_says_that_it_is_degraded(with_facts: KnowledgeBase, model: StubEmbedding) -> None:
    model.become("failing")

    results = await with_facts.search("zebras")

    assert (results["hits"], results["degraded"]) == ([], ["vector"])


async def test_search_is_whole_again_when_the_model_is_back(with_facts: KnowledgeBase, model: StubEmbedding) -> None:
    model.become("failing")
    for number in range(12):
        await with_facts.search(f"penguins {number}")
    model.become("well")

    async def whole() -> bool:
        return (await with_facts.search("penguins again"))["degraded"] == []

    await eventually(whole)
    assert (await found(with_facts, "swimming penguins", mode="vector"))[0] == "p"


async def test_model_that_keeps_failing_is_left_alone(open_kb: Any, model: StubEmbedding) -> None:
    kb = open_kb(model, breaker=BreakerSettings(failures=3, reset_after=60))
    await kb.store_fact("penguins swim", fact_id="p")
    model.become("failing")

    for number in range(20):
        assert (await kb.search(f"penguins {number}"))["degraded"] == ["vector"]

    assert len(model.queries) < 10


async def test_hanging_model_leaves_time_for_the_words(with_facts: KnowledgeBase, model: StubEmbedding) -> None:
    model.become("hanging")

    results = await with_facts.search("swimming penguins", timeout=1.0)

    assert (hit_ids(results), results["degraded"]) == (["p"], ["vector"])
    assert model.queries[-1] == "swimming penguins"


async def test_hanging_model_ends_with_the_budget(with_facts: KnowledgeBase, model: StubEmbedding) -> None:
    model.become("hanging")

    begun = time.monotonic()
    with pytest.raises(UnavailableError):
        await with_facts.search("swimming penguins", mode="vector", timeout=0.3)

    assert time.monotonic() - begun < 3.0


async def test_many_searches_against_a_hanging_model_all_answer(
    with_facts: KnowledgeBase, model: StubEmbedding
) -> None:
    model.become("hanging")

    results = await asyncio.gather(*(with_facts.search(f"penguins {n}", timeout=1.5) for n in range(40)))

    assert all(result["degraded"] == ["vector"] and hit_ids(result) == ["p"] for result in results)


async def test_store_with_a_hanging_model_is_acknowledged_within_its_budget(
    with_facts: KnowledgeBase, model: StubEmbedding, short_lease: None
) -> None:
    model.become("hanging")

    stored = await with_facts.store_fact("puffins fly", fact_id="f", timeout=1.0)
    by_words = await found(with_facts, "puffins", mode="text")
    model.become("well")

    assert (stored["status"], stored["indexed"], by_words) == ("success", False, ["f"])

    async def completed() -> bool:
        return bool((await with_facts.get_fact("f"))[0]["indexed"])

    await eventually(completed, within=30)


async def test_request_that_takes_too_long_is_given_up(open_kb: Any, async_embedding: AsyncStubEmbedding) -> None:
    kb = open_kb(async_embedding, timeouts=Timeouts(embedding=0.2), breaker=IMPATIENT)
    await kb.store_fact("penguins swim", fact_id="p")
    async_embedding.become("hanging")

    stored = await kb.store_fact("puffins fly", fact_id="f")
    with pytest.raises(UnavailableError):
        await kb.search("penguins", mode="vector")
    async_embedding.become("well")

    assert stored["indexed"] is False


async def test_embedder_down_does_not_trouble_what_needs_none(with_facts: KnowledgeBase, model: StubEmbedding) -> None:
    model.become("failing")

    updated = await with_facts.update_fact("p", tags=["birds"])

    assert updated["version"] == 2
    assert (await with_facts.get_fact("p"))[0]["tags"] == ["birds"]
    assert [fact["id"] for fact in await with_facts.get_fact(query="penguins")] == ["p"]
    assert await with_facts.delete_fact("w") is True
    assert (await with_facts.get_stats())["facts"] == 1


async def test_bulk_with_the_embedder_down_stores_everything(with_facts: KnowledgeBase, model: StubEmbedding) -> None:
    model.become("failing")

    result = await with_facts.store_facts({"content": f"puffin {n}", "fact_id": f"f{n}"} for n in range(50))
    by_words = await found(with_facts, "puffin", top_k=100, mode="text")
    model.become("well")

    assert (result["succeeded"], result["failed"]) == (50, [])
    assert len(by_words) == 50

    async def completed() -> bool:
        return (await with_facts.get_stats())["pending"] == 0

    await eventually(completed, within=30)
    assert len(await found(with_facts, "puffin", top_k=100, mode="vector")) == 52


async def test_model_is_asked_in_bounded_numbers(open_kb: Any, async_embedding: AsyncStubEmbedding) -> None:
    kb = open_kb(async_embedding, embedding=EmbeddingSettings(max_concurrent_requests=3, threads=8))
    await kb.store_fact("penguins swim", fact_id="p")
    async_embedding.become("hanging")
    searches = [asyncio.create_task(kb.search(f"penguins {n}")) for n in range(20)]
    await eventually(lambda: len(async_embedding.queries) >= 3)
    for _ in range(20):
        await asyncio.sleep(0)

    asked = len(async_embedding.queries)
    async_embedding.become("well")
    results = await asyncio.gather(*searches)

    assert asked == 3
    assert all(result["hits"] for result in results)
