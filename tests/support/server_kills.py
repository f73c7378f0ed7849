"""A server that is killed again and again while many facts are stored."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from knowledge_base.errors import UnavailableError
from tests.support.many_stores import ManyStores, Survey
from tests.support.polling import eventually
from tests.support.server import RedisServer

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

LONGEST_DOWN = 0.3
SETTLES_WITHIN = 90.0
STORED_WITHIN = 600.0


@dataclass(frozen=True)
class KillReport:
    """What a run has shown."""

    stores: int
    kills: int
    given_up: int
    seconds_until_indexed: float
    """From the last answer to a caller until nothing was pending."""
    survey: Survey


async def store_through_kills(kb: KnowledgeBase, server: RedisServer, stores: int, kills: int) -> KillReport:
    """Stores facts while the server is killed and started again on the same data.

    Args:
        kb: A base on the server, with a circuit that closes again soon.
        server: One that syncs its file with every write.
        stores: How many facts.
        kills: How often it is killed, evenly spread over the stores.
    """
    await kb.store_fact("first", fact_id="first")
    await kb.delete_fact("first")
    work = ManyStores(kb, iter(range(stores)))
    storing = asyncio.create_task(work.run())
    try:
        for kill in range(1, kills + 1):
            await eventually(partial(work.has_done, kill * stores // (kills + 1)), STORED_WITHIN)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(random.uniform(0, LONGEST_DOWN))
            await asyncio.to_thread(server.restart)
        await storing
    finally:
        storing.cancel()
    answered = time.monotonic()

    async def all_indexed() -> bool:
        try:
            return (await kb.get_stats())["pending"] == 0
        except UnavailableError:
            return False

    await eventually(all_indexed, SETTLES_WITHIN)
    until_indexed = time.monotonic() - answered
    survey = await Survey.taken(kb, server.url, work.acknowledged)
    return KillReport(stores, kills, work.given_up, until_indexed, survey)
