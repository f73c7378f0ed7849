"""Indices that vanish under a running base: made anew, and searched by nobody before they are whole."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import UnavailableError
from tests.support.control import Control
from tests.support.facts import found

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

FACTS = 400
READERS = 60
PATIENT_TRIES = 5
"""A busy machine may need longer to fill an index than one search waits for it."""


def drop_indices(control: Control, namespace: str) -> None:
    for name in control.indexes(namespace):
        control.run("FT.DROPINDEX", name)


async def fill(kb: KnowledgeBase) -> None:
    await kb.store_facts({"content": f"penguin {n}", "fact_id": f"p{n}", "tags": ["bird"]} for n in range(FACTS))


@pytest.fixture
async def filled(stub_kb: KnowledgeBase) -> KnowledgeBase:
    await fill(stub_kb)
    return stub_kb


async def test_no_reader_takes_half_an_index_for_the_whole(
    filled: KnowledgeBase, control: Control, namespace: str
) -> None:
    drop_indices(control, namespace)

    pages = await asyncio.gather(*(filled.get_fact(filters={"tags": "bird"}, limit=1_000) for _ in range(READERS)))
    dry_runs = await asyncio.gather(*(filled.delete_facts({"tags": "bird"}, dry_run=True) for _ in range(4)))

    assert {len(page) for page in pages} == {FACTS}
    assert {result["succeeded"] for result in dry_runs} == {FACTS}


@pytest.mark.parametrize("mode", ["text", "vector", "hybrid"])
async def test_search_finds_everything_again(
    filled: KnowledgeBase, control: Control, namespace: str, mode: Any
) -> None:
    drop_indices(control, namespace)

    answers = await asyncio.gather(*(found(filled, "penguin", mode=mode, top_k=FACTS) for _ in range(8)))

    assert {len(answer) for answer in answers} == {FACTS}


async def test_every_process_goes_over_to_the_new_indices_and_the_old_are_gone(
    filled: KnowledgeBase, open_kb: Any, control: Control, namespace: str
) -> None:
    other: KnowledgeBase = open_kb()
    assert len(await found(other, "penguin", mode="text", top_k=FACTS)) == FACTS
    # One of the two only: the other one, which is left, must not stay behind.
    control.run("FT.DROPINDEX", f"kb:{{{namespace}}}:index:1")

    async def patiently(kb: KnowledgeBase, mode: Any) -> list[str]:
        for _ in range(PATIENT_TRIES):
            with contextlib.suppress(UnavailableError):
                return await found(kb, "penguin", mode=mode, top_k=FACTS)
        return await found(kb, "penguin", mode=mode, top_k=FACTS)

    modes: tuple[Any, ...] = ("text", "vector")
    answers = await asyncio.gather(*(patiently(kb, mode) for kb in (filled, other) for mode in modes))

    assert [len(answer) for answer in answers] == [FACTS] * 4
    assert control.indexes(namespace) == {f"kb:{{{namespace}}}:index:1.2", f"kb:{{{namespace}}}:vectors:1.2"}
    for kb in (filled, other):
        assert (await kb.get_detailed_stats())["index_name"] == f"kb:{{{namespace}}}:index:1.2"


async def test_what_is_stored_after_it_is_found(filled: KnowledgeBase, control: Control, namespace: str) -> None:
    drop_indices(control, namespace)
    await found(filled, "penguin")

    await filled.store_fact("a walrus dives", fact_id="w")
    await filled.update_fact("p0", content="a puffin flies")

    for mode in ("text", "vector"):
        assert "w" in await found(filled, "a walrus dives", mode=mode, top_k=FACTS)
        assert "p0" in await found(filled, "a puffin flies", mode=mode, top_k=FACTS)


async def test_emptied_server_has_nothing_to_find(new_server: Any, open_kb: Any) -> None:
    server = new_server().start()
    kb: KnowledgeBase = open_kb(redis_url=server.url)
    await kb.store_fact("penguins swim")
    beside = Control(server.url)
    beside.run("FLUSHALL")
    beside.close()

    for mode in ("text", "vector", "hybrid"):
        assert await found(kb, "penguins", mode=mode) == []
    await kb.store_fact("penguins swim", fact_id="p")
    assert await found(kb, "penguins", mode="vector") == ["p"]
