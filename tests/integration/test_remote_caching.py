"""What is not asked twice: by many at once, again, and by another process; and what is never mixed up."""

from __future__ import annotations

import asyncio
import base64
import math
import uuid
from array import array
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.embedding.service import EmbeddingService
from knowledge_base.settings import BreakerSettings, EmbeddingSettings, Settings
from tests.support.control import Control
from tests.support.facts import found, hit_ids
from tests.support.polling import eventually
from tests.support.remote import OpenRemote, search_all

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.openai_endpoint import OpenAIEndpoint

CALLERS = 100
SHORT_TTL = 1.0
QUESTIONS = [f"penguins {number}" for number in range(60)]


@pytest.fixture
async def remote_kb(open_remote: OpenRemote, endpoint: OpenAIEndpoint) -> KnowledgeBase:
    """Two facts whose vectors came from the endpoint, which counts from there on."""
    kb = open_remote()
    await with_facts(kb, endpoint)
    return kb


async def with_facts(kb: KnowledgeBase, endpoint: OpenAIEndpoint, **scope: Any) -> None:
    await kb.store_fact("penguins swim", fact_id="p", **scope)
    await kb.store_fact("walruses dive", fact_id="w", **scope)
    endpoint.reset()


def cached(control: Control, namespace: str) -> set[str]:
    """The keys of vectors that processes share."""
    return {key for key in control.keys(namespace) if ":query_vector:" in key}


async def shared(control: Control, namespace: str, count: int = 1) -> None:
    """Waits until so many vectors are there for all processes."""
    await eventually(lambda: len(cached(control, namespace)) == count)


async def test_one_question_of_hundred_callers_is_one_request(
    remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint
) -> None:
    endpoint.latency = 0.05

    results = await search_all(remote_kb, ["penguins"] * CALLERS)
    first = list(endpoint.counters.inputs)
    again = await search_all(remote_kb, ["penguins"] * CALLERS)

    assert all(hit_ids(result)[0] == "p" and result["degraded"] == [] for result in [*results, *again])
    assert first == list(endpoint.counters.inputs) == [["penguins"]]


async def test_question_that_is_under_way_is_not_asked_again(
    remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint
) -> None:
    endpoint.become("hang")
    first = asyncio.create_task(remote_kb.search("penguins"))
    await eventually(lambda: endpoint.held == 1)
    others = [asyncio.create_task(remote_kb.search("penguins")) for _ in range(20)]
    other_question = asyncio.create_task(remote_kb.search("walruses"))
    await eventually(lambda: "walruses" in endpoint.counters.asked)

    endpoint.become("well")
    results = await asyncio.gather(first, *others)
    await other_question

    assert all(result["degraded"] == [] for result in results)
    assert endpoint.counters.asked == ["penguins", "walruses"]


async def test_failure_that_many_share_is_not_remembered(remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint) -> None:
    endpoint.latency = 0.05
    endpoint.then("status", status=401)

    refused = await search_all(remote_kb, ["penguins"] * 10)
    answered = await remote_kb.search("penguins")

    assert all(result["degraded"] == ["vector"] for result in refused)
    assert (answered["degraded"], endpoint.counters.requests) == ([], 2)


async def test_another_process_need_not_ask_again(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, remote_kb: KnowledgeBase, control: Control, namespace: str
) -> None:
    first = await remote_kb.search("penguins", mode="vector")
    await shared(control, namespace)
    endpoint.become("status", status=500)

    second = await open_remote().search("penguins", mode="vector")

    assert [hit["score"] for hit in second["hits"]] == pytest.approx([hit["score"] for hit in first["hits"]])
    assert endpoint.counters.requests == 1


async def test_namespaces_know_nothing_of_each_others_questions(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, remote_kb: KnowledgeBase, control: Control, namespace: str
) -> None:
    other = f"t-{uuid.uuid4().hex[:12]}"
    await with_facts(remote_kb, endpoint, namespace=other)
    await remote_kb.search("penguins")
    await shared(control, namespace)

    await remote_kb.search("penguins", namespace=other)
    in_memory = len(endpoint.counters.asked)
    await shared(control, other)
    await open_remote().search("penguins", namespace=other)
    await remote_kb.search("walruses", namespace=other)
    await shared(control, other, 2)
    await open_remote().search("walruses")

    assert in_memory == 2
    assert endpoint.counters.asked == ["penguins"] * 2 + ["walruses"] * 2


async def test_models_know_nothing_of_each_others_vectors(
    settings: Settings, endpoint: OpenAIEndpoint, control: Control, namespace: str
) -> None:
    async with AsyncRedisManager(settings) as manager:
        for model, dimension, known in (("a", 32, 1), ("b", 32, 2), ("a", 16, 3), ("a", 32, 3)):
            endpoint.size = dimension
            chosen = EmbeddingSettings(
                provider="openai", base_url=endpoint.base_url, model=model, dimension=dimension, query_prefix=""
            )
            service = EmbeddingService(chosen, timeout=10, breaker=BreakerSettings(), manager=manager)
            vector = await service.embed_query("penguins", namespace)
            await shared(control, namespace, known)
            await service.close(1)
            assert list(vector) == pytest.approx(endpoint.vector("penguins"), abs=1e-6)

    assert endpoint.counters.asked == ["penguins"] * 3


@pytest.mark.parametrize("model", ["test-embedding", "intfloat/e5-base-v2"])
async def test_questions_and_passages_are_told_apart(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, model: str
) -> None:
    kb = open_remote({"model": model})
    await kb.store_fact("penguins swim", fact_id="p")
    asked = len(endpoint.counters.asked)

    await kb.search("penguins swim")

    assert len(endpoint.counters.asked) == asked + 1


async def test_questions_are_forgotten_when_their_time_is_over(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, control: Control, namespace: str
) -> None:
    short = {"cache_ttl": SHORT_TTL}
    kb = open_remote(short)
    await with_facts(kb, endpoint)
    await kb.search("penguins")
    await shared(control, namespace)
    await shared(control, namespace, 0)
    await asyncio.sleep(SHORT_TTL)

    await kb.search("penguins")

    assert endpoint.counters.asked == ["penguins"] * 2


async def test_memory_keeps_so_many_questions_and_no_more(open_remote: OpenRemote, endpoint: OpenAIEndpoint) -> None:
    kb = open_remote({"cache_size": 3, "shared_cache_size": 0})
    await with_facts(kb, endpoint)

    for question in ("a", "b", "c", "a", "d", "a", "b"):
        await kb.search(f"penguins {question}")

    assert [text[-1] for text in endpoint.counters.asked] == ["a", "b", "c", "d", "b"]


async def test_redis_keeps_so_many_questions_and_no_more(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, control: Control, namespace: str
) -> None:
    bounded = {"shared_cache_size": 10}
    kb = open_remote(bounded)
    await with_facts(kb, endpoint)
    await search_all(kb, QUESTIONS)
    # With sixty texts for ten slots, each slot is taken.
    await shared(control, namespace, 10)
    endpoint.reset()

    await search_all(open_remote(bounded), QUESTIONS)

    assert len(QUESTIONS) - 10 <= len(endpoint.counters.asked) < len(QUESTIONS)
    assert len(cached(control, namespace)) == 10


async def test_caches_can_be_switched_off(open_remote: OpenRemote, endpoint: OpenAIEndpoint) -> None:
    kb = open_remote({"shared_cache_size": 0})
    await with_facts(kb, endpoint)
    await kb.search("penguins")
    await open_remote({"shared_cache_size": 0}).search("penguins")
    uncached = open_remote({"cache_size": 0, "shared_cache_size": 0})

    await uncached.search("penguins")
    await uncached.search("penguins")

    assert endpoint.counters.asked == ["penguins"] * 4


def damaged(value: bytes, how: str) -> bytes:
    """A cached vector that went wrong."""
    name, _, packed = value.partition(b":")
    vector = array("f", base64.b64decode(packed))
    if how == "cut":
        return value[: len(value) // 2]
    if how == "another text's":
        return b"0" * len(name) + b":" + packed
    spoilt = {"not a number": [math.nan] * len(vector), "zero": [0.0] * len(vector)}.get(how)
    return b"x" if spoilt is None else name + b":" + base64.b64encode(array("f", spoilt).tobytes())


@pytest.mark.parametrize("how", ["no vector", "cut", "another text's", "not a number", "zero"])
async def test_damaged_entry_is_not_believed(
    open_remote: OpenRemote,
    endpoint: OpenAIEndpoint,
    remote_kb: KnowledgeBase,
    control: Control,
    namespace: str,
    how: str,
) -> None:
    await remote_kb.search("penguins")
    await shared(control, namespace)
    (key,) = cached(control, namespace)
    control.run("SET", key, damaged(control.run("GET", key), how))

    results = await open_remote().search("penguins")

    assert (hit_ids(results)[0], results["degraded"]) == ("p", [])
    assert endpoint.counters.asked == ["penguins"] * 2


async def test_shared_questions_do_not_tell_their_words(
    remote_kb: KnowledgeBase, control: Control, namespace: str
) -> None:
    await remote_kb.search("zanzibar")
    await shared(control, namespace)

    (key,) = cached(control, namespace)

    assert "zanzibar" not in key
    assert b"zanzibar" not in control.run("GET", key)


async def test_passages_are_found_although_their_question_came_from_the_cache(
    open_remote: OpenRemote, remote_kb: KnowledgeBase
) -> None:
    await remote_kb.search("puffins")
    await remote_kb.store_fact("puffins fly", fact_id="f")

    assert (await found(open_remote(), "puffins", mode="vector"))[0] == "f"
