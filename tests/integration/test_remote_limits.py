"""How much an endpoint is asked a minute at most."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.facts import hit_ids
from tests.support.remote import OpenRemote, breaker_failures

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.openai_endpoint import OpenAIEndpoint

REQUESTS = 3
TOKENS = 60
SHORT = 0.5


@pytest.fixture
async def remote_kb(open_remote: OpenRemote, endpoint: OpenAIEndpoint) -> KnowledgeBase:
    """A fact whose vector came from the endpoint, which counts from there on."""
    kb = open_remote()
    await kb.store_fact("penguins swim", fact_id="p")
    endpoint.reset()
    return kb


async def test_requests_of_a_minute_are_limited(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, remote_kb: KnowledgeBase
) -> None:
    kb = open_remote({"requests_per_minute": REQUESTS})

    results = [await kb.search(f"penguins {number}", timeout=SHORT) for number in range(8)]

    assert 1 <= endpoint.counters.requests <= REQUESTS
    assert all(hit_ids(result) == ["p"] for result in results)
    assert [result["degraded"] for result in results[REQUESTS:]] == [["vector"]] * (8 - REQUESTS)
    assert await breaker_failures(kb) == 0


async def test_repeats_count_as_requests(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, remote_kb: KnowledgeBase
) -> None:
    kb = open_remote({"requests_per_minute": REQUESTS, "retries": 10})
    endpoint.become("status", status=500, retry_after=0)

    await kb.search("penguins", timeout=2)

    assert 1 < endpoint.counters.requests <= REQUESTS


async def test_tokens_of_a_minute_are_limited(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, remote_kb: KnowledgeBase
) -> None:
    kb = open_remote({"tokens_per_minute": TOKENS})
    question = " ".join(["penguins"] * 10)

    results = [await kb.search(f"{question} {number}", timeout=SHORT) for number in range(8)]

    assert 1 <= endpoint.counters.requests <= TOKENS / 10
    assert results[-1]["degraded"] == ["vector"]


async def test_text_of_more_than_a_minutes_tokens_is_sent_all_the_same(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, remote_kb: KnowledgeBase
) -> None:
    kb = open_remote({"tokens_per_minute": TOKENS})

    stored = await kb.store_fact(" ".join(["puffins"] * 5 * TOKENS), fact_id="f")

    assert stored["indexed"] is True


async def test_callers_share_what_the_limit_leaves(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, remote_kb: KnowledgeBase
) -> None:
    kb = open_remote({"requests_per_minute": REQUESTS, "batch_wait": 0.2})
    await kb.search("warm")

    results = await asyncio.gather(*(kb.search(f"penguins {number}") for number in range(30)))

    assert all(result["degraded"] == [] for result in results)
    assert endpoint.counters.requests <= REQUESTS
