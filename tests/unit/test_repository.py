"""Facts in Redis: storing, finding duplicates, and switching versions."""

from __future__ import annotations

import fakeredis
import pytest

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.errors import FactNotFoundError, VersionConflictError
from knowledge_base.facts.draft import content_digest, draft_fact, revision
from knowledge_base.facts.parts import labels
from knowledge_base.facts.records import FactRecord
from knowledge_base.facts.repository import Stored
from knowledge_base.index.generations import GenerationMovedError
from knowledge_base.index.schema import Generation
from tests.support.fact_store import (
    GENERATION,
    KEYS,
    LEASE_MS,
    LIMITS,
    NAMESPACE,
    Store,
    drafted,
    parts,
    passage_key,
    section_key,
)

UNLABELLED = labels({}, [], None, [])


@pytest.fixture
async def store(fake_manager: AsyncRedisManager, fake_server: fakeredis.FakeServer) -> Store:
    return Store(fake_manager, fake_server)


async def test_stored_fact_can_be_read(store: Store) -> None:
    stored = await store.put(
        "Wings/lift “é” \u007f",
        "f1",
        metadata={"n": [1.5, None], "é": "/"},
        tags=["a", "b"],
        source="web",
        expires_in=60,
    )

    found = await store.get("f1")

    assert stored == Stored("success", "f1", 1, False)
    assert found == FactRecord(
        fact_id="f1",
        content="Wings/lift “é” \u007f",
        metadata={"n": [1.5, None], "é": "/"},
        tags=["a", "b"],
        source="web",
        principals=[],
        document_id=None,
        version=1,
        revision=revision(1, content_digest("Wings/lift “é” \u007f", []), 1),
        seq="1",
        created_at=store.now,
        updated_at=store.now,
        expires_at=store.now + 60_000,
        indexed=False,
    )


async def test_stored_fact_waits_for_its_vectors_and_is_listed(store: Store) -> None:
    await store.put("x", "f1", passages=2, tags=["a"], source="web")

    assert store.redis.zrange(KEYS.pending, 0, -1, withscores=True) == [("f1", store.now + LEASE_MS)]
    assert store.redis.zrange(KEYS.facts, 0, -1, withscores=True) == [("f1", 1)]
    assert store.redis.zrange(KEYS.visible("*"), 0, -1) == ["f1"]
    assert store.counts() == ({"a": "1"}, {"web": "1"}, "2")
    assert not store.redis.exists(KEYS.expiring)


async def test_generation_that_was_lost_is_recorded_with_the_fact_and_never_overwritten(store: Store) -> None:
    await store.put("x", "f1")
    assert store.redis.hgetall(KEYS.generation) == {"number": "1", "model": "stub", "dimension": "4", "build": "1"}
    store.redis.hset(KEYS.generation, "model", "another")

    await store.put("y", "f2")

    assert store.redis.hget(KEYS.generation, "model") == "another"


async def test_nothing_is_changed_in_a_generation_that_is_live_no_longer(store: Store) -> None:
    await store.put("x", "f1")
    found = await store.get("f1")
    store.redis.hset(KEYS.generation, "number", "7")
    before = store.keys()

    (moved,) = await store.repository.store(GENERATION, [drafted("y", "f2", 1)])

    assert isinstance(moved, GenerationMovedError)
    with pytest.raises(GenerationMovedError):
        await store.repository.delete(GENERATION, "f1", [], None)
    with pytest.raises(GenerationMovedError):
        await store.change(found, content="z")
    await store.repository.sweep(GENERATION)
    assert store.keys() == before


async def test_passages_and_sections_carry_what_is_filtered_on(store: Store) -> None:
    await store.put("x", "f1", passages=2, metadata={"n": 1}, tags=["a", "b"], source="web", principals=["ann"])
    found = await store.get("f1", ["ann"])

    labels = {
        "principals": "ann",
        "tags": "a\x1fb",
        "source": "web",
        "meta": "n=1",
        "fact_id": "f1",
        "document": "",
        "created_at": str(store.now),
        "updated_at": str(store.now),
    }
    for at in range(2):
        assert store.redis.hgetall(passage_key(found, at)) == {**labels, "text": f"x {at}"}
    assert store.redis.hgetall(section_key(found, 0)) == {**labels, "stem": "stems x", "position": "0", "seq": "1"}
    assert store.redis.ttl(passage_key(found, 0)) == -1


async def test_passages_of_a_fact_that_expires_expire_with_it(store: Store) -> None:
    await store.put("x", "f1", expires_in=60)
    found = await store.get("f1")

    for key in (passage_key(found, 0), section_key(found, 0)):
        assert 50_000 < store.redis.pttl(key) <= 60_000


async def test_same_content_is_a_duplicate_of_the_first(store: Store) -> None:
    await store.put("x", "f1", tags=["a"])
    before = store.keys()

    again = await store.put("x", tags=["b"])

    assert again == Stored("duplicate", "f1", 1, False)
    assert store.keys() == before
    assert store.counts() == ({"a": "1"}, {}, "1")
    assert (await store.get("f1")).tags == ["a"]


async def test_duplicate_says_whether_the_first_is_indexed(store: Store) -> None:
    await store.put("x", "f1")
    store.redis.hset(KEYS.fact("f1"), "indexed", "1")

    assert (await store.put("x")).indexed is True
    assert (await store.put("x", "f1")).indexed is True


async def test_same_id_and_content_is_a_duplicate(store: Store) -> None:
    await store.put("x", "f1")

    assert await store.put("x", "f1") == Stored("duplicate", "f1", 1, False)


async def test_same_id_with_other_content_is_a_conflict(store: Store) -> None:
    await store.put("x", "f1")
    await store.change(await store.get("f1"), tags=["a"])
    before = store.keys()

    assert await store.put("y", "f1") == Stored("conflict", "f1", 2, False)
    assert store.keys() == before
    assert (await store.get("f1")).content == "x"


async def test_contents_of_different_principals_never_meet(store: Store) -> None:
    outcomes = [
        (await store.put("x", fact_id, principals=principals)).status
        for fact_id, principals in [("f1", []), ("f2", ["ann"]), ("f3", ["ann", "bob"]), ("f4", ["bob", "ann"])]
    ]

    assert outcomes == ["success", "success", "success", "duplicate"]


async def test_namespaces_never_meet(store: Store) -> None:
    await store.put("x", "f1")
    other = Generation("other", 1, "stub", 4)
    draft = draft_fact("x", namespace="other", limits=LIMITS, fact_id="f1")

    (stored,) = await store.repository.store(other, [(draft, parts("x", 1, UNLABELLED, content_digest("x", [])))])

    assert stored.status == "success"
    assert await store.repository.read("third", ["f1"], []) == [None]


async def test_expired_fact_makes_room_for_the_same_content_and_id(store: Store) -> None:
    await store.put("x", "f1", tags=["old"], expires_in=1)
    store.now += 1_000

    by_content = await store.put("x", "f2", tags=["new"], expires_in=1)
    store.now += 1_000
    by_id = await store.put("y", "f2")

    assert (by_content.status, by_id.status) == ("success", "success")
    assert store.counts() == ({}, {}, "1")
    assert store.redis.zrange(KEYS.facts, 0, -1) == ["f2"]
    assert store.redis.zrange(KEYS.expiring, 0, -1) == []


async def test_several_are_stored_each_by_itself(store: Store) -> None:
    items = [drafted("x", "f1"), drafted("x", "f2"), drafted("y", "f1"), drafted("z", "f3")]
    store.redis.set(KEYS.fact("f3"), "not a hash")

    first, second, third, fourth = await store.repository.store(GENERATION, items)

    assert first == Stored("success", "f1", 1, False)
    assert second == Stored("duplicate", "f1", 1, False)
    assert third == Stored("conflict", "f1", 1, False)
    assert isinstance(fourth, Exception)


# --- update ---------------------------------------------------------------------------------------------------------


async def test_update_of_labels_keeps_passages_and_changes_their_labels(store: Store) -> None:
    await store.put("x", "f1", passages=2, tags=["a", "b"], source="web", metadata={"n": 1})
    old = await store.get("f1")
    store.redis.zrem(KEYS.pending, "f1")
    store.redis.hset(KEYS.fact("f1"), "indexed", "1")
    store.now += 5

    stored = await store.change(old, tags=["b", "c"], source="book", metadata={"n": 2})

    new = await store.get("f1")
    assert stored == Stored("success", "f1", 2, True)
    assert (new.version, new.tags, new.source, new.metadata) == (2, ["b", "c"], "book", {"n": 2})
    assert (new.revision, new.created_at, new.updated_at) == (old.revision, old.created_at, store.now)
    for key in (passage_key(new, 0), passage_key(new, 1), section_key(new, 0)):
        labels = store.redis.hgetall(key)
        assert (labels["tags"], labels["source"], labels["meta"]) == ("b\x1fc", "book", "n=2")
        assert labels["updated_at"] == str(store.now)
    assert store.redis.hget(passage_key(new, 1), "text") == "x 1"
    assert store.counts() == ({"b": "1", "c": "1"}, {"book": "1"}, "2")
    assert not store.redis.exists(KEYS.pending)


async def test_update_brings_no_passage_back_that_is_gone(store: Store) -> None:
    await store.put("x", "f1", passages=2)
    old = await store.get("f1")
    store.redis.delete(passage_key(old, 1))

    await store.change(old, tags=["a"])

    assert not store.redis.exists(passage_key(old, 1))


async def test_update_of_the_content_replaces_passages(store: Store) -> None:
    await store.put("x", "f1", passages=3, tags=["a"])
    old = await store.get("f1")
    store.redis.zadd(KEYS.pending, {"f1": 1})

    stored = await store.change(old, content="y", passages=2)

    new = await store.get("f1")
    assert stored == Stored("success", "f1", 2, False)
    assert (new.content, new.tags) == ("y", ["a"])
    assert [store.redis.exists(passage_key(old, at)) for at in range(3)] == [0, 0, 0]
    assert not store.redis.exists(section_key(old, 0))
    assert [store.redis.hget(passage_key(new, at), "text") for at in range(2)] == ["y 0", "y 1"]
    assert store.redis.hget(section_key(new, 0), "seq") == "1"
    assert store.counts() == ({"a": "1"}, {}, "2")
    assert store.redis.hgetall(KEYS.contents) == {content_digest("y", []): "f1"}
    assert store.redis.zscore(KEYS.pending, "f1") == store.now + LEASE_MS
    assert (await store.put("x")).status == "success"


async def test_update_whose_vectors_are_there_already_is_indexed(store: Store) -> None:
    await store.put("x", "f1")
    old = await store.get("f1")
    new = old._replace(content="y", revision=revision(2, content_digest("y", []), 2))
    for at in range(2):
        store.redis.hset(passage_key(new, at), "vector", "v")

    stored = await store.repository.update(GENERATION, old, new, parts("y", 2, UNLABELLED, content_digest("y", [])), [])

    assert stored == Stored("success", "f1", 2, True)
    assert (await store.get("f1")).indexed
    assert store.redis.hget(passage_key(new, 1), "vector") == "v"
    assert not store.redis.exists(KEYS.pending)


async def test_update_of_a_fact_that_expires_lets_its_new_passages_expire(store: Store) -> None:
    await store.put("x", "f1", expires_in=60)

    await store.change(await store.get("f1"), content="y")

    new = await store.get("f1")
    assert new.expires_at == store.now + 60_000
    assert 50_000 < store.redis.pttl(passage_key(new, 0)) <= 60_000


async def test_update_after_somebody_else_is_a_conflict_and_changes_nothing(store: Store) -> None:
    await store.put("x", "f1")
    old = await store.get("f1")
    await store.change(old, tags=["first"])
    before = store.redis.hgetall(KEYS.fact("f1"))

    with pytest.raises(VersionConflictError) as caught:
        await store.change(old, tags=["second"], content="y")

    assert (caught.value.fact_id, caught.value.expected, caught.value.found) == ("f1", 1, 2)
    assert store.redis.hgetall(KEYS.fact("f1")) == before
    assert store.counts()[0] == {"first": "1"}


async def test_update_to_the_content_of_another_fact_is_a_conflict_with_that_fact(store: Store) -> None:
    await store.put("x", "f1")
    await store.put("y", "f2")
    await store.change(await store.get("f2"), tags=["a"])

    with pytest.raises(VersionConflictError) as caught:
        await store.change(await store.get("f1"), content="y")

    assert (caught.value.fact_id, caught.value.expected, caught.value.found) == ("f2", 0, 2)
    assert (await store.get("f1")).content == "x"


async def test_update_to_the_content_of_an_expired_fact_takes_it_over(store: Store) -> None:
    await store.put("y", "f2", expires_in=1)
    await store.put("x", "f1")
    store.now += 1_000

    await store.change(await store.get("f1"), content="y")

    assert store.redis.hgetall(KEYS.contents) == {content_digest("y", []): "f1"}
    assert store.redis.zrange(KEYS.facts, 0, -1) == ["f1"]


async def test_update_of_what_is_gone_expired_or_invisible_finds_nothing(store: Store) -> None:
    await store.put("x", "gone")
    await store.put("y", "late", expires_in=1)
    await store.put("z", "anns", principals=["ann"])
    gone, late, anns = await store.get("gone"), await store.get("late"), await store.get("anns", ["ann"])
    await store.repository.delete(GENERATION, "gone", [], None)
    store.now += 1_000

    for old, callers in ((gone, []), (late, []), (anns, []), (anns, ["bob"]), (anns, ["*"])):
        with pytest.raises(FactNotFoundError) as caught:
            await store.change(old, callers, tags=["a"])
        assert (caught.value.fact_id, caught.value.namespace) == (old.fact_id, NAMESPACE)

    assert (await store.change(anns, ["bob", "ann"], tags=["a"])).version == 2


async def test_history_is_newest_first_and_trimmed(store: Store) -> None:
    await store.put("v1 /é", "f1", tags=["t1"], source="web", metadata={"n": 1})
    started = store.now
    for version in range(2, 7):
        store.now += 1
        await store.change(await store.get("f1"), content=f"v{version}", tags=[f"t{version}"])

    current, *history = await store.repository.history(NAMESPACE, "f1", [])

    assert current["content"] == "v6"
    assert [entry["version"] for entry in history] == [5, 4, 3]
    assert [entry["content"] for entry in history] == ["v5", "v4", "v3"]
    assert [entry["tags"] for entry in history] == [["t5"], ["t4"], ["t3"]]
    assert history[0]["metadata"] == {"n": 1}
    assert history[0]["source"] == "web"
    assert store.now == started + 5


async def test_history_holds_each_version_exactly(store: Store) -> None:
    await store.put("a/b “é” \u007f\n", "f1", source=None)
    before = (await store.get("f1")).to_version()

    await store.change(await store.get("f1"), content="y")

    assert (await store.repository.history(NAMESPACE, "f1", []))[1:] == [before]


async def test_history_that_is_switched_off_is_not_kept(
    fake_manager: AsyncRedisManager, fake_server: fakeredis.FakeServer
) -> None:
    store = Store(fake_manager, fake_server, keep_history=0)
    await store.put("x", "f1")

    await store.change(await store.get("f1"), content="y")

    assert (await store.repository.history(NAMESPACE, "f1", []))[1:] == []
    assert not store.redis.exists(KEYS.history("f1"))


async def test_fact_that_was_stored_anew_is_not_taken_for_the_one_that_was_read(store: Store) -> None:
    await store.put("x", "f1")
    first = await store.get("f1")
    await store.repository.delete(GENERATION, "f1", [], first.version)
    store.now += 1
    await store.put("y", "f1")
    second = await store.get("f1")

    with pytest.raises(VersionConflictError):
        await store.repository.delete(GENERATION, "f1", [], first.version, first.created_at)

    assert (await store.get("f1")).content == "y"
    assert await store.repository.delete(GENERATION, "f1", [], second.version, second.created_at)
