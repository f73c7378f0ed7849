"""What a process of ours leaves behind that is killed while it stores, and who completes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.settings import IndexingSettings
from tests.support.process_kills import store_in_killed_processes
from tests.support.server import RedisServer
from tests.support.storing_process import DYING, HANGING, WELL

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

STORES = 400
LEASE = 1.0


@pytest.mark.parametrize("mood", [WELL, HANGING, DYING])
async def test_next_process_completes_what_a_killed_one_left(new_server: Any, open_kb: Any, mood: str) -> None:
    server: RedisServer = new_server(fsync="always").start()
    kb: KnowledgeBase = open_kb(redis_url=server.url, indexing=IndexingSettings(lease=LEASE))

    report = await store_in_killed_processes(kb, server.url, [mood], STORES, LEASE)

    survey = report.survey
    assert report.pending_at_kills[0] > 0
    assert survey.acknowledged.keys() or mood == DYING
    assert survey.lost == []
    assert survey.duplicates == 0
    assert survey.pending == 0
    assert survey.faults == []
    assert survey.unseen == {"vector": set(), "text": set()}
