"""What becomes of facts whose vector is late: recorded, found by words, completed by whoever is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import EmbeddingUnavailableError, IndexMismatchError, UnavailableError
from knowledge_base.settings import BreakerSettings, EmbeddingSettings
from tests.support.control import Control
from tests.support.facts import found, only
from tests.support.polling import eventually

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.embeddings import AsyncStubEmbedding, StubEmbedding

IMPATIENT = BreakerSettings(reset_after=0.2)


def indexed(kb: KnowledgeBase, fact_id: str, **scope: Any) -> Callable[[], Any]:
    async def check() -> bool:
        return bool((await only(kb, fact_id, **scope))["indexed"])

    return check


async def test_store_need_not_wait_for_the_vector(stub_kb: KnowledgeBase, stub_embedding: StubEmbedding) -> None:
    await stub_kb.store_fact("walruses dive")
    stub_embedding.become("hanging")

    result = await stub_kb.store_fact("penguins swim", fact_id="f", wait_indexed=False)
    by_words = await found(stub_kb, "penguins", mode="text")
    waiting = await only(stub_kb, "f")
    pending = (await stub_kb.get_stats())["pending"]
    stub_embedding.become("well")

    assert (result["status"], result["indexed"]) == ("success", False)
    assert by_words == ["f"]
    assert (waiting["content"], waiting["indexed"], pending) == ("penguins swim", False, 1)
    await eventually(indexed(stub_kb, "f"))
    assert (await found(stub_kb, "penguins", mode="vector"))[0] == "f"
    assert (await stub_kb.get_stats())["pending"] == 0


async def test_store_that_waits_is_found_by_vector_at_once(stub_kb: KnowledgeBase) -> None:
    result = await stub_kb.store_fact("penguins swim", fact_id="f")

    assert result["indexed"] is True
    assert await found(stub_kb, "penguins", mode="vector") == ["f"]


@pytest.mark.parametrize("mood", ["failing", "wrong dimension", "not a number"])
async def test_fact_without_vector_is_stored_and_completed_later(
    open_kb: Any, stub_embedding: StubEmbedding, mood: Any
) -> None:
    kb = open_kb(breaker=IMPATIENT)
    await kb.store_fact("walruses dive")
    stub_embedding.become(mood)

    result = await kb.store_fact("penguins swim", {"n": 1}, fact_id="f", tags=["t"])
    by_words = await found(kb, "penguins", mode="text", filters={"tags": "t", "metadata.n": 1})
    stub_embedding.become("well")

    assert (result["status"], result["indexed"]) == ("success", False)
    assert by_words == ["f"]
    await eventually(indexed(kb, "f"), within=30)
    assert await found(kb, "penguins", mode="vector", filters={"tags": "t", "metadata.n": 1}) == ["f"]


async def test_first_fact_of_a_namespace_is_stored_with_the_embedder_down(
    open_kb: Any, stub_embedding: StubEmbedding
) -> None:
    stub_embedding.become("failing")
    kb = open_kb(breaker=IMPATIENT, embedding=EmbeddingSettings(dimension=32))

    result = await kb.store_fact("penguins swim", fact_id="f")
    by_words = await found(kb, "penguins", mode="text")
    stub_embedding.become("well")

    assert (result["status"], result["indexed"], by_words) == ("success", False, ["f"])
    await eventually(indexed(kb, "f"), within=30)
    for mode in ("hybrid", "vector", "text"):
        assert await found(kb, "penguins", mode=mode) == ["f"]


async def test_namespace_is_not_begun_while_nobody_knows_the_dimension(
    open_kb: Any, stub_embedding: StubEmbedding, namespace: str, control: Control
) -> None:
    stub_embedding.become("failing")
    kb = open_kb(breaker=IMPATIENT)

    with pytest.raises(EmbeddingUnavailableError) as down:
        await kb.store_fact("penguins swim", fact_id="f")
    left = control.keys(namespace)
    stub_embedding.become("well")

    assert down.value.retryable is True
    assert left == set()

    async def stored() -> bool:
        try:
            return bool((await kb.store_fact("penguins swim", fact_id="f"))["indexed"])
        except UnavailableError:
            return False

    await eventually(stored)


async def test_what_is_pending_is_completed_by_the_next_to_start(
    open_kb: Any, stub_embedding: StubEmbedding, namespace: str
) -> None:
    first = open_kb()
    await first.store_fact("walruses dive")
    stub_embedding.become("failing")
    await first.store_fact("penguins swim", fact_id="f")
    await first.store_fact("puffins fly", fact_id="f", namespace=f"{namespace}:other", principals=["user:ann"])
    await first.close()
    stub_embedding.become("well")
    second = open_kb()

    await second.start()

    await eventually(indexed(second, "f"), within=30)
    await eventually(indexed(second, "f", namespace=f"{namespace}:other", principals=["user:ann"]), within=30)
    assert (await found(second, "penguins", mode="vector"))[0] == "f"
    elsewhere = {"namespace": f"{namespace}:other", "mode": "vector"}
    assert await found(second, "puffins", principals=["user:ann"], **elsewhere) == ["f"]
    assert await found(second, "puffins", **elsewhere) == []


async def test_close_ends_a_hanging_indexing_and_loses_nothing(
    open_kb: Any, async_embedding: AsyncStubEmbedding
) -> None:
    kb = open_kb(async_embedding)
    await kb.store_fact("walruses dive")
    async_embedding.become("hanging")
    await kb.store_fact("penguins swim", fact_id="f", wait_indexed=False)
    await eventually(lambda: "penguins swim" in async_embedding.texts)

    await asyncio.wait_for(kb.close(), 10)
    async_embedding.become("well")
    second = open_kb(async_embedding)
    await second.start()

    await eventually(indexed(second, "f"), within=30)


async def test_update_while_the_embedder_is_down_shows_the_new_words_only(
    open_kb: Any, stub_embedding: StubEmbedding
) -> None:
    kb = open_kb(breaker=IMPATIENT)
    await kb.store_fact("penguins swim", fact_id="f")
    stub_embedding.become("failing")

    updated = await kb.update_fact("f", content="puffins fly")
    new_words, old_words = await found(kb, "puffins", mode="text"), await found(kb, "penguins", mode="text")
    degraded = await kb.search("puffins")
    stub_embedding.become("well")

    assert (updated["version"], updated["indexed"]) == (2, False)
    assert (new_words, old_words) == (["f"], [])
    assert (degraded["degraded"], degraded["hits"][0]["content"]) == (["vector"], "puffins fly")
    await eventually(indexed(kb, "f"), within=30)
    hits = (await kb.search("puffins fly", mode="vector"))["hits"]
    assert [(hit["fact_id"], hit["content"]) for hit in hits] == [("f", "puffins fly")]


async def test_deleted_while_pending_stays_deleted(stub_kb: KnowledgeBase, stub_embedding: StubEmbedding) -> None:
    await stub_kb.store_fact("walruses dive", fact_id="w")
    stub_embedding.become("hanging")
    await stub_kb.store_fact("penguins swim", fact_id="f", wait_indexed=False)

    deleted = await stub_kb.delete_fact("f")
    stub_embedding.become("well")
    await stub_kb.store_fact("puffins fly", fact_id="p")

    assert deleted is True
    assert (await stub_kb.get_stats())["pending"] == 0
    for mode in ("hybrid", "vector", "text"):
        assert "f" not in await found(stub_kb, "penguins swim", mode=mode)
    assert (await stub_kb.get_stats())["passages"] == 2


async def test_updated_while_pending_is_indexed_as_it_is_now(
    stub_kb: KnowledgeBase, stub_embedding: StubEmbedding
) -> None:
    await stub_kb.store_fact("walruses dive", fact_id="w")
    stub_embedding.become("hanging")
    await stub_kb.store_fact("penguins swim", fact_id="f", wait_indexed=False)
    updating = asyncio.create_task(stub_kb.update_fact("f", content="puffins fly"))
    await asyncio.sleep(0)
    stub_embedding.become("well")
    await updating

    await eventually(indexed(stub_kb, "f"))

    hits = (await stub_kb.search("puffins fly", mode="vector"))["hits"]
    assert (hits[0]["fact_id"], hits[0]["content"]) == ("f", "puffins fly")
    assert (await stub_kb.get_stats())["passages"] == 2


async def test_every_vector_is_in_the_index(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_facts({"content": f"penguin number {number}"} for number in range(50))

    stats = await stub_kb.get_detailed_stats()

    assert (stats["passages"], stats["index_failures"]) == (50, 0)
    assert len((await stub_kb.search("penguin", mode="vector", top_k=100))["hits"]) == 50


def other_model(**changes: Any) -> StubEmbedding:
    from tests.support.embeddings import StubEmbedding

    return StubEmbedding(**{"model_name": "stub", "size": 32, **changes})


@pytest.mark.parametrize("changes", [{"model_name": "another"}, {"size": 48}], ids=["model", "dimension"])
async def test_namespace_refuses_another_model(
    stub_kb: KnowledgeBase, open_kb: Any, changes: dict[str, Any], namespace: str
) -> None:
    await stub_kb.store_fact("penguins swim", fact_id="f")
    other = open_kb(other_model(**changes))

    for call in (
        lambda: other.search("penguins", mode="vector"),
        lambda: other.search("penguins"),
        lambda: other.store_fact("puffins fly"),
        lambda: other.update_fact("f", content="puffins fly"),
    ):
        with pytest.raises(IndexMismatchError) as mismatch:
            await call()
        assert mismatch.value.namespace == namespace
        assert mismatch.value.expected != mismatch.value.found
        assert "32" in mismatch.value.found
        assert str(changes.get("size", "another")) in mismatch.value.expected
    assert (await only(stub_kb, "f"))["content"] == "penguins swim"
    assert (await stub_kb.get_stats())["facts"] == 1
    assert (await stub_kb.get_detailed_stats())["index_failures"] == 0


async def test_mismatch_does_not_outlive_the_model(stub_kb: KnowledgeBase, open_kb: Any, namespace: str) -> None:
    await stub_kb.store_fact("penguins swim", fact_id="f")
    other = open_kb(other_model(size=48))
    with pytest.raises(IndexMismatchError):
        await other.store_fact("puffins fly")

    elsewhere = await other.store_fact("puffins fly", namespace=f"{namespace}:new")
    again = open_kb(other_model())

    assert elsewhere["indexed"] is True
    assert await found(again, "penguins", mode="vector") == ["f"]


async def test_lost_index_is_noticed(stub_kb: KnowledgeBase, namespace: str, control: Control) -> None:
    """Never an empty answer where there are facts: the index is made again, or the call fails."""
    await stub_kb.store_fact("penguins swim", fact_id="f")
    for name in control.indexes(namespace):
        control.run("FT.DROPINDEX", name)

    async def answered() -> bool:
        try:
            return await found(stub_kb, "penguins") == ["f"]
        except UnavailableError:
            return False

    await eventually(answered, within=20)
