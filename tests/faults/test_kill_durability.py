"""What was acknowledged, while the server is killed in the midst of many stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.settings import BreakerSettings, IndexingSettings
from tests.support.server import RedisServer
from tests.support.server_kills import KillReport, store_through_kills

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

IMPATIENT = BreakerSettings(reset_after=0.2)
SHORT = IndexingSettings(lease=1.0)
STORES = 300
KILLS = 3


@pytest.fixture
async def report(new_server: Any, open_kb: Any) -> KillReport:
    """Of a run with several kills."""
    server: RedisServer = new_server(fsync="always").start()
    kb: KnowledgeBase = open_kb(redis_url=server.url, breaker=IMPATIENT, indexing=SHORT)
    return await store_through_kills(kb, server, STORES, KILLS)


async def test_server_killed_during_stores_loses_and_repeats_nothing(report: KillReport) -> None:
    survey = report.survey

    assert len(survey.acknowledged) + report.given_up == STORES
    assert survey.lost == []
    assert survey.duplicates == 0
    assert survey.pending == 0
    assert survey.faults == []
    assert survey.unseen == {"vector": set(), "text": set()}
