"""Vectors from an OpenAI-compatible endpoint: who asks, how often, with what, and in which order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import IndexMismatchError
from knowledge_base.settings import Timeouts
from tests.support.control import Control
from tests.support.facts import found, hit_ids
from tests.support.polling import eventually
from tests.support.remote import KEY, OpenRemote, search_all, vector_of, vectors_stored

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.openai_endpoint import OpenAIEndpoint

CALLERS = 100
QUESTIONS = [f"penguins {number}" for number in range(CALLERS)]
MOST_REQUESTS = 8
BGE = "Represent this sentence for searching relevant passages: "


@pytest.fixture
async def remote_kb(open_remote: OpenRemote, endpoint: OpenAIEndpoint) -> KnowledgeBase:
    """Two facts whose vectors came from the endpoint, which counts from there on."""
    kb = open_remote()
    await kb.store_fact("penguins swim", fact_id="p")
    await kb.store_fact("walruses dive", fact_id="w")
    endpoint.reset()
    return kb


async def test_facts_are_found_by_meaning(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, control: Control, namespace: str
) -> None:
    kb = open_remote()

    stored = await kb.store_fact("penguins swim", fact_id="p")
    await kb.store_fact("walruses dive", fact_id="w")

    assert stored["indexed"] is True
    assert (await found(kb, "swimming penguins", mode="vector"))[0] == "p"
    assert vector_of(control, namespace, "p") == pytest.approx(endpoint.vector("penguins swim"), abs=1e-6)
    assert endpoint.counters.asked == ["penguins swim", "walruses dive", "swimming penguins"]
    assert endpoint.counters.authorizations == {f"Bearer {KEY}"}


async def test_dimension_is_learned_from_the_endpoint(open_remote: OpenRemote, endpoint: OpenAIEndpoint) -> None:
    kb = open_remote({"dimension": None})

    await kb.store_fact("penguins swim", fact_id="p")

    assert (await kb.get_stats())["dimension"] == endpoint.size


async def test_hundred_callers_share_ten_requests_at_most(remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint) -> None:
    endpoint.latency = 0.05

    results = await search_all(remote_kb, QUESTIONS)

    assert all(hit_ids(result)[0] == "p" and result["degraded"] == [] for result in results)
    assert sorted(endpoint.counters.asked) == sorted(QUESTIONS)
    assert endpoint.counters.requests <= MOST_REQUESTS
    assert endpoint.counters.most <= 10


async def test_requests_at_once_are_as_many_as_the_settings_allow(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint
) -> None:
    kb = open_remote({"max_concurrent_requests": 3, "batch_size": 2})
    await kb.store_fact("penguins swim", fact_id="p")
    endpoint.become("hang")
    searches = asyncio.create_task(search_all(kb, QUESTIONS))
    await eventually(lambda: endpoint.held == 3)

    endpoint.become("well")
    results = await searches

    assert endpoint.counters.most == 3
    assert all(result["degraded"] == [] for result in results)


async def test_a_caller_alone_waits_for_no_others(remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint) -> None:
    await remote_kb.search("penguins")

    assert list(endpoint.counters.inputs) == [["penguins"]]


async def test_passages_travel_in_batches(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, control: Control, namespace: str
) -> None:
    kb = open_remote({"batch_size": 16})
    contents = [f"penguin number{number}" for number in range(200)]

    await kb.store_facts({"content": content} for content in contents)
    await eventually(lambda: vectors_stored(control, namespace) == len(contents), within=30)

    assert max(map(len, endpoint.counters.inputs)) == 16
    assert sorted(endpoint.counters.asked) == sorted(contents)
    assert endpoint.counters.requests <= len(contents) // 16 * 2


async def test_connections_are_kept(remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint) -> None:
    for question in QUESTIONS[:20]:
        await remote_kb.search(question)
    await search_all(remote_kb, QUESTIONS[20:])

    assert endpoint.counters.connections <= 10
    assert endpoint.counters.requests >= 20


async def test_queries_go_before_passages_that_wait(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, remote_kb: KnowledgeBase
) -> None:
    kb = open_remote({"max_concurrent_requests": 1, "batch_size": 1})
    await kb.search("walruses")
    endpoint.reset()
    endpoint.become("hang")
    job = asyncio.create_task(kb.store_facts({"content": f"puffin number{number}"} for number in range(50)))
    await eventually(lambda: endpoint.held)
    search = asyncio.create_task(kb.search("penguins"))

    for _ in range(40):
        await asyncio.sleep(0.05)
        endpoint.release()
        if search.done():
            break
    results = await search
    before = endpoint.counters.asked.index("penguins")
    endpoint.become("well")
    await job

    assert results["degraded"] == []
    assert before < 10


async def test_passages_never_occupy_every_request(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, remote_kb: KnowledgeBase
) -> None:
    kb = open_remote({"batch_size": 1})
    endpoint.become("hang", containing="puffin")
    job = asyncio.create_task(kb.store_facts({"content": f"puffin number{number}"} for number in range(50)))
    # One of ten at least is left to queries.
    await eventually(lambda: endpoint.held >= 5)
    await asyncio.sleep(0.1)
    held = endpoint.held

    results = [await kb.search(question) for question in QUESTIONS[:20]]
    endpoint.become("well")
    await job

    assert held < 10
    assert all(result["degraded"] == [] for result in results)


async def test_request_ends_when_nobody_waits_for_it(remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint) -> None:
    endpoint.become("hang")
    searches = [asyncio.create_task(remote_kb.search("penguins", timeout=100)) for _ in range(5)]
    await eventually(lambda: endpoint.held == 1)

    for search in searches:
        search.cancel()

    await eventually(lambda: endpoint.counters.cancelled == 1)
    assert endpoint.counters.now == 0


async def test_caller_who_leaves_does_not_disturb_the_others(
    remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint
) -> None:
    endpoint.become("hang")
    first = asyncio.create_task(remote_kb.search("penguins", timeout=100))
    await eventually(lambda: endpoint.held == 1)
    second = asyncio.create_task(remote_kb.search("penguins", timeout=100))
    await asyncio.sleep(0.05)

    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    endpoint.become("well")
    results = await second

    assert (hit_ids(results)[0], results["degraded"]) == ("p", [])
    assert (endpoint.counters.requests, endpoint.counters.cancelled) == (1, 0)


async def test_neighbours_in_a_request_survive_a_caller_who_leaves(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, remote_kb: KnowledgeBase
) -> None:
    endpoint.become("hang")
    searches = [asyncio.create_task(remote_kb.search(question, timeout=100)) for question in QUESTIONS[:10]]
    await eventually(lambda: len(endpoint.counters.asked) == 10)

    for search in searches[1::2]:
        search.cancel()
    endpoint.become("well")
    results = await asyncio.gather(*searches[::2])

    assert [(hit_ids(result)[:1], result["degraded"]) for result in results] == [(["p"], [])] * len(results)


async def test_close_ends_what_is_under_way(open_remote: OpenRemote, endpoint: OpenAIEndpoint) -> None:
    kb = open_remote(timeouts=Timeouts(close=2))
    await kb.store_fact("penguins swim", fact_id="p")
    endpoint.become("hang")
    search = asyncio.create_task(kb.search("penguins"))
    await eventually(lambda: endpoint.held == 1)

    await kb.close()

    await eventually(lambda: endpoint.counters.now == 0)
    await asyncio.gather(search, return_exceptions=True)


@pytest.mark.parametrize(
    ("model", "query", "passage"),
    [
        ("intfloat/multilingual-e5-small", "query: ", "passage: "),
        ("BAAI/bge-small-en-v1.5", BGE, ""),
        ("nomic-embed-text", "search_query: ", "search_document: "),
        ("some-other-model", "", ""),
    ],
)
async def test_model_gets_the_prefixes_that_it_wants(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, model: str, query: str, passage: str
) -> None:
    kb = open_remote({"model": model})

    await kb.store_fact("penguins swim", fact_id="p")
    await kb.search("swimming penguins")

    assert endpoint.counters.asked == [f"{passage}penguins swim", f"{query}swimming penguins"]


async def test_settings_have_the_last_word_about_prefixes(open_remote: OpenRemote, endpoint: OpenAIEndpoint) -> None:
    kb = open_remote({"model": "intfloat/e5-base-v2", "query_prefix": "Q: ", "passage_prefix": ""})

    await kb.store_fact("penguins swim", fact_id="p")
    await kb.search("swimming penguins")

    assert endpoint.counters.asked == ["penguins swim", "Q: swimming penguins"]


@pytest.mark.parametrize(
    "changed",
    [{"model": "another-model"}, {"dimension": 16}, {"query_prefix": "query: "}, {"passage_prefix": "passage: "}],
    ids=str,
)
async def test_index_of_another_model_is_refused(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, remote_kb: KnowledgeBase, changed: dict[str, Any]
) -> None:
    endpoint.size = changed.get("dimension", endpoint.size)
    kb = open_remote(changed)

    with pytest.raises(IndexMismatchError) as mismatch:
        await kb.search("penguins", mode="vector")
    with pytest.raises(IndexMismatchError):
        await kb.store_fact("puffins fly")

    assert "KB_EMBEDDING__" in str(mismatch.value)
    assert mismatch.value.expected != mismatch.value.found


async def test_prefixes_written_out_are_those_of_the_model(open_remote: OpenRemote) -> None:
    name = "intfloat/e5-base-v2"
    await open_remote({"model": name}).store_fact("penguins swim", fact_id="p")

    kb = open_remote({"model": name, "query_prefix": "query: ", "passage_prefix": "passage: "})

    assert await found(kb, "penguins", mode="vector") == ["p"]
