"""The integrity check of documents, whose parts are written before, and removed after, their record."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.support.damage import LATER, Damaged
from tests.support.facts import found
from tests.support.polling import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from knowledge_base import KnowledgeBase

WITHIN = 60.0
TEXT = "\n\n".join(f"# Chapter {n}\n\n" + "Walruses dive under the ice. " * 60 for n in range(6))

MENDED: dict[str, tuple[Callable[[Damaged], Any], dict[str, int]]] = {
    "a passage is gone": (lambda on: on.raw.delete(on.parts("d")[0]), {"missing_parts": 1}),
    "a passage is shown to others": (lambda on: on.raw.hset(on.parts("d")[1], "tags", "land"), {"wrong_labels": 1}),
    "a document is not listed": (lambda on: on.raw.zrem(on.keys.documents, "d"), {"unlisted": 1}),
    "a vector is gone": (lambda on: on.raw.hdel(on.parts("d")[1], "vector"), {"missing_vectors": 1}),
    "a vector is too long": (lambda on: on.raw.hset(on.parts("d")[1], "vector", b"1" * 999), {"wrong_vectors": 1}),
    "nobody is told to index it": (lambda on: on.raw.hset(on.keys.fact("d"), "indexed", "0"), {"forgotten": 1}),
    "a text of nobody": (lambda on: on.copy(on.keys.document("d"), "document:gone"), {"stray_history": 1}),
    "passages are miscounted": (lambda on: on.raw.hincrby(on.keys.counters, "passages", 3), {"wrong_counts": 1}),
    "it is pending no more": (lambda on: on.raw.zadd(on.keys.pending, {"gone": LATER}), {"stray_pending": 1}),
}


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    yield client
    client.close()


@pytest.fixture
def damaged(raw: redis.Redis, namespace: str) -> Damaged:
    return Damaged(raw, namespace)


@pytest.fixture
async def filled(stub_kb: KnowledgeBase) -> KnowledgeBase:
    await stub_kb.add_document(TEXT, document_id="d", tags=["sea"], metadata={"n": 1})
    await stub_kb.add_document(f"{TEXT}\n\nand more", document_id="d", tags=["sea"], metadata={"n": 1})
    await stub_kb.store_fact("walruses sleep", fact_id="w")
    await eventually(lambda: nothing_pending(stub_kb), WITHIN)
    return stub_kb


async def nothing_pending(kb: KnowledgeBase) -> bool:
    return (await kb.get_stats())["pending"] == 0


async def test_whole_documents_are_found_to_be_whole(filled: KnowledgeBase) -> None:
    report = await filled.check_integrity()

    assert (report["findings"], report["ok"]) == ({}, True)
    assert (report["facts"], report["documents"]) == (1, 1)


@pytest.mark.parametrize("what", MENDED)
async def test_damaged_document_is_mended(filled: KnowledgeBase, damaged: Damaged, what: str) -> None:
    damage, findings = MENDED[what]
    before = await filled.get_document("d")
    damage(damaged)

    checked = await filled.check_integrity()
    repaired = await filled.check_integrity(repair=True)
    await eventually(lambda: nothing_pending(filled), WITHIN)
    again = await filled.check_integrity(repair=True)

    assert (checked["findings"], checked["ok"]) == (findings, False)
    assert (repaired["findings"], repaired["ok"]) == (findings, True)
    assert (again["findings"], again["repaired"]) == ({}, 0)
    assert await filled.get_document("d") == before
    assert set(await found(filled, "walruses under the ice", mode="vector")) == {"d", "w"}


async def test_check_beside_changing_documents_finds_nothing(filled: KnowledgeBase) -> None:
    async def change(name: str) -> None:
        number = 0
        while True:
            number += 1
            await filled.add_document(f"{TEXT}\n\nversion {number}", document_id=name)
            if number % 3 == 0:
                await filled.delete_document(name)

    tasks = [asyncio.create_task(change(f"changing{n}")) for n in range(3)]
    reports = [await filled.check_integrity() for _ in range(5)]
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert [report["findings"] for report in reports] == [{}] * 5
