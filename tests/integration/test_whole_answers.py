"""A server that cuts slow searches short in silence: what must be whole fails rather, the rest says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import UnavailableError
from knowledge_base.index.timeout_policy import TimeoutPolicy
from tests.support.control import Control
from tests.support.many_facts import populate
from tests.support.server import RedisServer

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

FACTS = 6_000
QUESTION = "Fact kador kalin kamar modor molin"


@pytest.fixture
def cutting(new_server: Callable[..., RedisServer]) -> RedisServer:
    """A server with the policy that it has when nobody sets another."""
    return new_server().start()


@pytest.fixture
async def filled(cutting: RedisServer, open_kb: Any) -> KnowledgeBase:
    kb: KnowledgeBase = open_kb(redis_url=cutting.url)
    await populate(kb, FACTS, with_vectors=False, tags=["all"])
    return kb


def cut_after(server: RedisServer, milliseconds: int, policy: str = "RETURN") -> None:
    control = Control(server.url)
    control.run("FT.CONFIG", "SET", "ON_TIMEOUT", policy)
    control.run("FT.CONFIG", "SET", "TIMEOUT", milliseconds)
    control.close()


async def test_lists_are_whole_where_searches_are_cut(
    filled: KnowledgeBase, cutting: RedisServer, open_kb: Any
) -> None:
    cut_after(cutting, 1)
    kb = open_kb(redis_url=cutting.url)

    page = await kb.get_fact(filters={"tags": "all"}, limit=1_000)
    listed = [fact["id"] async for fact in kb.iter_facts(filters={"tags": "all"})]
    would_go = await kb.delete_facts({"tags": "all"}, dry_run=True)

    assert len(page) == 1_000
    assert [fact["id"] for fact in page][:3] == [f"f{FACTS - 1}", f"f{FACTS - 2}", f"f{FACTS - 3}"]
    assert len(set(listed)) == len(listed) == FACTS
    assert would_go["succeeded"] == FACTS


async def test_this_server_does_cut(filled: KnowledgeBase, cutting: RedisServer, namespace: str) -> None:
    """Without which the test before this one would say nothing."""
    cut_after(cutting, 1)
    control = Control(cutting.url)
    services = await filled._services.start()
    generation = await services.generations.current(namespace)
    assert generation is not None

    reply = control.run(
        *("FT.SEARCH", generation.text_index, "@tags:{all}", "NOCONTENT", "SORTBY", "seq", "ASC"),
        *("LIMIT", 0, 10_000, "DIALECT", 2),
    )
    control.close()

    assert len(reply) - 1 < FACTS


async def test_what_may_be_cut_says_so_everywhere(filled: KnowledgeBase, cutting: RedisServer, open_kb: Any) -> None:
    cut_after(cutting, 1)
    kb = open_kb(redis_url=cutting.url)
    told: list[Any] = []

    searched = await kb.search(QUESTION, 1_000, mode="text")
    chunks = await kb.retrieve_chunks_from_text(QUESTION, on_metrics=told.append)
    context = await kb.build_context(QUESTION)

    assert chunks
    assert searched["complete"] is False
    assert [metrics["complete"] for metrics in told] == [False]
    assert context["complete"] is False


async def test_what_is_whole_says_so_everywhere(filled: KnowledgeBase) -> None:
    told: list[Any] = []

    searched = await filled.search(QUESTION, 10, mode="text")
    await filled.retrieve_chunks_from_text(QUESTION, on_metrics=told.append)
    context = await filled.build_context(QUESTION)

    assert [metrics["complete"] for metrics in told] == [True]
    assert (searched["complete"], context["complete"]) == (True, True)


async def test_server_that_fails_is_not_given_longer(filled: KnowledgeBase, cutting: RedisServer, open_kb: Any) -> None:
    cut_after(cutting, 1, "FAIL")
    kb = open_kb(redis_url=cutting.url)

    with pytest.raises(UnavailableError, match="search timeout"):
        await kb.get_fact(filters={"tags": "all"}, limit=1_000)


async def test_policy_that_is_changed_is_read_again(stub_kb: KnowledgeBase, control: Control) -> None:
    now = 0.0
    manager = (await stub_kb._services.start()).generations._manager
    policy = TimeoutPolicy(manager, clock=lambda: now)
    before = await policy.cuts_after()
    try:
        control.run("FT.CONFIG", "SET", "ON_TIMEOUT", "RETURN")
        soon = await policy.cuts_after()
        now = 61.0
        later = await policy.cuts_after()
        longer = await policy.whole_or_nothing()
    finally:
        control.run("FT.CONFIG", "SET", "ON_TIMEOUT", "FAIL")

    assert (before, soon, later) == (None, None, 0.5)
    assert longer == ["TIMEOUT", 3_000]
