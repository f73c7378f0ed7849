"""Facts in Redis: deleting, sweeping, and reading; nothing is left behind."""

from __future__ import annotations

from typing import Any

import fakeredis
import pytest

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.errors import VersionConflictError
from knowledge_base.facts.repository import SWEPT_AT_ONCE
from tests.support.fact_store import (
    GENERATION,
    KEYS,
    LASTING,
    NAMESPACE,
    Store,
)


@pytest.fixture
async def store(fake_manager: AsyncRedisManager, fake_server: fakeredis.FakeServer) -> Store:
    return Store(fake_manager, fake_server)


async def fill(store: Store, **arguments: Any) -> None:
    """Two facts with all that can be counted and listed of them."""
    await store.put("x", "f1", passages=3, tags=["a", "b"], source="web", **arguments)
    await store.put("y", "f2", tags=["b"], source="web", principals=["ann", "bob"], **arguments)
    await store.change(await store.get("f1"), content="z", passages=2, tags=["b", "c"])


async def test_deleted_facts_leave_nothing_but_counters_and_generation(store: Store) -> None:
    await fill(store)

    assert await store.repository.delete(GENERATION, "f1", [], None) is True
    assert store.counts() == ({"b": "1"}, {"web": "1"}, "1")
    assert await store.repository.read(NAMESPACE, ["f1"], []) == [None]
    assert await store.repository.delete(GENERATION, "f2", ["ann"], None) is True

    assert store.keys() == LASTING
    assert store.redis.hgetall(KEYS.counters) == {"seq": "2", "passages": "0"}


async def test_delete_of_what_is_not_there_or_not_visible_is_false(store: Store) -> None:
    await store.put("x", "f1", principals=["ann"])

    assert await store.repository.delete(GENERATION, "none", [], None) is False
    assert await store.repository.delete(GENERATION, "f1", [], None) is False
    assert await store.repository.delete(GENERATION, "f1", ["bob", "*"], 1) is False
    assert await store.get("f1", ["ann"])


async def test_delete_of_an_expired_fact_is_false_and_cleans_up(store: Store) -> None:
    await store.put("x", "f1", tags=["a"], expires_in=1)
    store.now += 1_000

    assert await store.repository.delete(GENERATION, "f1", [], None) is False
    assert store.keys() == LASTING


async def test_delete_looks_at_the_version_that_is_expected(store: Store) -> None:
    await store.put("x", "f1")

    for expected in (0, 2):
        with pytest.raises(VersionConflictError) as caught:
            await store.repository.delete(GENERATION, "f1", [], expected)
        assert (caught.value.fact_id, caught.value.expected, caught.value.found) == ("f1", expected, 1)

    assert await store.repository.delete(GENERATION, "f1", [], 1) is True


async def test_sweep_removes_what_has_expired_and_counts_go_back(store: Store) -> None:
    await fill(store, expires_in=10)
    await store.put("stays", "f3", tags=["b"], expires_in=20)
    store.now += 10_000

    await store.repository.sweep(GENERATION)

    assert store.redis.zrange(KEYS.facts, 0, -1) == ["f3"]
    assert store.counts() == ({"b": "1"}, {}, "1")
    store.now += 10_000
    await store.repository.sweep(GENERATION)
    assert store.keys() == LASTING
    assert store.redis.hgetall(KEYS.counters) == {"seq": "3", "passages": "0"}


async def test_sweep_before_anything_expires_changes_nothing(store: Store) -> None:
    await fill(store, expires_in=10)
    before = store.keys()
    store.now += 9_999

    await store.repository.sweep(GENERATION)

    assert store.keys() == before


async def test_sweep_goes_on_until_all_are_gone(store: Store) -> None:
    for number in range(SWEPT_AT_ONCE + 1):
        await store.put(f"fact {number}", expires_in=1)
    store.redis.zadd(KEYS.expiring, {"gone": 1})
    store.now += 1_000

    await store.repository.sweep(GENERATION)

    assert store.keys() == LASTING


async def test_facts_are_read_in_the_order_asked_for(store: Store) -> None:
    for fact_id in ("f1", "f2", "f3"):
        await store.put(fact_id, fact_id, principals=["ann"] if fact_id == "f2" else None)

    found = await store.repository.read(NAMESPACE, ["f3", "none", "f2", "f1"], [])

    assert [record and record.fact_id for record in found] == ["f3", None, None, "f1"]
    assert await store.repository.read(NAMESPACE, [], []) == []


async def test_expired_fact_is_not_read(store: Store) -> None:
    await store.put("x", "f1", expires_in=1)
    store.now += 1_000

    assert await store.repository.read(NAMESPACE, ["f1"], []) == [None]


@pytest.fixture
async def listed(store: Store) -> Store:
    """Six facts: f1 and f4 of Ann, f2 and f4 of Bob, the others open."""
    owners: dict[int, list[str]] = {1: ["ann"], 2: ["bob"], 4: ["ann", "bob"]}
    for number in range(1, 7):
        await store.put(f"fact {number}", f"f{number}", principals=owners.get(number))
    return store


@pytest.mark.parametrize(
    ("principals", "offset", "limit", "ids"),
    [
        ([], 0, 10, ["f6", "f5", "f3"]),
        ([], 1, 1, ["f5"]),
        ([], 3, 10, []),
        (["ann"], 0, 10, ["f6", "f5", "f4", "f3", "f1"]),
        (["ann", "bob"], 0, 10, ["f6", "f5", "f4", "f3", "f2", "f1"]),
        (["ann", "bob"], 2, 2, ["f4", "f3"]),
        (["bob"], 4, 10, ["f2"]),
        (["carl"], 0, 2, ["f6", "f5"]),
    ],
)
async def test_newest_visible_facts_come_first(
    listed: Store, principals: list[str], offset: int, limit: int, ids: list[str]
) -> None:
    assert await listed.repository.newest(NAMESPACE, principals, offset, limit) == ids


@pytest.mark.parametrize(
    ("principals", "seq", "limit", "found"),
    [
        ([], 0, 10, [("f3", 3.0), ("f5", 5.0), ("f6", 6.0)]),
        ([], 3, 1, [("f5", 5.0)]),
        ([], 6, 10, []),
        (["ann", "bob"], 1, 3, [("f2", 2.0), ("f3", 3.0), ("f4", 4.0)]),
    ],
)
async def test_visible_facts_after_a_number_come_oldest_first(
    listed: Store, principals: list[str], seq: float, limit: int, found: list[tuple[str, float]]
) -> None:
    assert await listed.repository.after(NAMESPACE, principals, seq, limit) == found
