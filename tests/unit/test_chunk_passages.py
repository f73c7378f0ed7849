"""Reading what chunks are made of."""

from __future__ import annotations

import array
from collections.abc import AsyncIterator

import fakeredis
import pytest

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.facts.repository import FactRepository
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import Keyspace, PartName
from knowledge_base.retrieval.chunk_candidates import StoredPassage
from knowledge_base.retrieval.chunk_passages import ChunkPassages, beside

GENERATION = Generation("acme", 2, "stub", 2)
VECTOR = array.array("f", [0.5, float("nan")]).tobytes()
FACT = {
    "content": "x",
    "metadata": "{}",
    "tags": "[]",
    "source": "",
    "document": "",
    "version": "1",
    "revision": "1-abc-3",
    "seq": "1",
    "created_at": "0",
    "updated_at": "0",
    "expires_at": "",
    "indexed": "1",
}


def name(position: int, fact_id: str = "f") -> PartName:
    return PartName(fact_id, "1-abc-3", position)


@pytest.fixture
def redis(fake_server: fakeredis.FakeServer) -> fakeredis.FakeRedis:
    client = fakeredis.FakeRedis(server=fake_server)
    for position in range(3):
        key = f"{GENERATION.passage_prefix}:f:1-abc-3:{position}"
        client.hset(key, mapping={"text": f"tëxt {position}", "vector": VECTOR})
    return client


@pytest.fixture
async def passages(fake_manager: AsyncRedisManager) -> AsyncIterator[ChunkPassages]:
    threads = WorkloadThreads("long requests", threads=1, waiting=1)
    yield ChunkPassages(fake_manager, FactRepository(fake_manager, threads, keep_history=1, lease=1.0))
    await threads.close(1.0)


@pytest.mark.usefixtures("redis")
async def test_vectors_come_as_bytes_and_texts_as_text(passages: ChunkPassages) -> None:
    found = await passages.stored(GENERATION, vectors={name(0), name(1)}, texts={name(1), name(2), name(0, "gone")})

    assert found == {
        name(0): StoredPassage(None, VECTOR),
        name(1): StoredPassage("tëxt 1", VECTOR),
        name(2): StoredPassage("tëxt 2", None),
        name(0, "gone"): StoredPassage(None, None),
    }


async def test_nothing_wanted_is_nothing_asked(passages: ChunkPassages) -> None:
    assert await passages.stored(GENERATION, vectors=set(), texts=set()) == {}


async def test_facts_come_with_their_passages_and_the_neighbours(
    passages: ChunkPassages, redis: fakeredis.FakeRedis
) -> None:
    redis.hset(Keyspace("acme").fact("f"), mapping={**FACT, "principals": "[]"})

    records, texts, _ = await passages.with_facts(GENERATION, [name(0), name(0, "gone")], [], neighbours=True)

    assert [record.revision for record in records.values()] == ["1-abc-3"]
    assert texts == {name(0): "tëxt 0", name(1): "tëxt 1"}


async def test_neighbours_are_read_only_when_they_are_wanted(
    passages: ChunkPassages, redis: fakeredis.FakeRedis
) -> None:
    redis.hset(Keyspace("acme").fact("f"), mapping={**FACT, "principals": "[]"})

    _, texts, _ = await passages.with_facts(GENERATION, [name(1)], [], neighbours=False)

    assert texts == {name(1): "tëxt 1"}


@pytest.mark.parametrize(("principals", "seen"), [([], False), (["group:ops"], False), (["user:ann"], True)])
async def test_fact_that_the_caller_may_not_see_is_not_there(
    passages: ChunkPassages, redis: fakeredis.FakeRedis, principals: list[str], seen: bool
) -> None:
    redis.hset(Keyspace("acme").fact("f"), mapping={**FACT, "principals": '["user:ann"]'})

    records, _, _ = await passages.with_facts(GENERATION, [name(1)], principals, neighbours=False)

    assert (set(records) == {"f"}) == seen


def test_only_passages_that_there_are_stand_beside_one() -> None:
    assert beside(name(0)) == [name(0), name(1)]
    assert beside(name(1)) == [name(0), name(1), name(2)]
    assert beside(name(2)) == [name(1), name(2)]
    assert beside(PartName("f", "1-abc-1", 0)) == [PartName("f", "1-abc-1", 0)]
