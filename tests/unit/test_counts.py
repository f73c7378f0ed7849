"""Counts that are under way when the base closes, or whose callers give up."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.errors import UnavailableError
from knowledge_base.index.counts import Counts

MATCHES = 7


class Held:
    """Stands for the connections: every count waits until it may go on."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.was_asked = asyncio.Event()
        self.asked = 0

    async def search(self) -> Held:
        return self

    async def execute_command(self, *_command: Any) -> list[int]:
        self.asked += 1
        self.was_asked.set()
        await self.may_answer.wait()
        return [MATCHES]


@pytest.fixture
def server() -> Held:
    return Held()


@pytest.fixture
def counts(server: Held) -> Counts:
    return Counts(cast("AsyncRedisManager", server))


async def _under_way(counts: Counts, server: Held, callers: int) -> list[asyncio.Task[int | None]]:
    tasks = [asyncio.create_task(counts.up_to(10, "index", "*")) for _ in range(callers)]
    await server.was_asked.wait()
    return tasks


async def test_closing_tells_those_who_wait_and_cancels_nobody(counts: Counts, server: Held) -> None:
    tasks = await _under_way(counts, server, 3)

    await counts.close()

    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 3


async def test_closed_counts_begin_nothing(counts: Counts, server: Held) -> None:
    await counts.close()

    with pytest.raises(UnavailableError):
        await asyncio.wait_for(counts.up_to(10, "index", "*"), 1.0)

    assert server.asked == 0


async def test_caller_that_is_cancelled_leaves_the_count_to_the_others(counts: Counts, server: Held) -> None:
    first, second = await _under_way(counts, server, 2)

    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    server.may_answer.set()

    assert await second == MATCHES
    assert server.asked == 1
