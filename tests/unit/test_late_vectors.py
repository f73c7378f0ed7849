"""Vectors that come late: removed when nobody wants them, kept when somebody waits for them."""

from __future__ import annotations

import asyncio

import fakeredis
import pytest

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.index.pending import COLLECTED_AT_ONCE, PendingFacts
from knowledge_base.settings import IndexingSettings
from tests.support.fact_store import GENERATION, KEYS, LEASE_MS, NAMESPACE, Store, passage_key


@pytest.fixture
def store(fake_manager: AsyncRedisManager, fake_server: fakeredis.FakeServer) -> Store:
    return Store(fake_manager, fake_server)


@pytest.fixture
def pending(fake_manager: AsyncRedisManager, store: Store) -> PendingFacts:
    return PendingFacts(fake_manager, IndexingSettings(lease=LEASE_MS / 1000), now=lambda: store.now)


def insert(store: Store, key: str) -> None:
    store.redis.hset(key, "vector", b"1234")


async def test_vectors_for_a_deleted_fact_are_removed_when_all_must_have_come(
    store: Store, pending: PendingFacts
) -> None:
    await store.put("penguins swim", "f", passages=3)
    record = await store.get("f")
    await store.repository.delete(GENERATION, "f", [], None)
    for at in range(3):
        insert(store, passage_key(record, at))

    await pending.collect(GENERATION)
    too_early = store.redis.exists(passage_key(record, 0))
    store.now += 2 * LEASE_MS
    await pending.collect(GENERATION)

    assert too_early == 1
    assert not any(store.redis.exists(passage_key(record, at)) for at in range(3))
    assert store.redis.zcard(KEYS.inserts) == 0


async def test_vectors_for_a_superseded_revision_are_removed_and_the_current_ones_stay(
    store: Store, pending: PendingFacts
) -> None:
    await store.put("penguins swim", "f", passages=2)
    old = await store.get("f")
    await store.change(old, content="puffins fly", passages=2)
    new = await store.get("f")
    for record in (old, new):
        insert(store, passage_key(record, 1))
    await pending.expect(NAMESPACE, "f", new.revision)

    store.now += 2 * LEASE_MS
    await pending.collect(GENERATION)

    assert store.redis.exists(passage_key(old, 1)) == 0
    assert store.redis.hkeys(passage_key(new, 1))
    assert store.redis.zrange(KEYS.inserts, 0, -1) == [f"f:{new.revision}"]
    assert store.redis.zscore(KEYS.inserts, f"f:{new.revision}") == store.now + 2 * LEASE_MS


async def test_vectors_for_a_revision_that_was_never_switched_to_are_removed(
    store: Store, pending: PendingFacts
) -> None:
    await store.put("penguins swim", "f")
    record = await store.get("f")
    ahead = record._replace(revision="2-abc-2")
    await pending.expect(NAMESPACE, "f", ahead.revision)
    for at in range(2):
        insert(store, passage_key(ahead, at))

    store.now += 2 * LEASE_MS
    await pending.collect(GENERATION)

    assert not any(store.redis.exists(passage_key(ahead, at)) for at in range(2))
    assert store.redis.exists(passage_key(record, 0)) == 1


async def test_inserts_of_what_is_indexed_are_forgotten(store: Store, pending: PendingFacts) -> None:
    await store.put("penguins swim", "f")
    store.redis.hset(KEYS.fact("f"), "indexed", "1")
    insert(store, passage_key(await store.get("f"), 0))

    store.now += 2 * LEASE_MS
    await pending.collect(GENERATION)

    assert store.redis.zcard(KEYS.inserts) == 0
    assert store.redis.hexists(passage_key(await store.get("f"), 0), "vector")


async def test_id_with_colons_is_told_from_its_revision(store: Store, pending: PendingFacts) -> None:
    await store.put("penguins swim", "a:b:1-2-3", passages=2)
    record = await store.get("a:b:1-2-3")
    await store.repository.delete(GENERATION, "a:b:1-2-3", [], None)
    insert(store, passage_key(record, 1))

    store.now += 2 * LEASE_MS
    await pending.collect(GENERATION)

    assert store.redis.exists(passage_key(record, 1)) == 0


async def test_more_than_one_script_s_worth_is_collected(store: Store, pending: PendingFacts) -> None:
    number = 2 * COLLECTED_AT_ONCE + 5
    store.redis.zadd(KEYS.inserts, {f"gone{at}:1-x-1": 1 for at in range(number)})
    for at in range(number):
        insert(store, f"{GENERATION.passage_prefix}:gone{at}:1-x-1:0")

    await pending.collect(GENERATION)

    assert store.redis.zcard(KEYS.inserts) == 0
    assert not store.redis.keys(f"{GENERATION.passage_prefix}:*")


async def test_collecting_ends_when_everything_still_waits(store: Store, pending: PendingFacts) -> None:
    for at in range(COLLECTED_AT_ONCE):
        await store.put(f"content {at}")
    store.now += 2 * LEASE_MS

    await asyncio.wait_for(pending.collect(GENERATION), 20)

    assert store.redis.zcard(KEYS.inserts) == COLLECTED_AT_ONCE
