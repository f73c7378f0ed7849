"""Whole facts that are written as they were elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.facts.restore import OnConflict, Restored, WholeFact
from tests.support.facts import found
from tests.support.hashed_words import unit_vector
from tests.support.many_facts import populate
from tests.support.polling import eventually

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.conftest import OpenKnowledgeBase
    from tests.support.control import Control

TIME = 1_700_000_000_123
UNLABELLED = {"metadata": "{}", "tags": "[]", "source": ""}
HISTORY = [
    json.dumps({"version": "2", "content": "second", **UNLABELLED, "updated_at": "1699999999000"}),
    json.dumps({"version": "1", "content": "first", **UNLABELLED, "updated_at": "1699999998000"}),
]


async def whole(kb: KnowledgeBase, content: str = "a whole penguin", **changes: Any) -> WholeFact:
    services = await kb._services.start()
    plain = {"metadata": {"n": {"deep": [1, 2.5]}}, "tags": ["bird"], "source": "zoo", "principals": []}
    described = plain | {name: changes.pop(name) for name in plain if name in changes}
    parts = await services.parts.make("n", content, *described.values())
    fact = WholeFact(
        "w1", content, **described, version=3, created_at=TIME - 5, updated_at=TIME, expires_at=None, history=HISTORY,
        parts=parts,
    )  # fmt: skip
    return fact._replace(**changes)


async def restore(kb: KnowledgeBase, *entries: WholeFact, mode: OnConflict = "skip") -> list[str]:
    services = await kb._services.start()
    generation = await services.indexer.generation(kb.settings.namespace)
    outcomes = await services.restorer.restore(generation, entries, on_conflict=mode)
    assert all(isinstance(outcome, Restored) for outcome in outcomes), outcomes
    return [outcome.status for outcome in outcomes if isinstance(outcome, Restored)]


def vectors_of(fact: WholeFact, size: int = 32) -> list[bytes]:
    import numpy as np

    return [np.array(unit_vector(text, size), dtype=np.float32).tobytes() for text in fact.parts.passages]


async def test_fact_comes_back_with_id_version_times_history_and_labels(stub_kb: KnowledgeBase) -> None:
    fact = await whole(stub_kb)

    assert await restore(stub_kb, fact) == ["restored"]

    (got,) = await stub_kb.get_fact("w1")
    assert got["content"] == "a whole penguin"
    assert (got["version"], got["metadata"], got["tags"], got["source"]) == (3, fact.metadata, ["bird"], "zoo")
    assert (got["created_at"], got["updated_at"]) == ("2023-11-14T22:13:20.118+00:00", "2023-11-14T22:13:20.123+00:00")
    assert [version["content"] for version in await stub_kb.get_fact_history("w1")] == [
        "a whole penguin", "second", "first",
    ]  # fmt: skip
    assert await found(stub_kb, "penguin", mode="text", filters={"tags": ["bird"], "metadata.n.deep": 2.5}) == ["w1"]
    assert (await stub_kb.get_detailed_stats())["tags"] == {"bird": 1}


async def test_vectors_come_along_and_nothing_waits_for_the_model(stub_kb: KnowledgeBase, stub_embedding: Any) -> None:
    fact = await whole(stub_kb)

    assert await restore(stub_kb, fact._replace(vectors=vectors_of(fact))) == ["restored"]

    assert (await stub_kb.get_stats())["pending"] == 0
    assert (await stub_kb.get_fact("w1"))[0]["indexed"]
    assert await found(stub_kb, "whole penguin", mode="vector") == ["w1"]
    assert fact.content not in stub_embedding.texts


async def test_long_fact_gets_its_vectors_one_by_one(stub_kb: KnowledgeBase, stub_embedding: Any) -> None:
    content = " ".join(f"Sentence number {n} tells of penguin {n}." for n in range(900))
    fact = await whole(stub_kb, content)
    assert len(fact.parts.passages) > 20

    assert await restore(stub_kb, fact._replace(vectors=vectors_of(fact))) == ["restored"]

    assert (await stub_kb.get_fact("w1"))[0]["indexed"]
    assert (await stub_kb.get_stats())["pending"] == 0
    assert not set(fact.parts.passages) & set(stub_embedding.texts)


async def test_fact_without_vectors_gets_them_from_the_background(stub_kb: KnowledgeBase) -> None:
    services = await stub_kb._services.start()

    await restore(stub_kb, await whole(stub_kb))
    services.background.leave(stub_kb.settings.namespace, ["w1"])

    await eventually(lambda: _is_indexed(stub_kb, "w1"))


@pytest.mark.parametrize(
    ("mode", "updated_at", "version", "status"),
    [
        ("skip", TIME + 1, 9, "kept"),
        ("error", TIME + 1, 9, "conflict"),
        ("overwrite", TIME - 1, 1, "replaced"),
        ("newer", TIME + 1, 1, "replaced"),
        ("newer", TIME, 4, "replaced"),
        ("newer", TIME, 3, "kept"),
        ("newer", TIME - 1, 9, "kept"),
    ],
)
async def test_taken_id_is_treated_as_asked_for(
    stub_kb: KnowledgeBase, mode: OnConflict, updated_at: int, version: int, status: str
) -> None:
    await restore(stub_kb, await whole(stub_kb))
    other = await whole(stub_kb, "another walrus", tags=["mammal"], updated_at=updated_at, version=version, history=[])

    assert await restore(stub_kb, other, mode=mode) == [status]

    written = status == "replaced"
    (got,) = await stub_kb.get_fact("w1")
    assert got["content"] == ("another walrus" if written else "a whole penguin")
    assert got["version"] == (version if written else 3)
    assert len(await stub_kb.get_fact_history("w1")) == (1 if written else 3)
    assert await found(stub_kb, "penguin", mode="text") == ([] if written else ["w1"])
    stats = await stub_kb.get_detailed_stats()
    assert (stats["facts"], stats["passages"]) == (1, 1)
    assert stats["tags"] == ({"mammal": 1} if written else {"bird": 1})


@pytest.mark.parametrize("mode", ["skip", "overwrite", "newer", "error"])
async def test_same_fact_once_more_changes_nothing(stub_kb: KnowledgeBase, control: Control, mode: OnConflict) -> None:
    fact = await whole(stub_kb)
    fact = fact._replace(vectors=vectors_of(fact))
    await restore(stub_kb, fact)
    before = control.dump(stub_kb.settings.namespace)

    assert await restore(stub_kb, fact, mode=mode) == ["same"]

    assert control.dump(stub_kb.settings.namespace) == before


async def test_content_that_another_fact_has_is_never_there_twice(stub_kb: KnowledgeBase) -> None:
    await restore(stub_kb, await whole(stub_kb))
    await restore(stub_kb, await whole(stub_kb, "something else", fact_id="w2"))

    copies = [await whole(stub_kb, fact_id="w3"), await whole(stub_kb, fact_id="w2", version=8)]

    assert await restore(stub_kb, *copies, mode="overwrite") == ["duplicate", "duplicate"]
    assert (await stub_kb.get_stats())["facts"] == 2
    assert (await stub_kb.get_fact("w2"))[0]["content"] == "something else"


async def test_expiry_is_kept_and_what_is_over_is_not_written(stub_kb: KnowledgeBase, control: Control) -> None:
    late = 4_000_000_000_000
    entries = [await whole(stub_kb, expires_at=late), await whole(stub_kb, "over", fact_id="w2", expires_at=1)]

    assert await restore(stub_kb, *entries) == ["restored", "expired"]

    assert (await stub_kb.get_fact("w1"))[0]["expires_at"] == "2096-10-02T07:06:40.000+00:00"
    passages = [key for key in control.keys(stub_kb.settings.namespace) if ":passage:" in key]
    assert [control.run("PEXPIRETIME", key) for key in passages] == [late]


async def test_principals_are_kept(stub_kb: KnowledgeBase) -> None:
    await restore(stub_kb, await whole(stub_kb, principals=["user:ann"]))

    assert await stub_kb.get_fact("w1") == []
    assert len(await stub_kb.get_fact("w1", principals=["user:ann"])) == 1


async def test_replaced_fact_keeps_its_place_among_all(stub_kb: KnowledgeBase) -> None:
    for at in (1, 2, 3):
        await restore(stub_kb, await whole(stub_kb, f"content {at}", fact_id=f"w{at}"))

    await restore(stub_kb, await whole(stub_kb, "new content", fact_id="w1", version=8), mode="overwrite")

    assert [fact["id"] async for fact in stub_kb.iter_facts()] == ["w1", "w2", "w3"]


async def test_populated_base_is_searched_like_any_other(open_kb: OpenKnowledgeBase) -> None:
    kb = open_kb()

    stored = await populate(kb, 300, tags=["many"], metadata=lambda number: {"number": number})

    assert stored == [f"f{number}" for number in range(300)]
    stats = await kb.get_stats()
    assert (stats["facts"], stats["passages"], stats["pending"]) == (300, 300, 0)
    assert await found(kb, "fact 77", mode="text", filters={"metadata.number": 77}) == ["f77"]
    assert len(await found(kb, "anything", mode="vector", top_k=300)) == 300


async def _is_indexed(kb: KnowledgeBase, fact_id: str) -> bool:
    return (await kb.get_fact(fact_id))[0]["indexed"]
