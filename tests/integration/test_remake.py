"""Parts of facts made anew from their content, under the same or another way of cutting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis

from knowledge_base.facts.remake import FactRemaker
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import Keyspace
from knowledge_base.settings import ChunkingSettings, EmbeddingSettings
from tests.support.bookkeeping import Bookkeeping, settles
from tests.support.facts import found, only
from tests.support.polling import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knowledge_base import KnowledgeBase
    from tests.support.embeddings import StubEmbedding

WITHIN = 60.0
LONG = "\n\n".join(f"Sentence {n} about walruses and ice." for n in range(120))
SHORTER = ChunkingSettings(passage_tokens=64, overlap_tokens=8)
FORGETFUL = EmbeddingSettings(cache_size=0)


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    yield client
    client.close()


async def remade(kb: KnowledgeBase, *fact_ids: str) -> list[str]:
    services = await kb._services.start()
    generation = await services.generations.current(kb.settings.namespace)
    assert generation is not None
    outcomes = await services.remaker.remake(generation, fact_ids)
    assert [one.fact_id for one in outcomes] == list(fact_ids)
    return [one.outcome for one in outcomes]


async def indexed(kb: KnowledgeBase, fact_id: str) -> None:
    async def check() -> bool:
        return bool((await only(kb, fact_id))["indexed"])

    await eventually(check, WITHIN)


def parts_of(raw: redis.Redis, namespace: str, fact_id: str, kind: str = "passage") -> list[str]:
    begin = f"{Keyspace(namespace).root}{kind}:1:{fact_id}:"
    return sorted(name for name in raw.scan_iter(f"kb:{{{namespace}}}:*", count=1_000) if name.startswith(begin))


def dump(raw: redis.Redis, namespace: str) -> dict[str, Any]:
    names = sorted(raw.scan_iter(f"kb:{{{namespace}}}:*", count=1_000))
    return {name: raw.execute_command("DUMP", name, NEVER_DECODE=True) for name in names}


async def test_whole_facts_stay_as_they_are(stub_kb: KnowledgeBase, raw: redis.Redis, namespace: str) -> None:
    await stub_kb.store_fact("penguins swim", {"colour": "black", "n": 1.5}, fact_id="p", tags=["b", "a"], source="zoo")
    await stub_kb.store_fact(LONG, fact_id="l", principals=["ann"], expires_in=1_000)
    before = dump(raw, namespace)

    outcomes = await remade(stub_kb, "p", "l", "nobody")

    assert outcomes == ["same", "same", "missing"]
    assert dump(raw, namespace) == before


async def test_lost_parts_come_back_under_the_same_version(
    stub_kb: KnowledgeBase, raw: redis.Redis, namespace: str
) -> None:
    await stub_kb.store_fact(LONG, fact_id="l", tags=["t"])
    whole = dump(raw, namespace)
    lost = [*parts_of(raw, namespace, "l")[1:3], *parts_of(raw, namespace, "l", "section")[:1]]
    raw.delete(*lost)

    outcomes = await remade(stub_kb, "l")
    await indexed(stub_kb, "l")

    assert outcomes == ["written"]
    assert (await only(stub_kb, "l"))["version"] == 1
    assert len(await stub_kb.get_fact_history("l")) == 1
    assert set(dump(raw, namespace)) == set(whole)
    assert await settles(raw, namespace, WITHIN) == []
    for mode in ("text", "vector"):
        assert await found(stub_kb, "walruses", mode=mode, filters={"tags": "t"}) == ["l"]


@pytest.fixture
def forgetful_kb(open_kb: Any) -> KnowledgeBase:
    """A base that embeds a text each time it is asked to."""
    one: KnowledgeBase = open_kb(embedding=FORGETFUL)
    return one


async def test_only_what_was_lost_is_embedded(
    forgetful_kb: KnowledgeBase, raw: redis.Redis, namespace: str, stub_embedding: StubEmbedding
) -> None:
    await forgetful_kb.store_fact(LONG, fact_id="l")
    one = parts_of(raw, namespace, "l")[1]
    text = raw.hget(one, "text")
    raw.delete(one)
    asked = len(stub_embedding.texts)

    await remade(forgetful_kb, "l")
    await indexed(forgetful_kb, "l")

    assert stub_embedding.texts[asked:] == [text]


async def test_parts_with_labels_of_others_get_their_own(
    stub_kb: KnowledgeBase, raw: redis.Redis, namespace: str
) -> None:
    await stub_kb.store_fact(LONG, fact_id="l", principals=["ann"], tags=["t"])
    before = dump(raw, namespace)
    for name in (*parts_of(raw, namespace, "l"), *parts_of(raw, namespace, "l", "section")):
        raw.hset(name, "principals", "*")
        raw.expire(name, 1_000)

    outcomes = await remade(stub_kb, "l")

    assert outcomes == ["written"]
    assert dump(raw, namespace) == before
    assert await found(stub_kb, "walruses", principals=["ann"]) == ["l"]


async def test_another_cut_switches_to_parts_of_another_name(
    stub_kb: KnowledgeBase, open_kb: Any, raw: redis.Redis, namespace: str
) -> None:
    await stub_kb.store_fact(LONG, fact_id="l", tags=["t"])
    await stub_kb.store_fact("penguins swim", fact_id="p")
    before = parts_of(raw, namespace, "l")
    other: KnowledgeBase = open_kb(chunking=SHORTER)

    outcomes = await remade(other, "l", "p")
    await indexed(other, "l")

    assert outcomes == ["switched", "same"]
    after = parts_of(raw, namespace, "l")
    assert len(after) > len(before)
    assert not set(before) & set(after)
    assert (await only(stub_kb, "l"))["version"] == 1
    assert len(await stub_kb.get_fact_history("l")) == 1
    assert await settles(raw, namespace, WITHIN) == []
    assert (await stub_kb.get_stats())["passages"] == len(after) + 1
    assert await remade(other, "l", "p") == ["same", "same"]


async def test_texts_that_stay_keep_their_vectors(
    forgetful_kb: KnowledgeBase, raw: redis.Redis, namespace: str, stub_embedding: StubEmbedding
) -> None:
    await forgetful_kb.store_fact(LONG, fact_id="l")
    before = parts_of(raw, namespace, "l")
    texts = {raw.hget(name, "text") for name in before}
    # As another cut would have left it.
    raw.hset(before[0], "text", "Sentence 0 about")
    raw.hset(before[0], "vector", "\x00" * 128)
    asked = len(stub_embedding.texts)

    outcomes = await remade(forgetful_kb, "l")
    await indexed(forgetful_kb, "l")

    assert outcomes == ["switched"]
    after = parts_of(raw, namespace, "l")
    assert {raw.hget(name, "text") for name in after} == texts
    assert [text in texts for text in stub_embedding.texts[asked:]] == [True]
    assert raw.execute_command("HGET", after[0], "vector", NEVER_DECODE=True) != b"\x00" * 128


async def test_what_is_updated_meanwhile_is_cut_as_it_is_then(
    stub_kb: KnowledgeBase, open_kb: Any, raw: redis.Redis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stub_kb.store_fact(LONG, fact_id="l")
    other: KnowledgeBase = open_kb(chunking=SHORTER)
    kept = FactRemaker._kept_vectors
    updates = ["penguins swim. " * 100]

    async def update_first(self: Any, generation: Generation, *arguments: Any) -> Any:
        if updates:
            await stub_kb.update_fact("l", content=updates.pop())
        return await kept(self, generation, *arguments)

    monkeypatch.setattr(FactRemaker, "_kept_vectors", update_first)

    outcomes = await remade(other, "l")
    await indexed(stub_kb, "l")

    assert outcomes == ["switched"]
    fact = await only(stub_kb, "l")
    assert (fact["version"], fact["content"].count("penguins")) == (2, 100)
    assert await settles(raw, namespace, WITHIN) == []


async def test_foreign_key_where_a_part_should_be_is_not_touched(
    stub_kb: KnowledgeBase, raw: redis.Redis, namespace: str
) -> None:
    await stub_kb.store_fact(LONG, fact_id="l")
    name = parts_of(raw, namespace, "l")[0]
    raw.delete(name)
    raw.set(name, "mine")
    before = dump(raw, namespace)

    outcomes = await remade(stub_kb, "l")

    assert outcomes == ["blocked"]
    assert dump(raw, namespace) == before


async def test_remaking_leaves_nothing_that_does_not_agree(
    stub_kb: KnowledgeBase, open_kb: Any, raw: redis.Redis, namespace: str
) -> None:
    await stub_kb.store_facts({"content": f"{n}. {LONG[: n * 400]}", "fact_id": f"f{n}"} for n in range(1, 12))
    other: KnowledgeBase = open_kb(chunking=SHORTER)

    await remade(other, *(f"f{n}" for n in range(1, 12)))

    assert await settles(raw, namespace, WITHIN) == []
    assert len(Bookkeeping(raw, namespace).facts) == 11
