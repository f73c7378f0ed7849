"""A search index built anew for the same model: everything is as it was, and nothing is left of the old one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import redis

from knowledge_base.errors import InvalidInputError, KnowledgeBaseError
from knowledge_base.keyspace import Keyspace
from tests.support.bookkeeping import Bookkeeping
from tests.support.control import Control
from tests.support.damage import FACTS
from tests.support.embedded import client_of
from tests.support.embeddings import StubEmbedding
from tests.support.facts import found, ids
from tests.support.many_facts import content, populate
from tests.support.polling import eventually
from tests.support.rebuilds import PATIENT, SHORT, generation_of, index_faults, leftovers

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

QUERIES = ("penguins swim", "walruses ice", "terns", "sentence 7 about walruses")
MODES: tuple[Any, ...] = ("text", "vector", "hybrid")
EVERYBODY = ["ann"]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with client_of(redis_url) as one:
        yield one


@pytest.fixture
async def zoo(open_kb: Any) -> KnowledgeBase:
    """A base with facts of every kind."""
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    for fact in FACTS:
        assert (await kb.store_fact(**fact))["indexed"]
    await kb.update_fact("q", content="penguins dive deep", tags=["sea", "deep"])
    return kb


async def answers(kb: KnowledgeBase) -> dict[str, Any]:
    """What searches find, with their scores, and what is told of the facts."""
    given: dict[str, Any] = {"stats": await kb.get_stats(), "facts": await kb.get_fact(principals=EVERYBODY)}
    for fact in FACTS:
        given[fact["fact_id"]] = await kb.get_fact_history(fact["fact_id"], principals=EVERYBODY)
    for mode in MODES:
        for query in QUERIES:
            for principals in (None, EVERYBODY):
                for filters in (None, {"tags": "sea"}, {"source": "book"}, {"metadata.colour": "black"}):
                    results = await kb.search(
                        query, 100, mode=mode, principals=principals, filters=filters, timeout=PATIENT
                    )
                    assert (results["degraded"], results["complete"]) == ([], True)
                    given[f"{mode} {query} {principals} {filters}"] = [
                        (hit["fact_id"], hit["content"], round(hit["score"], 5)) for hit in results["hits"]
                    ]
    return given


def without_scores(given: dict[str, Any]) -> dict[str, Any]:
    return {name: {hit[:2] for hit in value} if name.split()[0] in MODES else value for name, value in given.items()}


async def test_everything_is_found_as_before_and_the_model_is_asked_for_nothing(
    zoo: KnowledgeBase, client: redis.Redis, namespace: str, stub_embedding: StubEmbedding
) -> None:
    at_first = await answers(zoo)
    embedded = len(stub_embedding.texts)

    report = await zoo.rebuild_search_index()

    before = await answers(zoo)
    # The server goes on counting the words of what was changed, so only the scores of what was built anew are the same.
    assert without_scores(before) == without_scores(at_first)
    await zoo.rebuild_search_index()
    assert await answers(zoo) == before
    assert any(hits for name, hits in before.items() if name.startswith("vector"))
    assert len(stub_embedding.texts) == embedded
    assert index_faults(client, namespace, stub_embedding) == []
    assert generation_of(client, namespace)["number"] == "3"
    assert {name: report[name] for name in ("namespace", "generation", "replaced")} == {
        "namespace": namespace,
        "generation": 2,
        "replaced": 1,
    }
    assert (report["model"], report["dimension"]) == ("StubEmbedding:stub", stub_embedding.size)
    assert (report["facts"], report["embedded"], report["resumed"]) == (len(FACTS), 0, False)
    assert report["took_s"] > 0


async def test_nothing_is_left_of_the_old_index_and_of_the_rebuild(
    zoo: KnowledgeBase, client: redis.Redis, control: Control, namespace: str
) -> None:
    keys = Keyspace(namespace)
    others = {key for key in control.keys(namespace) if ":1:" not in key} - {keys.counters, keys.generation}

    await zoo.rebuild_search_index()

    assert leftovers(client, namespace) == []
    assert control.indexes(namespace) == {keys.text_index(2), keys.vector_index(2)}
    assert others <= control.keys(namespace)
    assert Bookkeeping(client, namespace).faults() == []


async def test_facts_expire_as_they_would_have(
    open_kb: Any, client: redis.Redis, namespace: str, stub_embedding: StubEmbedding
) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    await kb.store_fact("terns fly", fact_id="stays", expires_in=1_000.0)
    await kb.store_fact("terns dive", fact_id="ends", expires_in=4.0)

    await kb.rebuild_search_index()

    assert "stays" in await found(kb, "terns", mode="text", timeout=PATIENT)

    async def has_ended() -> bool:
        return await ids(kb) == {"stays"}

    await eventually(has_ended)
    assert await found(kb, "terns", mode="vector", timeout=PATIENT) == ["stays"]
    await eventually(lambda: index_faults(client, namespace, stub_embedding) == [])
    assert Bookkeeping(client, namespace).faults() == []


async def test_changes_go_on_in_the_new_index(
    zoo: KnowledgeBase, client: redis.Redis, namespace: str, stub_embedding: StubEmbedding
) -> None:
    await zoo.rebuild_search_index()

    await zoo.update_fact("w", content="walruses dance")
    await zoo.update_fact("long", tags=["new"])
    await zoo.delete_fact("q")
    await zoo.store_fact("puffins waddle", fact_id="puffin")

    assert await found(zoo, "walruses dance", mode="vector", top_k=1, timeout=PATIENT) == ["w"]
    assert await found(zoo, "walruses", mode="text", filters={"tags": "new"}, timeout=PATIENT) == ["long"]
    assert await found(zoo, "puffins waddle", top_k=1, timeout=PATIENT) == ["puffin"]
    assert index_faults(client, namespace, stub_embedding) == []
    assert Bookkeeping(client, namespace).faults() == []


async def test_documents_are_rebuilt_with_the_facts(
    open_kb: Any, client: redis.Redis, namespace: str, stub_embedding: StubEmbedding
) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    await kb.store_fact("terns fly", fact_id="a")
    text = "\n\n".join(f"# Part {n}\n\nSeals {n} rest on ice." for n in range(40))
    await kb.add_document(text, document_id="seals", tags=["cold"])
    await eventually(lambda: index_faults(client, namespace, stub_embedding) == [])
    before = await kb.retrieve_chunks_from_text("seals 7 rest", timeout=PATIENT)
    assert before
    embedded = len(stub_embedding.texts)

    report = await kb.rebuild_search_index()

    assert report["facts"] == 2
    assert len(stub_embedding.texts) == embedded
    assert index_faults(client, namespace, stub_embedding) == []
    await eventually(lambda: leftovers(client, namespace) == [])
    assert await kb.retrieve_chunks_from_text("seals 7 rest", timeout=PATIENT) == before
    await kb.add_document("# Gulls\n\nGulls shout.", document_id="seals")
    assert await found(kb, "gulls shout", top_k=1, timeout=PATIENT) == ["seals"]
    assert await found(kb, "seals", mode="text", timeout=PATIENT) == []
    await eventually(lambda: index_faults(client, namespace, stub_embedding) == [])


async def test_progress_is_told_up_to_the_total(open_kb: Any) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    await populate(kb, 450)
    told: list[tuple[int, int]] = []

    report = await kb.rebuild_search_index(progress=lambda done, total: told.append((done, total)))

    assert told[-1] == (450, 450)
    assert len(told) > 1
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {total for _, total in told} == {450}
    assert report["facts"] == 450


async def test_namespace_without_facts_has_nothing_to_rebuild(open_kb: Any, control: Control, namespace: str) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)

    report = await kb.rebuild_search_index()

    assert (report["generation"], report["replaced"], report["facts"]) == (None, None, 0)
    assert control.keys(namespace) == set()
    assert control.indexes(namespace) == set()


async def test_emptied_namespace_is_rebuilt(open_kb: Any, client: redis.Redis, namespace: str) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    await kb.store_fact("terns fly", fact_id="a")
    await kb.delete_fact("a")

    report = await kb.rebuild_search_index()

    assert (report["generation"], report["facts"]) == (2, 0)
    assert leftovers(client, namespace) == []
    await kb.store_fact("terns fly", fact_id="a")
    assert await found(kb, "terns", timeout=PATIENT) == ["a"]


async def test_only_the_named_namespace_is_rebuilt(
    open_kb: Any, client: redis.Redis, control: Control, namespace: str
) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    # A name that begins like the other, and facts whose ids look like parts of the old index.
    other = f"{namespace}:1"
    await kb.store_fact("terns fly", fact_id="passage:1:a")
    await kb.store_fact("terns dive", fact_id="1:1:1", tags=["x:1:"])
    await kb.store_fact("terns fly", fact_id="a", namespace=other)
    before = control.dump(other)

    await kb.rebuild_search_index()

    assert control.dump(other) == before
    assert control.indexes(other) == {Keyspace(other).text_index(1), Keyspace(other).vector_index(1)}
    assert await ids(kb) == {"passage:1:a", "1:1:1"}
    assert set(await found(kb, "terns", mode="text", timeout=PATIENT)) == {"passage:1:a", "1:1:1"}
    assert leftovers(client, namespace) == []


async def test_bad_arguments_are_refused_before_anything_is_done(
    open_kb: Any, control: Control, namespace: str
) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    await kb.store_fact("terns fly")
    before = control.keys(namespace)

    for arguments in ({"namespace": "no spaces"}, {"timeout": -1.0}):
        with pytest.raises(InvalidInputError):
            await kb.rebuild_search_index(**arguments)

    assert control.keys(namespace) == before


async def test_progress_that_fails_ends_the_rebuild_and_leaves_the_live_index(
    open_kb: Any, client: redis.Redis, namespace: str, stub_embedding: StubEmbedding
) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    await populate(kb, 10, with_vectors=False)

    def fail(done: int, total: int) -> None:
        raise RuntimeError("nobody looks")

    with pytest.raises(RuntimeError, match="nobody looks"):
        await kb.rebuild_search_index(progress=fail)

    assert generation_of(client, namespace)["number"] == "1"
    assert await found(kb, content(3), top_k=1, mode="text", timeout=PATIENT) == ["f3"]
    await eventually(lambda: leftovers(client, namespace) == [])
    assert (await kb.rebuild_search_index())["resumed"] is False


@pytest.mark.parametrize("dropped", ["text", "vector", "both"])
async def test_index_that_has_vanished_is_rebuilt(
    open_kb: Any, client: redis.Redis, namespace: str, stub_embedding: StubEmbedding, dropped: str
) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    await kb.store_fact("terns fly", fact_id="a")
    keys = Keyspace(namespace)
    names = {"text": [keys.text_index(1)], "vector": [keys.vector_index(1)]}
    for name in names.get(dropped, [*names["text"], *names["vector"]]):
        client.execute_command("FT.DROPINDEX", name)

    await kb.rebuild_search_index()

    for mode in ("text", "vector"):
        assert await found(kb, "terns fly", mode=mode, timeout=PATIENT) == ["a"]
    assert index_faults(client, namespace, stub_embedding) == []
    assert leftovers(client, namespace) == []


async def test_pending_and_parked_facts_stay_so_and_get_their_vectors_afterwards(
    open_kb: Any, client: redis.Redis, namespace: str, stub_embedding: StubEmbedding
) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    await kb.store_fact("terns fly", fact_id="well")
    stub_embedding.become("failing")
    await kb.store_fact("terns dive", fact_id="pending", wait_indexed=False)
    await kb.store_fact("terns rest", fact_id="parked", wait_indexed=False)
    keys = Keyspace(namespace)
    client.zrem(keys.pending, "parked")
    client.hset(keys.parked, "parked", '{"reason": "no", "attempts": 8, "since": "1"}')

    await kb.rebuild_search_index()

    stats = await kb.get_stats()
    assert (stats["pending"], stats["parked"]) == (1, 1)
    assert set(await found(kb, "terns", mode="text", timeout=PATIENT)) == {"well", "pending", "parked"}
    stub_embedding.become("well")
    await kb.check_integrity(repair=True)

    async def all_found() -> bool:
        try:
            return len(await found(kb, "terns", mode="vector", timeout=PATIENT)) == 3
        except KnowledgeBaseError:
            return False

    await eventually(all_found, 60.0)
    await eventually(lambda: Bookkeeping(client, namespace).faults() == [])
    assert index_faults(client, namespace, stub_embedding) == []


async def test_index_that_holds_what_no_fact_has_is_told_apart_and_repaired(
    open_kb: Any, client: redis.Redis, namespace: str, stub_embedding: StubEmbedding
) -> None:
    kb: KnowledgeBase = open_kb(timeouts=SHORT)
    await kb.store_fact("terns fly", fact_id="a")
    (passage,) = client.scan_iter(f"{Keyspace(namespace).passages(1)}:a:*")
    client.copy(passage, passage.replace(":a:", ":nobody:"))

    with pytest.raises(KnowledgeBaseError, match="1 passages instead of 2") as wanting:
        await kb.rebuild_search_index()

    assert "kb check --repair" in str(wanting.value)
    assert generation_of(client, namespace)["number"] == "1"
    assert await found(kb, "terns fly", mode="text", timeout=PATIENT) == ["a"]
    await kb.check_integrity(repair=True)
    await kb.rebuild_search_index()
    assert index_faults(client, namespace, stub_embedding) == []
    await eventually(lambda: leftovers(client, namespace) == [])
