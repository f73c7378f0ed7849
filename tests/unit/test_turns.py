"""Large facts are decoded a few at a time, so that the event loop has its turns in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import fakeredis
import pytest

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.facts import repository
from knowledge_base.facts.repository import DECODED_AT_ONCE
from tests.support.fact_store import NAMESPACE, Store

FACTS = 12
LARGE = DECODED_AT_ONCE // 2
"""Characters of one fact's metadata or content."""


class Turns:
    """Counts the turns of the event loop, and what is decoded in each."""

    def __init__(self) -> None:
        self.decoded: Counter[int] = Counter()
        self._turn = 0

    def noting(self, decode: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function that decodes and notes in which turn."""

        def decode_and_note(*arguments: Any) -> Any:
            self.decoded[self._turn] += 1
            return decode(*arguments)

        return decode_and_note

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        """Counts the turns inside."""
        task = asyncio.create_task(self._count())
        try:
            yield
        finally:
            task.cancel()

    async def _count(self) -> None:
        while True:
            self._turn += 1
            await asyncio.sleep(0)


@pytest.fixture
async def store(fake_manager: AsyncRedisManager, fake_server: fakeredis.FakeServer) -> Store:
    return Store(fake_manager, fake_server, keep_history=FACTS)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    one = Turns()
    for name in ("decode_record", "decode_version"):
        monkeypatch.setattr(repository, name, one.noting(getattr(repository, name)))
    return one


async def test_facts_with_large_metadata_are_decoded_in_many_turns(store: Store, turns: Turns) -> None:
    fact_ids = [f"f{at}" for at in range(FACTS)]
    for fact_id in fact_ids:
        await store.put(fact_id, fact_id, metadata={"note": "x" * LARGE})

    async with turns.counted():
        found = await store.repository.read(NAMESPACE, fact_ids, [])

    assert [record.fact_id for record in found if record is not None] == fact_ids
    assert sum(turns.decoded.values()) == FACTS
    assert max(turns.decoded.values()) <= 2


async def test_small_facts_are_decoded_together(store: Store, turns: Turns) -> None:
    fact_ids = [f"f{at}" for at in range(FACTS)]
    for fact_id in fact_ids:
        await store.put("x" * LARGE + fact_id, fact_id, metadata={"n": 1})

    async with turns.counted():
        await store.repository.read(NAMESPACE, fact_ids, [])

    assert list(turns.decoded.values()) == [FACTS]


async def test_long_history_is_decoded_in_many_turns(store: Store, turns: Turns) -> None:
    await store.put("x" * LARGE, "f1")
    for at in range(FACTS):
        await store.change(await store.get("f1"), content=f"{at} " + "x" * LARGE)
    turns.decoded.clear()

    async with turns.counted():
        versions = await store.repository.history(NAMESPACE, "f1", [])

    assert [version["version"] for version in versions] == list(range(FACTS + 1, 0, -1))
    assert sum(turns.decoded.values()) == FACTS + 1
    assert max(turns.decoded.values()) <= 3
