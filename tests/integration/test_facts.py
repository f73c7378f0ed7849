"""Storing, reading, changing and deleting single facts."""

from __future__ import annotations

import asyncio
import copy
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import FactNotFoundError, InvalidInputError, VersionConflictError
from tests.support.facts import only

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase


async def test_stored_fact_comes_back_whole(stub_kb: KnowledgeBase, namespace: str) -> None:
    before = datetime.now(UTC)

    stored = await stub_kb.store_fact(
        "The Rhine is 1 233 km long.",
        {"lang": "en", "page": 7, "nested": {"deep": [1, None, True]}},
        tags=["rivers", "europe"],
        source="atlas",
    )
    fact = await only(stub_kb, stored["fact_id"])

    assert stored == {"status": "success", "fact_id": fact["id"], "version": 1, "indexed": True}
    assert fact["content"] == "The Rhine is 1 233 km long."
    assert fact["metadata"] == {"lang": "en", "page": 7, "nested": {"deep": [1, None, True]}}
    assert fact["tags"] == ["rivers", "europe"]
    assert fact["source"] == "atlas"
    assert fact["namespace"] == namespace
    assert fact["principals"] == []
    assert fact["version"] == 1
    assert fact["expires_at"] is None
    assert fact["indexed"] is True
    created = datetime.fromisoformat(fact["created_at"])
    assert created.utcoffset() == timedelta(0)
    assert before - timedelta(seconds=1) <= created <= datetime.now(UTC) + timedelta(seconds=1)
    assert fact["updated_at"] == fact["created_at"]
    json.dumps(fact)


async def test_fact_with_content_alone_has_empty_parts(stub_kb: KnowledgeBase) -> None:
    stored = await stub_kb.store_fact("plain")

    fact = await only(stub_kb, stored["fact_id"])

    assert (fact["metadata"], fact["tags"], fact["source"]) == ({}, [], None)


@pytest.mark.parametrize(
    "content",
    [
        "  spaces around stay  ",
        "line\nbreak\r\nand\ttab",
        "Ünïcödé 漢字 🦜 é e\u0301",
        '{"json": "inside"}',
        "x",
        "word " * 20_000,
        "{}[]@|~*:$\"'\\%",
        "🦜",
    ],
    ids=["spaces", "breaks", "unicode", "json", "short", "long", "operators", "emoji"],
)
async def test_content_is_kept_exactly(stub_kb: KnowledgeBase, content: str) -> None:
    stored = await stub_kb.store_fact(content)

    assert (await only(stub_kb, stored["fact_id"]))["content"] == content


async def test_labels_are_stripped_and_tags_deduplicated_in_order(stub_kb: KnowledgeBase) -> None:
    stored = await stub_kb.store_fact("labels", tags=[" b ", "a", "b", "a "], source=" web ", principals=[" user:ann "])

    fact = await only(stub_kb, stored["fact_id"], principals=["user:ann"])

    assert (fact["tags"], fact["source"], fact["principals"]) == (["b", "a"], "web", ["user:ann"])


async def test_id_is_made_or_taken_from_the_caller(stub_kb: KnowledgeBase) -> None:
    made = [(await stub_kb.store_fact(f"made {number}"))["fact_id"] for number in range(3)]
    given = "Doc:7_a.b-c" + "x" * 244

    taken = await stub_kb.store_fact("given", fact_id=given)

    assert len(set(made)) == 3
    assert all(made)
    assert taken["fact_id"] == given
    assert (await only(stub_kb, given))["content"] == "given"


async def test_metadata_given_is_not_shared_with_what_comes_back(stub_kb: KnowledgeBase) -> None:
    metadata: dict[str, Any] = {"list": [1, {"k": "v"}], "none": None}
    tags = ["b", "a", "b"]
    principals = ["user:bob", "user:ann"]
    given = copy.deepcopy((metadata, tags, principals))

    stored = await stub_kb.store_fact("not mutated", metadata, tags=tags, principals=principals)
    fact = await only(stub_kb, stored["fact_id"], principals=principals)
    fact["metadata"]["list"].append("mine")
    await stub_kb.update_fact(stored["fact_id"], metadata=metadata, tags=tags, principals=principals)
    await stub_kb.get_fact(filters={"tags": tags, "metadata.none": None}, principals=principals)

    assert (metadata, tags, principals) == given
    assert (await only(stub_kb, stored["fact_id"], principals=principals))["metadata"] == given[0]


async def test_filters_given_are_not_mutated(stub_kb: KnowledgeBase) -> None:
    filters = {
        "and": [{"tags": ["a"]}, {"not": {"source": {"in": ["x"]}}}],
        "created_at": {"gte": "2020-01-01T00:00:00+00:00"},
    }
    given = copy.deepcopy(filters)

    await stub_kb.search("anything", filters=filters)
    await stub_kb.delete_facts(filters, dry_run=True)

    assert filters == given


async def test_bulk_items_given_are_not_mutated(stub_kb: KnowledgeBase) -> None:
    items: list[dict[str, Any]] = [{"content": "one", "metadata": {"k": [1]}, "tags": ["b", "a", "b"]}]
    given = copy.deepcopy(items)

    await stub_kb.store_facts(items)

    assert items == given


async def test_unknown_id_gives_an_empty_list(stub_kb: KnowledgeBase) -> None:
    assert await stub_kb.get_fact("nobody") == []


async def test_update_changes_only_what_is_given(stub_kb: KnowledgeBase) -> None:
    stored = await stub_kb.store_fact("words", {"n": 1}, tags=["a"], source="x")

    updated = await stub_kb.update_fact(stored["fact_id"], tags=["b"])

    assert updated == await only(stub_kb, stored["fact_id"])
    assert (updated["content"], updated["metadata"], updated["tags"], updated["source"]) == (
        "words",
        {"n": 1},
        ["b"],
        "x",
    )
    assert updated["version"] == 2
    assert updated["updated_at"] > updated["created_at"]


async def test_update_can_empty_metadata_and_tags(stub_kb: KnowledgeBase) -> None:
    stored = await stub_kb.store_fact("words", {"n": 1}, tags=["a"])

    updated = await stub_kb.update_fact(stored["fact_id"], metadata={}, tags=[])

    assert (updated["metadata"], updated["tags"]) == ({}, [])


async def test_update_with_nothing_to_change_is_refused(stub_kb: KnowledgeBase) -> None:
    stored = await stub_kb.store_fact("words")

    with pytest.raises(InvalidInputError):
        await stub_kb.update_fact(stored["fact_id"])

    assert (await only(stub_kb, stored["fact_id"]))["version"] == 1


async def test_update_of_an_unknown_fact_names_it(stub_kb: KnowledgeBase, namespace: str) -> None:
    with pytest.raises(FactNotFoundError) as missing:
        await stub_kb.update_fact("nobody", content="x")

    assert (missing.value.fact_id, missing.value.namespace) == ("nobody", namespace)


async def test_update_from_a_stale_version_conflicts(stub_kb: KnowledgeBase) -> None:
    stored = await stub_kb.store_fact("words")
    await stub_kb.update_fact(stored["fact_id"], metadata={"by": "first"}, expected_version=1)

    with pytest.raises(VersionConflictError) as conflict:
        await stub_kb.update_fact(stored["fact_id"], content="late words", expected_version=1)

    assert (conflict.value.expected, conflict.value.found) == (1, 2)
    fact = await only(stub_kb, stored["fact_id"])
    assert (fact["metadata"], fact["content"], fact["version"]) == ({"by": "first"}, "words", 2)


async def test_update_to_the_content_of_another_fact_conflicts(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("words of one", fact_id="one")
    await stub_kb.store_fact("words of two", fact_id="two")

    with pytest.raises(VersionConflictError) as conflict:
        await stub_kb.update_fact("two", content="words of one")

    assert conflict.value.fact_id == "one"
    assert (await only(stub_kb, "two"))["content"] == "words of two"


@pytest.mark.parametrize("change", ["metadata", "content"])
async def test_concurrent_increments_lose_no_update(stub_kb: KnowledgeBase, change: str) -> None:
    await stub_kb.store_fact("count 0", {"count": 0}, fact_id="counter")

    async def increment() -> None:
        while True:
            fact = await only(stub_kb, "counter")
            count = fact["metadata"]["count"] + 1
            content = f"count {count}" if change == "content" else None
            try:
                await stub_kb.update_fact(
                    "counter", content=content, metadata={"count": count}, expected_version=fact["version"]
                )
            except VersionConflictError:
                continue
            return

    await asyncio.gather(*(increment() for _ in range(20)))

    fact = await only(stub_kb, "counter")
    assert (fact["metadata"]["count"], fact["version"]) == (20, 21)
    assert fact["content"] == ("count 20" if change == "content" else "count 0")


async def test_delete_says_whether_there_was_something(stub_kb: KnowledgeBase) -> None:
    stored = await stub_kb.store_fact("words to forget")

    first = await stub_kb.delete_fact(stored["fact_id"])
    second = await stub_kb.delete_fact(stored["fact_id"])

    assert (first, second) == (True, False)
    assert await stub_kb.get_fact(stored["fact_id"]) == []
    assert await stub_kb.get_fact() == []
    for mode in ("hybrid", "vector", "text"):
        assert (await stub_kb.search("words to forget", mode=mode))["hits"] == []


async def test_delete_from_a_stale_version_conflicts(stub_kb: KnowledgeBase) -> None:
    stored = await stub_kb.store_fact("words")
    await stub_kb.update_fact(stored["fact_id"], metadata={"n": 1})

    with pytest.raises(VersionConflictError) as conflict:
        await stub_kb.delete_fact(stored["fact_id"], expected_version=1)

    assert (conflict.value.expected, conflict.value.found) == (1, 2)
    assert await stub_kb.get_fact(stored["fact_id"]) != []
    assert await stub_kb.delete_fact(stored["fact_id"], expected_version=2) is True


async def test_deleted_fact_leaves_no_key_but_counters_and_index(
    stub_kb: KnowledgeBase, namespace: str, control: Any
) -> None:
    stored = await stub_kb.store_fact("a long word " * 400, {"k": "v"}, tags=["t"], source="s", fact_id="gone")
    await stub_kb.update_fact(stored["fact_id"], content="another word " * 400)

    await stub_kb.delete_fact("gone")

    assert [key for key in control.keys(namespace) if "gone" in key or ":passage" in key or ":fact:" in key] == []


async def test_get_lists_newest_first_with_limit_and_offset(stub_kb: KnowledgeBase) -> None:
    ids = [(await stub_kb.store_fact(f"number {n}"))["fact_id"] for n in range(7)]
    newest_first = ids[::-1]

    pages = [await stub_kb.get_fact(limit=3, offset=offset) for offset in (0, 3, 6, 9)]

    assert [[fact["id"] for fact in page] for page in pages] == [
        newest_first[:3],
        newest_first[3:6],
        newest_first[6:],
        [],
    ]
    assert [fact["id"] for fact in await stub_kb.get_fact()] == newest_first


@pytest.mark.parametrize("query", [None, "number"])
@pytest.mark.parametrize("offset", [3, 1_000, 999_999, 1_000_000])
async def test_offset_beyond_the_end_finds_nothing(stub_kb: KnowledgeBase, query: str | None, offset: int) -> None:
    for number in range(3):
        await stub_kb.store_fact(f"number {number}")

    assert len(await stub_kb.get_fact(query=query, offset=2, limit=1_000)) == 1
    assert await stub_kb.get_fact(query=query, offset=offset, limit=1_000) == []
    assert await stub_kb.get_fact(query=query, offset=offset, limit=1, filters={"not": {"tags": "x"}}) == []


async def test_update_does_not_make_a_fact_new(stub_kb: KnowledgeBase) -> None:
    ids = [(await stub_kb.store_fact(f"number {n}"))["fact_id"] for n in range(3)]

    await stub_kb.update_fact(ids[0], content="number zero")

    assert [fact["id"] for fact in await stub_kb.get_fact()] == ids[::-1]


async def test_get_by_query_gives_the_best_first(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("parrots eat seeds and fruit and many other things besides", fact_id="weak")
    await stub_kb.store_fact("parrots, parrots: nothing but parrots", fact_id="strong")
    await stub_kb.store_fact("cats sleep", fact_id="none")

    facts = await stub_kb.get_fact(query="parrots")

    assert [fact["id"] for fact in facts] == ["strong", "weak"]
    assert facts[0]["content"] == "parrots, parrots: nothing but parrots"
    assert [fact["id"] for fact in await stub_kb.get_fact(query="parrots", limit=1, offset=1)] == ["weak"]
    assert await stub_kb.get_fact(query="zebra") == []


async def test_get_by_id_and_query_together_is_refused(stub_kb: KnowledgeBase) -> None:
    with pytest.raises(InvalidInputError):
        await stub_kb.get_fact("f", "words")


async def test_acknowledged_fact_is_seen_by_another_knowledge_base(stub_kb: KnowledgeBase, open_kb: Any) -> None:
    stored = await stub_kb.store_fact("shared words")
    other = open_kb()

    facts = await other.get_fact(stored["fact_id"])
    found = await other.search("shared words")

    assert [fact["content"] for fact in facts] == ["shared words"]
    assert [hit["fact_id"] for hit in found["hits"]] == [stored["fact_id"]]
