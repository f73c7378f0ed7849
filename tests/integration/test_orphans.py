"""Vectors that nobody wants any more, and facts whose process has gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import Keyspace, PartName
from knowledge_base.settings import EmbeddingSettings
from tests.support.control import Control
from tests.support.facts import found, only
from tests.support.polling import eventually
from tests.support.server import RedisServer

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.embeddings import StubEmbedding

WITHIN = 60.0
LONG_CONTENT = "\n\n".join(f"Sentence {n} about walruses and ice." for n in range(120))


class Vectors:
    """Writes vectors as a thread does that its caller has given up, and looks at what is there."""

    def __init__(self, kb: KnowledgeBase, control: Control, namespace: str) -> None:
        self.keys = Keyspace(namespace)
        self.generation = Generation(namespace, 1, "stub", 32)
        self._kb = kb
        self._control = control

    async def come(self, fact_id: str, revision: str, passages: int = 1) -> None:
        """Lets the vectors of a revision come."""
        from knowledge_base.index.vector_index import EmbeddedPassage

        services = await self._kb._services.start()
        names = [PartName(fact_id, revision, at) for at in range(passages)]
        rows = [EmbeddedPassage(name, "text", [1.0] + [0.0] * 31) for name in names]
        await services.vectors.insert(self.generation, rows)

    def there(self) -> set[str]:
        """The node ids of all passages that have a vector."""
        prefix = f"{self.generation.passage_prefix}:"
        keys = [key for key in self._control.keys(self.keys.namespace) if key.startswith(prefix)]
        return {key.removeprefix(prefix) for key in keys if self._control.run("HEXISTS", key, "vector")}

    def inserts(self) -> dict[str, float]:
        """The inserts on record, by the time to look after them."""
        flat = self._control.run("ZRANGE", self.keys.inserts, 0, -1, "WITHSCORES")
        return {member.decode(): float(score) for member, score in zip(flat[::2], flat[1::2], strict=True)}

    def revision(self, fact_id: str) -> str:
        return str(self._control.run("HGET", self.keys.fact(fact_id), "revision").decode())

    def let_time_pass(self) -> None:
        """Makes every insert on record overdue."""
        for member in self.inserts():
            self._control.run("ZADD", self.keys.inserts, "XX", 1, member)


@pytest.fixture
def vectors(stub_kb: KnowledgeBase, control: Control, namespace: str) -> Vectors:
    return Vectors(stub_kb, control, namespace)


def nothing_on_record(vectors: Vectors) -> Callable[[], bool]:
    return lambda: vectors.inserts() == {}


async def test_nothing_is_on_record_when_all_is_indexed(stub_kb: KnowledgeBase, vectors: Vectors) -> None:
    await stub_kb.store_fact("penguins swim", fact_id="p")
    await stub_kb.store_fact(LONG_CONTENT, fact_id="l")
    after_stores = vectors.inserts()
    await stub_kb.store_facts({"content": f"puffin {n}"} for n in range(20))
    await stub_kb.store_fact("penguins swim")
    after_bulk = vectors.inserts()
    await stub_kb.update_fact("p", content="penguins dive")
    await stub_kb.update_fact("p", tags=["t"])
    after_updates = vectors.inserts()
    await stub_kb.delete_fact("l")

    assert (after_stores, after_bulk, after_updates, vectors.inserts()) == ({}, {}, {}, {})


async def test_nothing_is_on_record_when_the_background_has_caught_up(stub_kb: KnowledgeBase, vectors: Vectors) -> None:
    await stub_kb.store_fact("penguins swim", wait_indexed=False)

    await eventually(nothing_on_record(vectors), WITHIN)
    assert (await stub_kb.get_stats())["pending"] == 0


async def test_vectors_that_come_after_the_deletion_are_removed(
    stub_kb: KnowledgeBase, vectors: Vectors, stub_embedding: StubEmbedding
) -> None:
    await stub_kb.store_fact("walruses dive", fact_id="w")
    stub_embedding.become("failing")
    await stub_kb.store_fact("penguins swim", fact_id="p")
    revision = vectors.revision("p")
    await stub_kb.delete_fact("p")
    stub_embedding.become("well")

    await vectors.come("p", revision)
    came = vectors.there()
    hidden = await found(stub_kb, "penguins swim", mode="vector")
    vectors.let_time_pass()

    assert f"p:{revision}:0" in came
    assert hidden == ["w"]
    await eventually(nothing_on_record(vectors), WITHIN)
    assert vectors.there() == {f"w:{vectors.revision('w')}:0"}


async def test_vectors_that_come_for_a_superseded_revision_are_removed(
    stub_kb: KnowledgeBase, vectors: Vectors, stub_embedding: StubEmbedding
) -> None:
    await stub_kb.store_fact("walruses dive", fact_id="w")
    stub_embedding.become("failing")
    await stub_kb.store_fact(LONG_CONTENT, fact_id="p")
    old = vectors.revision("p")
    stub_embedding.become("well")
    await stub_kb.update_fact("p", content="puffins fly")

    await vectors.come("p", old, passages=int(old.rpartition("-")[2]))
    came = len(vectors.there())
    vectors.let_time_pass()

    assert came > 3
    await eventually(nothing_on_record(vectors), WITHIN)
    assert vectors.there() == {f"{fact_id}:{vectors.revision(fact_id)}:0" for fact_id in ("w", "p")}
    assert (await found(stub_kb, "puffins fly", mode="vector"))[0] == "p"


async def test_vectors_for_a_revision_that_lost_the_race_are_removed(stub_kb: KnowledgeBase, vectors: Vectors) -> None:
    await stub_kb.store_fact("penguins swim", fact_id="p")
    services = await stub_kb._services.start()
    await services.pending.expect(vectors.keys.namespace, "p", "2-abcdef-3")

    await vectors.come("p", "2-abcdef-3", passages=3)
    vectors.let_time_pass()

    await eventually(nothing_on_record(vectors), WITHIN)
    assert vectors.there() == {f"p:{vectors.revision('p')}:0"}


async def test_what_still_waits_is_kept_on_record_and_keeps_its_vectors(
    stub_kb: KnowledgeBase, vectors: Vectors, stub_embedding: StubEmbedding
) -> None:
    await stub_kb.store_fact("walruses dive", fact_id="w")
    stub_embedding.become("failing")
    await stub_kb.store_fact(LONG_CONTENT, fact_id="p")
    revision = vectors.revision("p")
    await vectors.come("p", revision, passages=2)
    vectors.let_time_pass()

    def looked_after() -> bool:
        return all(due > time.time() * 1000 for due in vectors.inserts().values())

    await eventually(looked_after, WITHIN)

    assert set(vectors.inserts()) == {f"p:{revision}"}
    assert {f"p:{revision}:0", f"p:{revision}:1"} < vectors.there()


async def test_one_fact_left_in_each_of_many_namespaces_is_completed_by_the_next_process(
    new_server: Callable[..., RedisServer], open_kb: Any, stub_embedding: StubEmbedding
) -> None:
    server = new_server().start()
    names = [f"tenant-{number:03d}" for number in range(300)]
    left = open_kb(redis_url=server.url, embedding=EmbeddingSettings(dimension=32))
    stub_embedding.become("failing")
    for name in names:
        await left.store_fact("penguins swim", fact_id="p", namespace=name)
    await left.close()
    stub_embedding.become("well")
    heir = open_kb(redis_url=server.url)
    beside = Control(server.url)
    before = sum(bool(beside.run("ZCARD", Keyspace(name).pending)) for name in names)

    await heir.start()

    def waiting() -> list[str]:
        return [name for name in names if beside.run("ZCARD", Keyspace(name).pending)]

    await eventually(lambda: not waiting(), WITHIN)
    beside.close()
    assert before == 300
    assert (await only(heir, "p", namespace=names[0]))["indexed"]
    assert await found(heir, "penguins", mode="vector", namespace=names[-1]) == ["p"]
