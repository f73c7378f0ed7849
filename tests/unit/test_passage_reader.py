"""Which passage of a hit is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import fakeredis
import pytest

from knowledge_base.connection.hashes import read_hash_groups
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.index.candidate import Candidate
from knowledge_base.index.namespace_languages import NamespaceLanguages
from knowledge_base.index.polyglot import Polyglot
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import PartName
from knowledge_base.retrieval.fusion import Ranked
from knowledge_base.retrieval.passage_reader import COMPARED_AT_ONCE, PassageReader

GENERATION = Generation("acme", 2, "stub", 4)


def ranked(fact_id: str, passages: int, *, version: int = 1, **positions: int) -> Ranked:
    revision = f"{version}-abc-{passages}"
    names = {retriever: PartName(fact_id, revision, position) for retriever, position in positions.items()}
    found = {retriever: Candidate(name.node_id, 1.0) for retriever, name in names.items()}
    return Ranked(fact_id, revision, 1.0, found)


@pytest.fixture
def redis(fake_server: fakeredis.FakeServer) -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis(server=fake_server, decode_responses=True)


class Reading:
    """Reads what a ``PassageReader`` asks for, and lets it choose."""

    def __init__(self, manager: AsyncRedisManager) -> None:
        self._manager = manager
        polyglot = Polyglot()
        self._reader = PassageReader(polyglot, NamespaceLanguages(manager, polyglot))

    async def read(self, generation: Generation, query: str, ranked: Sequence[Ranked]) -> list[tuple[int, str] | None]:
        (rows,) = await read_hash_groups(await self._manager.search(), [self._reader.hashes(generation, ranked)])
        return await self._reader.chosen(generation, query, ranked, rows)


@pytest.fixture
def reader(fake_manager: AsyncRedisManager) -> Reading:
    return Reading(fake_manager)


def write(redis: fakeredis.FakeRedis, fact_id: str, texts: Mapping[int, str], passages: int) -> None:
    for position, text in texts.items():
        redis.hset(f"{GENERATION.passage_prefix}:{fact_id}:1-abc-{passages}:{position}", "text", text)


async def test_passage_that_the_vectors_found_is_shown(reader: Reading, redis: fakeredis.FakeRedis) -> None:
    write(redis, "f1", {0: "lift and wings", 1: "something else"}, 2)

    assert await reader.read(GENERATION, "lift wings", [ranked("f1", 2, vector=1, text=0)]) == [(1, "something else")]


async def test_passage_with_most_words_of_the_query_is_shown_otherwise(
    reader: Reading, redis: fakeredis.FakeRedis
) -> None:
    write(redis, "f1", {0: "The lift.", 1: "The drag of the the the.", 2: "Lifting a wing.", 3: "wing wing wing"}, 4)

    assert await reader.read(GENERATION, "what lifts the wings", [ranked("f1", 4, text=0)]) == [(2, "Lifting a wing.")]


async def test_of_equally_good_passages_the_first_is_shown(reader: Reading, redis: fakeredis.FakeRedis) -> None:
    write(redis, "f1", {0: "drag", 1: "a wing", 2: "the wing"}, 3)

    assert await reader.read(GENERATION, "wing", [ranked("f1", 3, text=0)]) == [(1, "a wing")]


async def test_passages_of_the_section_that_was_found_are_looked_at(
    reader: Reading, redis: fakeredis.FakeRedis
) -> None:
    write(redis, "f1", {at: "wing" if at < 4 else f"drag {at}" for at in range(6)}, 6)

    assert await reader.read(GENERATION, "wing", [ranked("f1", 6, text=1)]) == [(4, "drag 4")]


async def test_what_is_gone_is_none_and_the_others_stay_in_order(reader: Reading, redis: fakeredis.FakeRedis) -> None:
    write(redis, "f2", {0: "second"}, 1)
    write(redis, "f3", {1: "left of the third"}, 2)

    found = await reader.read(
        GENERATION, "third", [ranked("f1", 1, vector=0), ranked("f2", 1, text=0), ranked("f3", 2, text=0)]
    )

    assert found == [None, (0, "second"), (1, "left of the third")]


async def test_passages_of_another_revision_are_not_shown(reader: Reading, redis: fakeredis.FakeRedis) -> None:
    write(redis, "f1", {0: "old"}, 1)

    assert await reader.read(GENERATION, "x", [ranked("f1", 1, version=2, vector=0)]) == [None]


async def test_nothing_ranked_is_nothing_read(reader: Reading) -> None:
    assert await reader.read(GENERATION, "x", []) == []


async def test_event_loop_gets_its_turn_between_comparisons(
    reader: Reading, redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = COMPARED_AT_ONCE
    for number in range(facts):
        write(redis, f"f{number}", {0: "wing", 1: "drag"}, 2)
    turns = 0

    async def turn(_: float) -> None:
        nonlocal turns
        turns += 1

    items = [ranked(f"f{number}", 2, text=0) for number in range(facts)]
    monkeypatch.setattr("knowledge_base.retrieval.passage_reader.asyncio", type("Loop", (), {"sleep": turn}))

    found = await reader.read(GENERATION, "drag", items)

    assert found == [(1, "drag")] * facts
    assert turns == 2
    assert asyncio.get_running_loop().is_running()
