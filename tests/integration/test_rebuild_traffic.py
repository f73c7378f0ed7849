"""A rebuild while many callers search and write: they notice nothing, and nothing that they wrote is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import redis

from knowledge_base.keyspace import Keyspace
from knowledge_base.settings import IndexingSettings, Limits, Settings
from tests.support.bookkeeping import settles
from tests.support.embedded import client_of
from tests.support.embeddings import StubEmbedding
from tests.support.polling import eventually
from tests.support.rebuild_traffic import SEARCHERS, Traffic
from tests.support.rebuilds import SHORT, generation_of, index_faults, leftovers, moving_base, other_model

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

SETTLES_WITHIN = 60.0
FACTS = 400
REBUILDS = 2
SOON = IndexingSettings(lease=1.0)
CROWD = Limits(concurrent_searches=SEARCHERS)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with client_of(redis_url) as one:
        yield one


def nothing_expires(client: redis.Redis, namespace: str) -> bool:
    """Whether all facts that were to expire are gone; their parts go at once, their records with the next sweep."""
    return client.zcard(Keyspace(namespace).expiring) == 0


async def all_indexed(kb: KnowledgeBase) -> bool:
    return (await kb.get_stats())["pending"] == 0


async def test_searches_and_writes_go_on_through_several_rebuilds(
    open_kb: Any, client: redis.Redis, namespace: str, stub_embedding: StubEmbedding
) -> None:
    kb: KnowledgeBase = open_kb(limits=CROWD, indexing=SOON)
    rebuilding: KnowledgeBase = open_kb(timeouts=SHORT)
    traffic = Traffic([kb])
    await traffic.prepare(FACTS)
    await eventually(lambda: all_indexed(kb), SETTLES_WITHIN)

    async with traffic.running():
        for _ in range(REBUILDS):
            await rebuilding.rebuild_search_index()
            # A call goes on in the new index, but not from one switch to the next.
            await traffic.everybody_once_more()

    assert generation_of(client, namespace)["number"] == str(REBUILDS + 1)
    assert dict(traffic.wrong) == {}
    assert set(traffic.writes) == {"store", "content", "tags", "delete", "expire", "long"}
    await eventually(lambda: all_indexed(kb), SETTLES_WITHIN)
    assert await settles(client, namespace, SETTLES_WITHIN) == []
    assert await traffic.lost(kb) == []
    await eventually(lambda: nothing_expires(client, namespace), SETTLES_WITHIN)
    assert index_faults(client, namespace, stub_embedding) == []
    await eventually(lambda: leftovers(client, namespace) == [])


async def test_searches_and_writes_go_on_while_the_model_is_changed(
    settings: Settings, client: redis.Redis, namespace: str, stub_embedding: StubEmbedding
) -> None:
    new = other_model()
    async with AsyncExitStack() as opened:

        async def moving(**changes: Any) -> KnowledgeBase:
            return await opened.enter_async_context(moving_base(settings, stub_embedding, new, **changes))

        bases = [await moving(limits=CROWD, indexing=SOON) for _ in range(2)]
        rebuilding = await moving(timeouts=SHORT)
        traffic = Traffic(bases, seed=2)
        await traffic.prepare(FACTS)
        await eventually(lambda: all_indexed(rebuilding), SETTLES_WITHIN)

        async with traffic.running():
            report = await rebuilding.rebuild_search_index()

        assert (report["model"], report["dimension"]) == ("StubEmbedding:other", new.size)
        assert report["embedded"] >= FACTS
        assert dict(traffic.wrong) == {}
        await eventually(lambda: all_indexed(rebuilding), SETTLES_WITHIN)
        assert await settles(client, namespace, SETTLES_WITHIN) == []
        assert await traffic.lost(rebuilding) == []
        await eventually(lambda: nothing_expires(client, namespace), SETTLES_WITHIN)
    assert index_faults(client, namespace, new) == []
    assert leftovers(client, namespace) == []
