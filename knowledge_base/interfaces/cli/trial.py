"""Many queries asked of a knowledge base, with what they found and how long each took."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knowledge_base.errors import UnavailableError
from knowledge_base.retrieval.evaluation import Query, percentile

if TYPE_CHECKING:
    from knowledge_base.knowledge_base import KnowledgeBase
    from knowledge_base.types import BulkResult, Progress, SearchResults

PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Ranking:
    """What one query found.

    Attributes:
        query_id: The query.
        fact_ids: Ids of the facts, best first.
        alone_ms: Milliseconds until the answer was there, when no other search ran beside it.
        whole: Whether every retriever took part and none was cut short.
    """

    query_id: str
    fact_ids: tuple[str, ...]
    alone_ms: float | None
    whole: bool


async def rank_all(
    search: Callable[[str], Awaitable[SearchResults]],
    queries: Sequence[Query],
    progress: Progress,
    *,
    alone_for: float = math.inf,
    alone_at_least: int = 200,
    side_by_side: int = 16,
) -> list[Ranking]:
    """Asks every query: one at a time while there is time for it, the rest side by side.

    Args:
        search: Asks one query.
        queries: The queries.
        progress: Called with how many are done, and of how many.
        alone_for: Seconds for queries that are asked one at a time.
        alone_at_least: Queries that are asked one at a time however long that takes.
        side_by_side: Queries that are asked at once thereafter.
    """
    rankings: list[Ranking] = []

    async def ask(query: Query, alone: bool) -> None:
        began = time.perf_counter()
        found = await search(query.text)
        took = (time.perf_counter() - began) * 1000
        whole = found["complete"] and not found["degraded"]
        facts = tuple(hit["fact_id"] for hit in found["hits"])
        rankings.append(Ranking(query.query_id, facts, took if alone else None, whole))
        progress(len(rankings), len(queries))

    waiting = iter(queries)
    began = time.monotonic()
    for query in waiting:
        await ask(query, alone=True)
        if len(rankings) >= alone_at_least and time.monotonic() - began > alone_for:
            break

    async def ask_on() -> None:
        for query in waiting:
            await ask(query, alone=False)

    tasks = [asyncio.create_task(ask_on()) for _ in range(side_by_side)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return rankings


def search_times(rankings: Iterable[Ranking]) -> tuple[float, float, int]:
    """The median and the 95th percentile of the searches that ran alone, in milliseconds, and their number.

    Args:
        rankings: What the queries found.
    """
    times = [ranking.alone_ms for ranking in rankings if ranking.alone_ms is not None]
    return round(percentile(times, 0.5), 3), round(percentile(times, 0.95), 3), len(times)


async def store_all(base: KnowledgeBase, facts: Sequence[dict[str, Any]], progress: Progress) -> BulkResult:
    """Stores facts, all of them or none that anybody should measure.

    Args:
        base: The knowledge base.
        facts: Mappings with the arguments of ``store_fact`` as keys.
        progress: Called with how many are done, and of how many.

    Raises:
        UnavailableError: It was cut short.
    """
    stored = await base.store_facts(facts, progress=progress)
    if not stored["completed"]:
        done = stored["processed"]
        raise UnavailableError(f"only {done} of {len(facts)} documents were stored; run it again to go on from there")
    return stored


async def wait_until_indexed(base: KnowledgeBase, patience: float | None = None, pause: float = 0.2) -> int:
    """Waits until every fact of the namespace has its vectors, or their number has stood still for too long.

    Args:
        base: The knowledge base.
        patience: Seconds without progress after which the wait ends.
        pause: Seconds between two looks.

    Returns:
        How many facts still wait for their vectors.
    """
    if patience is None:
        patience = PATIENCE
    pending = (await base.get_stats())["pending"]
    moved = time.monotonic()
    while pending and time.monotonic() - moved < patience:
        await asyncio.sleep(pause)
        left = (await base.get_stats())["pending"]
        if left < pending:
            moved = time.monotonic()
        pending = left
    return pending
