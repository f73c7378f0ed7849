"""Versions of a fact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import FactNotFoundError
from knowledge_base.settings import Limits

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase


async def test_history_of_a_new_fact_is_its_current_version(stub_kb: KnowledgeBase) -> None:
    stored = await stub_kb.store_fact("first", {"n": 1}, tags=["a"], source="x")

    history = await stub_kb.get_fact_history(stored["fact_id"])

    fact = (await stub_kb.get_fact(stored["fact_id"]))[0]
    assert history == [
        {
            "version": 1,
            "content": "first",
            "metadata": {"n": 1},
            "tags": ["a"],
            "source": "x",
            "updated_at": fact["updated_at"],
        }
    ]


async def test_history_tells_each_version_newest_first(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("first", {"n": 1}, tags=["a"], source="x", fact_id="f")
    await stub_kb.update_fact("f", content="second")
    await stub_kb.update_fact("f", metadata={"n": 2}, tags=["b"])

    history = await stub_kb.get_fact_history("f")

    assert [(v["version"], v["content"], v["metadata"], v["tags"], v["source"]) for v in history] == [
        (3, "second", {"n": 2}, ["b"], "x"),
        (2, "second", {"n": 1}, ["a"], "x"),
        (1, "first", {"n": 1}, ["a"], "x"),
    ]
    assert history[0]["updated_at"] > history[1]["updated_at"] > history[2]["updated_at"]


async def test_history_keeps_the_current_version_and_twenty_before_it(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("words", {"n": 1}, fact_id="f")
    for number in range(2, 26):
        await stub_kb.update_fact("f", metadata={"n": number})

    history = await stub_kb.get_fact_history("f")

    assert [version["version"] for version in history] == list(range(25, 4, -1))
    assert [version["metadata"]["n"] for version in history] == list(range(25, 4, -1))


async def test_length_of_the_history_is_a_setting(open_kb: Any) -> None:
    kb = open_kb(limits=Limits(history=2))
    await kb.store_fact("words", {"n": 1}, fact_id="f")
    for number in range(2, 6):
        await kb.update_fact("f", metadata={"n": number})

    history = await kb.get_fact_history("f")

    assert [version["version"] for version in history] == [5, 4, 3]


async def test_refused_update_leaves_no_version(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("words", fact_id="f")
    with pytest.raises(ValueError, match="content"):
        await stub_kb.update_fact("f", content="")

    history = await stub_kb.get_fact_history("f")

    assert [version["version"] for version in history] == [1]


async def test_history_of_an_unknown_or_deleted_fact_is_refused(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("words", fact_id="f")
    await stub_kb.update_fact("f", content="other words")
    await stub_kb.delete_fact("f")

    for fact_id in ("f", "nobody"):
        with pytest.raises(FactNotFoundError):
            await stub_kb.get_fact_history(fact_id)


async def test_fact_stored_under_the_id_of_a_deleted_one_has_no_past(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("words", fact_id="f")
    await stub_kb.update_fact("f", content="other words")
    await stub_kb.delete_fact("f")
    await stub_kb.store_fact("new life", fact_id="f")

    history = await stub_kb.get_fact_history("f")

    assert [version["content"] for version in history] == ["new life"]
