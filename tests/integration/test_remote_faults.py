"""An embedding endpoint that refuses, hangs, breaks off and lies."""

from __future__ import annotations

import asyncio
import logging
import traceback
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import EmbeddingUnavailableError, UnavailableError
from knowledge_base.settings import BreakerSettings, Limits, Timeouts
from tests.support.control import Control
from tests.support.facts import found, hit_ids, only
from tests.support.polling import eventually
from tests.support.remote import KEY, OpenRemote, breaker_failures, search_all, vector_of, vectors_stored

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.openai_endpoint import OpenAIEndpoint

IMPATIENT = BreakerSettings(reset_after=0.2)
RETRIES = 3
LIES = ["wrong dimension", "not a number", "infinite", "zero"]
WRONG_ANSWERS = [*LIES, "no json", "wrong shape", "too few", "too many", "duplicate index"]
WORDS = ["penguins", "walruses", "puffins", "seals", "whales", "gulls", "terns", "skuas"]
CLOCK_SLACK = 0.05


@pytest.fixture
async def remote_kb(open_remote: OpenRemote, endpoint: OpenAIEndpoint) -> KnowledgeBase:
    """Two facts whose vectors came from the endpoint, which counts from there on."""
    kb = open_remote(breaker=IMPATIENT)
    await kb.store_fact("penguins swim", fact_id="p")
    await kb.store_fact("walruses dive", fact_id="w")
    endpoint.reset()
    return kb


def gaps(endpoint: OpenAIEndpoint) -> list[float]:
    """Seconds between one request and the next."""
    return [later - earlier for earlier, later in pairwise(endpoint.counters.arrivals)]


@pytest.mark.parametrize("dated", [False, True])
async def test_busy_endpoint_is_asked_again_when_it_says_so(
    remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint, dated: bool
) -> None:
    endpoint.then("status", status=429, retry_after=1.5, dated=dated)

    results = await remote_kb.search("penguins")

    assert (hit_ids(results)[0], results["degraded"]) == ("p", [])
    assert len(gaps(endpoint)) == 1
    assert gaps(endpoint)[0] >= 1.5 - CLOCK_SLACK


async def test_repeats_are_not_waited_for_beyond_the_deadline(
    remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint
) -> None:
    endpoint.become("status", status=429, retry_after=3_000)

    results = await remote_kb.search("penguins", timeout=2)

    assert (hit_ids(results), results["degraded"]) == (["p"], ["vector"])
    assert endpoint.counters.requests == 1


@pytest.mark.parametrize(
    "kinds",
    [["status"] * 3, ["cut before"], ["cut within"], ["cut before", "status", "cut within"]],
    ids=" then ".join,
)
async def test_failures_that_pass_are_not_noticed(
    remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint, kinds: list[Any]
) -> None:
    for kind in kinds:
        endpoint.then(kind, status=500)

    results = await remote_kb.search("penguins")

    assert (hit_ids(results)[0], results["degraded"]) == ("p", [])
    assert endpoint.counters.requests == len(kinds) + 1
    assert await breaker_failures(remote_kb) == 0


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
async def test_status_that_may_pass_is_asked_again(
    remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint, status: int
) -> None:
    endpoint.then("status", status=status)

    results = await remote_kb.search("penguins")

    assert (results["degraded"], endpoint.counters.requests) == ([], 2)


async def test_repeats_are_counted_and_further_and_further_apart(
    remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint
) -> None:
    endpoint.become("status", status=503)

    with pytest.raises(EmbeddingUnavailableError):
        await remote_kb.search("penguins", mode="vector")

    assert endpoint.counters.requests == RETRIES + 1
    assert gaps(endpoint)[-1] > gaps(endpoint)[0]
    assert await breaker_failures(remote_kb) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_status_that_does_not_pass_is_not_asked_again(
    remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint, status: int
) -> None:
    endpoint.become("status", status=status)

    with pytest.raises(EmbeddingUnavailableError) as refused:
        await remote_kb.search("penguins", mode="vector")

    assert endpoint.counters.requests == 1
    assert str(status) in str(refused.value)


async def test_key_is_never_told(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    kb = open_remote(breaker=IMPATIENT)
    await kb.store_fact("penguins swim", fact_id="p")
    endpoint.become("status", status=401, message="Incorrect API key provided")

    with pytest.raises(EmbeddingUnavailableError) as refused:
        await kb.search("penguins", mode="vector")
    told = [str(refused.value), repr(refused.value), repr(kb), repr(kb.settings), repr(kb.settings.embedding)]
    told += [str(kb.settings.model_dump()), kb.settings.model_dump_json(), str(await kb.health())]
    told += traceback.format_exception(refused.value)

    assert endpoint.counters.authorizations == {f"Bearer {KEY}"}
    assert "KB_EMBEDDING__API_KEY" in str(refused.value)
    assert caplog.records
    assert not [text for text in [*told, caplog.text] if KEY in text]


async def test_key_that_the_endpoint_repeats_is_not_handed_on(
    remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.become("status", status=401, message=f"Incorrect API key provided: {KEY}")

    with pytest.raises(EmbeddingUnavailableError) as refused:
        await remote_kb.search("penguins", mode="vector")
    await remote_kb.store_fact("puffins fly")

    assert KEY not in str(refused.value)
    assert KEY not in caplog.text


@pytest.mark.parametrize("kind", WRONG_ANSWERS)
async def test_wrong_answer_about_a_query_is_refused_and_forgotten(
    remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint, kind: Any
) -> None:
    endpoint.become(kind)

    # Many texts in one request: of one alone, an answer can hardly be out of order.
    by_words = await search_all(remote_kb, WORDS, timeout=5)
    with pytest.raises(UnavailableError):
        await remote_kb.search("penguins", mode="vector", timeout=5)
    endpoint.become("well")

    async def whole() -> bool:
        return (await remote_kb.search("penguins"))["degraded"] == []

    assert all(results["degraded"] == ["vector"] for results in by_words)
    await eventually(whole)
    assert (await found(remote_kb, "penguins", mode="vector"))[0] == "p"


@pytest.mark.parametrize("kind", WRONG_ANSWERS)
async def test_wrong_answer_about_a_passage_is_never_stored(
    remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint, control: Control, namespace: str, kind: Any
) -> None:
    endpoint.become(kind)

    result = await remote_kb.store_facts({"content": word, "fact_id": word} for word in WORDS)
    stored = vectors_stored(control, namespace)
    endpoint.become("well")

    assert (result["succeeded"], stored) == (len(WORDS), 2)
    await eventually(lambda: vectors_stored(control, namespace) == len(WORDS) + 2, within=30)
    for word in WORDS:
        assert vector_of(control, namespace, word) == pytest.approx(endpoint.vector(word), abs=1e-6)


@pytest.mark.parametrize("kind", LIES)
async def test_one_wrong_vector_among_right_ones_is_never_stored(
    remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint, control: Control, namespace: str, kind: Any
) -> None:
    endpoint.become(kind, only_last=True)

    await remote_kb.store_facts({"content": word, "fact_id": word} for word in WORDS)
    stored = {word: vector_of(control, namespace, word) for word in WORDS}
    endpoint.become("well")

    assert None in stored.values()
    for word, vector in stored.items():
        assert vector is None or vector == pytest.approx(endpoint.vector(word), abs=1e-6)
    await eventually(lambda: vectors_stored(control, namespace) == len(WORDS) + 2, within=30)


async def test_each_text_gets_its_own_vector_whatever_their_order(
    remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint, control: Control, namespace: str
) -> None:
    endpoint.become("permuted")

    await remote_kb.store_facts({"content": word, "fact_id": word} for word in WORDS)
    results = await search_all(remote_kb, WORDS, mode="vector")

    assert max(map(len, endpoint.counters.inputs)) > 1
    assert [hit_ids(result)[0] for result in results[2:]] == WORDS[2:]
    for word in WORDS:
        assert vector_of(control, namespace, word) == pytest.approx(endpoint.vector(word), abs=1e-6)


@pytest.mark.parametrize("status", [413, 400])
async def test_smaller_batches_are_sent_to_an_endpoint_that_takes_no_larger(
    remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint, control: Control, namespace: str, status: int
) -> None:
    endpoint.batch_limit, endpoint.batch_status = 8, status
    facts = [{"content": f"puffin number{number}"} for number in range(64)]

    await remote_kb.store_facts(facts)
    await eventually(lambda: vectors_stored(control, namespace) == len(facts) + 2, within=30)
    refused = endpoint.counters.refused
    await remote_kb.store_facts({"content": f"skua number{number}"} for number in range(64))
    await eventually(lambda: vectors_stored(control, namespace) == 2 * len(facts) + 2, within=30)

    assert refused >= 1
    assert endpoint.counters.refused == refused
    assert await breaker_failures(remote_kb) == 0


async def test_text_that_is_refused_does_not_harm_those_beside_it(
    remote_kb: KnowledgeBase, endpoint: OpenAIEndpoint, control: Control, namespace: str
) -> None:
    endpoint.become("status", status=400, containing="puffins")

    await remote_kb.store_facts({"content": word, "fact_id": word} for word in WORDS)

    await eventually(lambda: vectors_stored(control, namespace) == len(WORDS) - 1 + 2, within=30)
    assert vector_of(control, namespace, "puffins") is None
    assert (await remote_kb.search("seals"))["degraded"] == []


async def test_hanging_endpoint_leaves_time_for_the_words_of_every_caller(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, remote_kb: KnowledgeBase
) -> None:
    endpoint.become("hang")

    results = await search_all(remote_kb, [f"penguins {number}" for number in range(100)], timeout=5)

    assert all((hit_ids(result), result["degraded"]) == (["p"], ["vector"]) for result in results)
    assert endpoint.counters.most <= 10


async def test_open_breaker_asks_nothing_of_a_hanging_endpoint(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, remote_kb: KnowledgeBase
) -> None:
    kb = open_remote(breaker=BreakerSettings(failures=3, reset_after=60))
    await kb.search("walruses")
    endpoint.become("hang")
    await search_all(kb, [f"penguins {number}" for number in range(10)], timeout=1)
    asked = endpoint.counters.requests

    results = await search_all(kb, [f"penguins again {number}" for number in range(50)])

    assert all((hit_ids(result), result["degraded"]) == (["p"], ["vector"]) for result in results)
    assert endpoint.counters.requests == asked


async def test_one_failed_request_is_one_failure_whoever_waits_for_it(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint, remote_kb: KnowledgeBase
) -> None:
    kb = open_remote({"batch_wait": 0.2}, breaker=BreakerSettings(failures=5, reset_after=60))
    await kb.search("walruses")
    endpoint.reset()
    endpoint.become("status", status=401)

    results = await search_all(kb, [f"penguins {number}" for number in range(20)])

    assert all(result["degraded"] == ["vector"] for result in results)
    assert await breaker_failures(kb) == endpoint.counters.requests < 5


async def test_stores_are_acknowledged_while_it_hangs_and_indexed_when_it_is_back(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint
) -> None:
    kb = open_remote(breaker=IMPATIENT, timeouts=Timeouts(embedding=1))
    await kb.store_fact("penguins swim", fact_id="p")
    endpoint.become("hang")

    stored = await asyncio.gather(*(kb.store_fact(word, fact_id=word) for word in WORDS))
    by_words = await found(kb, "puffins", mode="text")
    endpoint.become("well")

    assert all((result["status"], result["indexed"]) == ("success", False) for result in stored)
    assert by_words == ["puffins"]

    async def indexed() -> bool:
        return all([(await only(kb, word))["indexed"] for word in WORDS])

    await eventually(indexed, within=30)
    assert (await found(kb, "puffins", mode="vector"))[0] == "puffins"


async def test_stores_that_wait_for_their_turn_are_acknowledged_too_while_it_hangs(
    open_remote: OpenRemote, endpoint: OpenAIEndpoint
) -> None:
    kb = open_remote(timeouts=Timeouts(store=4, embedding=4), limits=Limits(concurrent_stores=2), breaker=IMPATIENT)
    await kb.store_fact("penguins swim", fact_id="p")
    endpoint.become("hang")

    stored = await asyncio.gather(*(kb.store_fact(f"puffin number{number}") for number in range(10)))

    assert all((result["status"], result["indexed"]) == ("success", False) for result in stored)


async def test_request_that_takes_too_long_is_ended(open_remote: OpenRemote, endpoint: OpenAIEndpoint) -> None:
    kb = open_remote(timeouts=Timeouts(embedding=1), breaker=IMPATIENT)
    await kb.store_fact("penguins swim", fact_id="p")
    endpoint.become("hang")

    with pytest.raises(UnavailableError):
        await kb.search("penguins", mode="vector")

    await eventually(lambda: endpoint.counters.now == 0)


async def test_slow_body_counts_as_time(open_remote: OpenRemote, endpoint: OpenAIEndpoint) -> None:
    kb = open_remote(timeouts=Timeouts(embedding=1), breaker=IMPATIENT)
    await kb.store_fact("penguins swim", fact_id="p")
    # Each piece comes in time; the whole does not.
    endpoint.become("slow body", seconds=4)

    with pytest.raises(UnavailableError):
        await kb.search("penguins", mode="vector")


async def test_nobody_listens_and_words_answer(open_remote: OpenRemote, endpoint: OpenAIEndpoint) -> None:
    kb = open_remote(breaker=IMPATIENT)
    await kb.store_fact("penguins swim", fact_id="p")
    await endpoint.__aexit__()
    try:
        results = await kb.search("penguins", timeout=3)
    finally:
        await endpoint.__aenter__()

    assert (hit_ids(results), results["degraded"]) == (["p"], ["vector"])

    async def whole() -> bool:
        return (await kb.search("swimming penguins"))["degraded"] == []

    await eventually(whole)
