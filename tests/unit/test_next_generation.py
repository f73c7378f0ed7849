"""The record of a rebuild: one owner at a time, fenced by its token, and an atomic switch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import fakeredis
import pytest

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.errors import UnavailableError
from knowledge_base.index import next_generation
from knowledge_base.index.generations import Generations
from knowledge_base.index.next_generation import NextGeneration, RebuildLostError
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import Keyspace
from knowledge_base.settings import Settings
from tests.support.fake_redis import URL, fake_endpoint

NAMESPACE = "acme"
KEYS = Keyspace(NAMESPACE)
LIVE = Generation(NAMESPACE, 1, "stub", 4)
VECTOR = b"\x00" * 16


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def raw(server: fakeredis.FakeServer) -> Any:
    client = fakeredis.FakeRedis(server=server, decode_responses=True)
    client.hset(KEYS.generation, mapping={"number": "1", "model": "stub", "dimension": "4"})
    return client


@pytest.fixture
async def manager(monkeypatch: pytest.MonkeyPatch, server: fakeredis.FakeServer) -> AsyncIterator[AsyncRedisManager]:
    fake_endpoint(monkeypatch, server)
    one = AsyncRedisManager(Settings(redis_url=URL))
    yield one
    await one.close()


def put(raw: Any, fact_id: str, passages: int = 1, revision: str = "", **fields: str) -> str:
    """Writes a fact with its parts into the live generation; returns its revision."""
    revision = revision or f"1-{fact_id}-{passages}"
    fact = {"revision": revision, "passages": passages, "sections": 1, "indexed": "1"} | fields
    raw.hset(KEYS.fact(fact_id), mapping=fact)
    for position in range(passages):
        passage = {"text": f"{fact_id} {position}", "principals": "*", "vector": VECTOR}
        raw.hset(f"{KEYS.passages(1)}:{fact_id}:{revision}:{position}", mapping=passage)
    raw.hset(f"{KEYS.sections(1)}:{fact_id}:{revision}:0", mapping={"stem": fact_id})
    return revision


def parts(raw: Any, number: int) -> set[str]:
    """Returns the names of the parts of a generation."""
    prefixes = (f"{KEYS.passages(number)}:", f"{KEYS.sections(number)}:")
    return {key.split(f":{number}:", 1)[1] for key in raw.scan_iter() if key.startswith(prefixes)}


async def test_owner_keeps_others_away_until_its_lease_ends(manager: AsyncRedisManager, raw: Any) -> None:
    first, second = NextGeneration(manager, LIVE, "stub", 4), NextGeneration(manager, LIVE, "stub", 4)
    assert await first.begin() == "begun"
    await first.advance(cursor="7", done=3, total=9)

    with pytest.raises(UnavailableError, match=r"'acme'.*3 of 9 facts done"):
        await second.begin()

    raw.hset(KEYS.rebuild, "lease", "1")
    assert await second.begin() == "resumed"
    assert (second.generation.number, second.cursor, second.done) == (2, 7.0, 3)


async def test_whoever_lost_its_lease_can_do_nothing(manager: AsyncRedisManager, raw: Any) -> None:
    put(raw, "a")
    frozen, owner = NextGeneration(manager, LIVE, "stub", 4), NextGeneration(manager, LIVE, "stub", 4)
    await frozen.begin()
    raw.hset(KEYS.rebuild, "lease", "1")
    await owner.begin()
    before = {key: raw.dump(key) for key in raw.scan_iter()}

    for step in (
        frozen.copy(["a"]),
        frozen.settle([]),
        frozen.advance(done=99),
        frozen.switch(0),
        frozen.give_up(),
        frozen.release(),
    ):
        with pytest.raises(RebuildLostError, match="another process"):
            await step

    assert {key: raw.dump(key) for key in raw.scan_iter()} == before


async def test_whoever_releases_it_leaves_it_to_the_next_at_once(manager: AsyncRedisManager, raw: Any) -> None:
    first, second = NextGeneration(manager, LIVE, "stub", 4), NextGeneration(manager, LIVE, "stub", 4)
    await first.begin()
    await first.advance(done=3)

    await first.release()

    assert await second.begin() == "resumed"
    assert second.done == 3


async def test_what_was_begun_for_another_model_is_stale(manager: AsyncRedisManager, raw: Any) -> None:
    first, second = NextGeneration(manager, LIVE, "stub", 4), NextGeneration(manager, LIVE, "other", 8)
    await first.begin()
    await first.release()

    assert await second.begin() == "stale"
    await second.give_up()

    assert raw.zrange(KEYS.retired, 0, -1) == ["2:1"]
    assert not raw.exists(KEYS.rebuild, KEYS.changed, KEYS.unembedded)
    assert await second.begin() == "begun"
    # Numbers never come again.
    assert second.generation.number == 3


async def test_nothing_is_begun_where_nothing_was_written(manager: AsyncRedisManager, raw: Any) -> None:
    raw.delete(KEYS.generation)

    with pytest.raises(RebuildLostError):
        await NextGeneration(manager, LIVE, "stub", 4).begin()

    assert raw.keys() == []


async def test_parts_are_copied_as_they_are(manager: AsyncRedisManager, raw: Any) -> None:
    revision = put(raw, "a", passages=3)
    raw.pexpireat(f"{KEYS.passages(1)}:a:{revision}:1", 9_999_999_999_999)
    upcoming = NextGeneration(manager, LIVE, "stub", 4)
    await upcoming.begin()

    copied = await upcoming.copy(["a", "gone"])

    assert (copied.missing, copied.facts) == ([], [])
    assert parts(raw, 2) == parts(raw, 1)
    for name in parts(raw, 1) - {f"a:{revision}:0"}:
        assert raw.hgetall(f"{KEYS.passages(2)}:{name}") == raw.hgetall(f"{KEYS.passages(1)}:{name}")
    assert raw.pexpiretime(f"{KEYS.passages(2)}:a:{revision}:1") == 9_999_999_999_999
    assert raw.pexpiretime(f"{KEYS.passages(2)}:a:{revision}:2") == -1


async def test_for_another_model_all_but_the_vectors_is_copied(manager: AsyncRedisManager, raw: Any) -> None:
    revision = put(raw, "a", passages=2)
    raw.pexpireat(f"{KEYS.passages(1)}:a:{revision}:1", 9_999_999_999_999)
    raw.zadd(KEYS.changed, {"a": 4})
    upcoming = NextGeneration(manager, LIVE, "other", 8)
    await upcoming.begin()

    copied = await upcoming.copy(["a"])

    assert [tuple(fact) for fact in copied.facts] == [("a", revision, "4")]
    new = raw.hgetall(f"{KEYS.passages(2)}:a:{revision}:1")
    assert new == {"text": "a 1", "principals": "*"}
    assert raw.pexpiretime(f"{KEYS.passages(2)}:a:{revision}:1") == 9_999_999_999_999
    # It stays on record until its vectors are there.
    assert raw.zscore(KEYS.changed, "a") == 4.0
    assert await upcoming.settle(copied.facts) == 0
    assert raw.smembers(KEYS.unembedded) == {"a"}
    for position in range(2):
        raw.hset(f"{KEYS.passages(2)}:a:{revision}:{position}", "vector", b"\x00" * 32)
    assert await upcoming.settle(copied.facts) == 1
    assert not raw.exists(KEYS.unembedded, KEYS.changed)


async def test_vectors_of_a_revision_that_is_past_are_taken_back(manager: AsyncRedisManager, raw: Any) -> None:
    revision = put(raw, "a")
    upcoming = NextGeneration(manager, LIVE, "other", 8)
    await upcoming.begin()
    copied = await upcoming.copy(["a"])
    raw.hset(f"{KEYS.passages(2)}:a:{revision}:0", "vector", b"\x00" * 32)
    raw.hset(KEYS.fact("a"), "revision", "2-a-1")

    assert await upcoming.settle(copied.facts) == 0

    assert not raw.exists(f"{KEYS.passages(2)}:a:{revision}:0")
    assert not raw.exists(KEYS.unembedded)


@pytest.mark.parametrize("way", ["relabelled", "deleted", "another revision", "left alone"])
async def test_fact_that_changes_between_two_scripts_stays_on_record(
    manager: AsyncRedisManager, raw: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(next_generation, "PARTS_AT_ONCE", 2)
    put(raw, "a", passages=5)
    upcoming = NextGeneration(manager, LIVE, "stub", 4)
    await upcoming.begin()
    raw.zadd(KEYS.changed, {"a": 1})
    run, scripts = NextGeneration._run, 0

    async def run_between(self: NextGeneration, *script: Any, **fields: Any) -> Any:
        nonlocal scripts
        scripts += 1
        if scripts == 2 and way != "left alone":
            raw.zadd(KEYS.changed, {"a": 2})
        if scripts == 2 and way == "deleted":
            raw.delete(KEYS.fact("a"))
        if scripts == 2 and way == "another revision":
            put(raw, "a", passages=3, revision="2-a-3")
        return await run(self, *script, **fields)

    monkeypatch.setattr(NextGeneration, "_run", run_between)

    await upcoming.copy(["a"])

    assert scripts > 2 or way == "deleted"
    if way == "relabelled":
        assert raw.zscore(KEYS.changed, "a") == 2.0
    elif way == "another revision":
        # The whole of it came after the change.
        assert not raw.exists(KEYS.changed)
        assert {f"a:2-a-3:{position}" for position in range(3)} <= parts(raw, 2)
    else:
        assert not raw.exists(KEYS.changed)


async def test_switch_waits_while_too_much_has_changed(
    manager: AsyncRedisManager, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_generation, "SWITCHED_ALONG", 3)
    revision = put(raw, "a", passages=3)
    upcoming = NextGeneration(manager, LIVE, "stub", 4)
    await upcoming.begin()
    raw.zadd(KEYS.changed, {"a": 1})

    assert not await upcoming.switch(60)
    assert raw.hget(KEYS.generation, "number") == "1"
    assert parts(raw, 2) == set()

    monkeypatch.setattr(next_generation, "SWITCHED_ALONG", 4)
    assert await upcoming.switch(60)
    expected = {"number": "2", "model": "stub", "dimension": "4", "build": "1"}
    assert expected.items() <= raw.hgetall(KEYS.generation).items()
    assert f"a:{revision}:2" in parts(raw, 2)
    assert raw.zrange(KEYS.retired, 0, -1) == ["1:1"]
    assert raw.zscore(KEYS.retired, "1:1") >= upcoming.now() + 55_000
    assert not raw.exists(KEYS.rebuild, KEYS.changed, KEYS.unembedded)
    with pytest.raises(RebuildLostError):
        await upcoming.switch(60)


async def test_facts_without_vectors_of_the_new_model_are_pending_after_the_switch(
    manager: AsyncRedisManager, raw: Any
) -> None:
    put(raw, "a")
    upcoming = NextGeneration(manager, LIVE, "other", 8)
    await upcoming.begin()
    await upcoming.settle((await upcoming.copy(["a"])).facts)
    raw.sadd(KEYS.unembedded, "gone")

    assert await upcoming.switch(60)

    assert raw.zrange(KEYS.pending, 0, -1) == ["a"]
    assert raw.hget(KEYS.fact("a"), "indexed") == "0"
    assert not raw.exists(KEYS.fact("gone"))
    record = raw.hgetall(KEYS.generation)
    assert (record["model"], record["dimension"]) == ("other", "8")


async def test_missing_parts_are_told(manager: AsyncRedisManager, raw: Any) -> None:
    revision = put(raw, "a", passages=2)
    put(raw, "b")
    raw.delete(f"{KEYS.passages(1)}:a:{revision}:1")
    upcoming = NextGeneration(manager, LIVE, "stub", 4)
    await upcoming.begin()

    assert (await upcoming.copy(["a", "b"])).missing == ["a"]


async def test_record_whose_live_index_is_another_is_lost(manager: AsyncRedisManager, raw: Any) -> None:
    upcoming = NextGeneration(manager, LIVE, "stub", 4)
    await upcoming.begin()
    raw.hset(KEYS.generation, "number", "5")

    with pytest.raises(RebuildLostError):
        await upcoming.copy(["a"])


async def test_read_that_was_under_way_is_not_believed_after_it_was_told_to_forget(
    manager: AsyncRedisManager, raw: Any
) -> None:
    generations = Generations(manager)
    client: Any = await manager.main()
    read, answered, may_arrive = client.hmget, asyncio.Event(), asyncio.Event()

    async def arrives_late(*arguments: Any) -> Any:
        reply = await read(*arguments)
        answered.set()
        await may_arrive.wait()
        return reply

    client.hmget = arrives_late
    try:
        early = asyncio.create_task(generations.current(NAMESPACE))
        await answered.wait()
        client.hmget = read
        raw.hset(KEYS.generation, "number", "2")

        generations.forget(NAMESPACE)
        late = asyncio.create_task(generations.current(NAMESPACE))
        await asyncio.sleep(0.05)
        may_arrive.set()

        await early
        assert (await late) == Generation(NAMESPACE, 2, "stub", 4)
        assert (await generations.current(NAMESPACE)) == Generation(NAMESPACE, 2, "stub", 4)
    finally:
        client.hmget = read
