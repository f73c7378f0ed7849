"""Reads of different facts, most of them cancelled at a random moment."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knowledge_base.errors import KnowledgeBaseError
from tests.support.control import Control
from tests.support.facts import hit_ids
from tests.support.many_stores import content, word

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

FACTS = 200
AT_ONCE = 100
MOST_STEPS = 60
LATEST = 0.01
"""A read is cancelled after so many rounds of the event loop, or seconds, at the latest."""

READS_UNTOUCHED = 10
"""One in so many reads is left alone."""

Read = Callable[["KnowledgeBase", int], Coroutine[Any, Any, Any]]


def name(number: int) -> str:
    return f"f{number}"


async def by_id(kb: KnowledgeBase, number: int) -> Any:
    return [(fact["id"], fact["content"]) for fact in await kb.get_fact(name(number))]


async def by_query(kb: KnowledgeBase, number: int) -> Any:
    return [(fact["id"], fact["content"]) for fact in await kb.get_fact(query=word(number))]


async def by_words(kb: KnowledgeBase, number: int) -> Any:
    results = await kb.search(word(number), mode="text")
    return [(hit["fact_id"], hit["content"]) for hit in results["hits"]]


async def by_meaning(kb: KnowledgeBase, number: int) -> Any:
    results = await kb.search(content(number), mode="vector", filters={"fact_id": name(number)})
    return [(hit["fact_id"], hit["content"]) for hit in results["hits"]]


async def by_both(kb: KnowledgeBase, number: int) -> Any:
    results = await kb.search(word(number), filters={"fact_id": name(number)})
    assert not results["degraded"] or hit_ids(results) == [name(number)]
    return [(hit["fact_id"], hit["content"]) for hit in results["hits"]]


READS: tuple[Read, ...] = (by_id, by_id, by_id, by_query, by_words, by_words, by_meaning, by_both)


@dataclass
class CancellationReport:
    """What became of the reads."""

    cancelled: int = 0
    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    most_connections: int = 0
    seconds: float = 0.0


async def cancel_reads(kb: KnowledgeBase, control: Control, cancellations: int, seed: int) -> CancellationReport:
    """Reads different facts at once and cancels most of the reads, until enough have been cancelled.

    Args:
        kb: A base.
        control: Counts the connections of its server.
        cancellations: How many reads must have ended as cancelled.
        seed: Of the choice of reads and moments.
    """
    begun = time.monotonic()
    chance = random.Random(seed)
    stored = await kb.store_facts([{"content": content(n), "fact_id": name(n)} for n in range(FACTS)])
    assert stored["succeeded"] == FACTS
    report = CancellationReport()

    async def read(how: Read, number: int) -> None:
        try:
            found = await how(kb, number)
        except asyncio.CancelledError:
            report.cancelled += 1
            return
        except KnowledgeBaseError as error:
            report.errors[type(error).__name__] += 1
            return
        report.answered += 1
        if found != [(name(number), content(number))]:
            report.wrong.append(f"{how.__name__} of {number} gave {found}")

    async def cancel_later(task: asyncio.Task[None]) -> None:
        if chance.randrange(2):
            await asyncio.sleep(chance.uniform(0, LATEST))
        for _ in range(chance.randrange(MOST_STEPS)):
            await asyncio.sleep(0)
        task.cancel()

    while report.cancelled < cancellations:
        tasks = [asyncio.create_task(read(chance.choice(READS), chance.randrange(FACTS))) for _ in range(AT_ONCE)]
        doomed = [task for task in tasks if chance.randrange(READS_UNTOUCHED)]
        await asyncio.gather(*map(cancel_later, doomed))
        await asyncio.gather(*tasks, return_exceptions=True)
        report.most_connections = max(report.most_connections, len(control.connections()))
    report.seconds = time.monotonic() - begun
    return report
