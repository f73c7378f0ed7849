"""One text is one fact, however often and by however many it is stored."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from knowledge_base.errors import VersionConflictError
from tests.support.facts import only

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase


async def test_second_store_of_a_text_is_a_duplicate(stub_kb: KnowledgeBase) -> None:
    first = await stub_kb.store_fact("once", {"n": 1}, tags=["a"])

    second = await stub_kb.store_fact("once", {"n": 2}, tags=["b"])

    assert second == {"status": "duplicate", "fact_id": first["fact_id"], "version": 1, "indexed": True}
    fact = await only(stub_kb, first["fact_id"])
    assert (fact["metadata"], fact["tags"], fact["version"]) == ({"n": 1}, ["a"], 1)


@pytest.mark.parametrize("other", ["Once", "once ", " once", "once."])
async def test_only_exactly_equal_text_is_a_duplicate(stub_kb: KnowledgeBase, other: str) -> None:
    first = await stub_kb.store_fact("once")

    second = await stub_kb.store_fact(other)

    assert second["status"] == "success"
    assert second["fact_id"] != first["fact_id"]


async def test_fifty_concurrent_stores_of_one_text_make_one_fact(stub_kb: KnowledgeBase) -> None:
    results = await asyncio.gather(*(stub_kb.store_fact("the same words") for _ in range(50)))

    assert Counter(result["status"] for result in results) == {"success": 1, "duplicate": 49}
    assert len({result["fact_id"] for result in results}) == 1
    assert len(await stub_kb.get_fact()) == 1
    assert (await stub_kb.get_stats())["facts"] == 1


async def test_fifty_concurrent_stores_under_ids_of_their_own_make_one_fact(stub_kb: KnowledgeBase) -> None:
    results = await asyncio.gather(*(stub_kb.store_fact("one text", fact_id=f"id-{n}") for n in range(50)))

    assert Counter(result["status"] for result in results) == {"success": 1, "duplicate": 49}
    assert [fact["id"] for fact in await stub_kb.get_fact()] == list({result["fact_id"] for result in results})


async def test_text_may_be_stored_again_after_its_fact_was_deleted(stub_kb: KnowledgeBase) -> None:
    first = await stub_kb.store_fact("again")
    await stub_kb.delete_fact(first["fact_id"])

    second = await stub_kb.store_fact("again")

    assert second["status"] == "success"


async def test_text_may_be_stored_again_after_its_fact_got_another(stub_kb: KnowledgeBase) -> None:
    first = await stub_kb.store_fact("old text")
    await stub_kb.update_fact(first["fact_id"], content="new text")

    again = await stub_kb.store_fact("old text")
    duplicate = await stub_kb.store_fact("new text")

    assert again["status"] == "success"
    assert (duplicate["status"], duplicate["fact_id"]) == ("duplicate", first["fact_id"])


async def test_on_duplicate_update_replaces_what_is_said_about_it(stub_kb: KnowledgeBase) -> None:
    first = await stub_kb.store_fact("kept", {"n": 1, "gone": True}, tags=["a"], source="x")

    second = await stub_kb.store_fact("kept", {"n": 2}, tags=["b"], source="y", on_duplicate="update")

    fact = await only(stub_kb, first["fact_id"])
    assert (second["status"], second["fact_id"], second["version"]) == ("success", first["fact_id"], 2)
    assert (fact["metadata"], fact["tags"], fact["source"], fact["version"]) == ({"n": 2}, ["b"], "y", 2)


async def test_on_duplicate_update_with_an_id_replaces_the_content(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("first words", fact_id="f")

    result = await stub_kb.store_fact("second words", fact_id="f", on_duplicate="update")

    fact = await only(stub_kb, "f")
    assert (result["status"], result["version"]) == ("success", 2)
    assert (fact["content"], fact["version"]) == ("second words", 2)


async def test_on_duplicate_error_names_the_version_found(stub_kb: KnowledgeBase) -> None:
    first = await stub_kb.store_fact("taken")
    await stub_kb.update_fact(first["fact_id"], metadata={"n": 1})

    with pytest.raises(VersionConflictError) as conflict:
        await stub_kb.store_fact("taken", on_duplicate="error")

    assert (conflict.value.fact_id, conflict.value.expected, conflict.value.found) == (first["fact_id"], 0, 2)


async def test_id_in_use_for_other_content_is_a_conflict(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("first words", fact_id="f")

    with pytest.raises(VersionConflictError) as conflict:
        await stub_kb.store_fact("second words", fact_id="f")

    assert (conflict.value.fact_id, conflict.value.expected, conflict.value.found) == ("f", 0, 1)
    assert (await only(stub_kb, "f"))["content"] == "first words"
    assert (await stub_kb.get_stats())["facts"] == 1
