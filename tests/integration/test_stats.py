"""Counts and state, told without looking at every fact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.control import Control

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.embeddings import StubEmbedding

SCANS = ("scan", "keys", "sscan", "hscan", "zscan", "smembers", "ft.aggregate")


async def counts(kb: KnowledgeBase, **scope: Any) -> tuple[int, int, int, dict[str, int], dict[str, int]]:
    stats = await kb.get_detailed_stats(**scope)
    brief = await kb.get_stats(**scope)
    assert {key: stats[key] for key in brief} == dict(brief)  # type: ignore[literal-required]
    return stats["facts"], stats["passages"], stats["pending"], stats["tags"], stats["sources"]


async def test_empty_namespace_counts_nothing(stub_kb: KnowledgeBase, namespace: str) -> None:
    stats = await stub_kb.get_stats()

    assert (stats["namespace"], stats["facts"], stats["passages"], stats["pending"]) == (namespace, 0, 0, 0)


async def test_counts_follow_every_change(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("one", fact_id="1", tags=["a", "b"], source="x")
    await stub_kb.store_fact("two", fact_id="2", tags=["a"], source="y")
    await stub_kb.store_fact("three", fact_id="3")
    after_stores = await counts(stub_kb)

    await stub_kb.store_fact("one", tags=["zzz"], source="zzz")
    after_duplicate = await counts(stub_kb)

    await stub_kb.update_fact("1", tags=["b", "c"])
    await stub_kb.update_fact("2", content="\n\n".join(f"Sentence {n} about walruses and ice." for n in range(120)))
    await stub_kb.store_fact("three", tags=["a"], source="x", on_duplicate="update")
    after_updates = await counts(stub_kb)

    await stub_kb.delete_fact("2")
    await stub_kb.delete_fact("2")
    after_delete = await counts(stub_kb)

    await stub_kb.delete_facts({"fact_id": ["1", "3"]})
    after_all = await counts(stub_kb)

    assert after_stores == (3, 3, 0, {"a": 2, "b": 1}, {"x": 1, "y": 1})
    assert after_duplicate == after_stores
    assert after_updates[0] == 3
    assert after_updates[1] > 5
    assert after_updates[2:] == (0, {"a": 2, "b": 1, "c": 1}, {"x": 2, "y": 1})
    assert after_delete == (2, 2, 0, {"a": 1, "b": 1, "c": 1}, {"x": 2})
    assert after_all == (0, 0, 0, {}, {})


async def test_counts_are_the_namespace_s_own(stub_kb: KnowledgeBase, namespace: str) -> None:
    await stub_kb.store_fact("one", tags=["a"], source="x")
    await stub_kb.store_fact("one", tags=["b"], namespace=f"{namespace}:other")

    assert await counts(stub_kb) == (1, 1, 0, {"a": 1}, {"x": 1})
    assert await counts(stub_kb, namespace=f"{namespace}:other") == (1, 1, 0, {"b": 1}, {})


async def test_pending_counts_what_waits_for_its_vector(
    stub_kb: KnowledgeBase, failing_embedding: StubEmbedding
) -> None:
    await stub_kb.store_fact("one")
    failing_embedding.become("failing")

    stored = await stub_kb.store_fact("two")

    assert stored["indexed"] is False
    stats = await stub_kb.get_stats()
    assert (stats["facts"], stats["passages"], stats["pending"]) == (2, 2, 1)


async def test_statistics_need_no_scan(stub_kb: KnowledgeBase, control: Control) -> None:
    await stub_kb.store_facts({"content": f"words {n}", "tags": [f"t{n % 7}"], "source": "s"} for n in range(100))
    before = control.calls(*SCANS)

    stats = await stub_kb.get_stats()
    detailed = await stub_kb.get_detailed_stats()

    assert (stats["facts"], sum(detailed["tags"].values())) == (100, 100)
    assert control.calls(*SCANS) == before


async def test_details_tell_what_serves_it(kb: KnowledgeBase, control: Control, namespace: str) -> None:
    await kb.store_fact("The Rhine is long.")
    await kb.search("river")

    stats = await kb.get_detailed_stats()

    assert stats["dimension"] == 384
    assert stats["embedding_model"]
    assert stats["index_name"] in control.indexes(namespace)
    assert stats["index_bytes"] > 0
    assert stats["index_failures"] == 0
    assert stats["redis_memory_bytes"] > 1_000_000
    assert stats["redis_version"][0].isdigit()
    assert (stats["search_version"] or "").startswith("2.10")
    assert {"main", "search"} <= set(stats["pools"])
    assert {stats["pools"][name]["limit"] for name in ("main", "search")} == {50}
    assert all(0 <= pool["in_use"] <= pool["limit"] for pool in stats["pools"].values())
    assert stats["pools"]["main"]["connections"] >= 1
    assert stats["breakers"]
    assert all((breaker["state"], breaker["failures"]) == ("closed", 0) for breaker in stats["breakers"])


async def test_counts_are_right_after_many_writers(stub_kb: KnowledgeBase, open_kb: Any) -> None:
    other = open_kb()
    for kb in (stub_kb, other):
        await kb.store_facts({"content": f"words {n}", "fact_id": f"f{n}", "tags": ["t"]} for n in range(40))

    for number in range(0, 40, 2):
        await other.delete_fact(f"f{number}")
        await stub_kb.delete_fact(f"f{number}")

    assert await counts(stub_kb) == (20, 20, 0, {"t": 20}, {})


async def test_health_of_a_whole_base(stub_kb: KnowledgeBase) -> None:
    health = await stub_kb.health()

    assert (health["live"], health["ready"]) == (True, True)
    assert health["parts"]
    assert all(part["ok"] and part["took_ms"] >= 0 for part in health["parts"].values())


@pytest.mark.parametrize("mood", ["failing", "wrong dimension"])
async def test_health_tells_that_the_embedder_is_down(
    stub_kb: KnowledgeBase, failing_embedding: StubEmbedding, mood: Any
) -> None:
    await stub_kb.store_fact("words")
    failing_embedding.become(mood)
    await stub_kb.search("a query never asked before")

    health = await stub_kb.health()

    assert health["live"] is True
    assert [name for name, part in health["parts"].items() if not part["ok"]] == ["embedding"]
