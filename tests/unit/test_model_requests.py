"""One request to the model: repeated where that helps, split where it was refused, checked, and counted once."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from knowledge_base.errors import (
    CircuitOpenError,
    EmbeddingUnavailableError,
    KnowledgeBaseError,
    OperationTimeoutError,
    OverloadedError,
)
from tests.support.instant_loop import instantly
from tests.support.polling import eventually
from tests.support.scripted_requests import (
    FAILURES,
    RESET,
    APIConnectionError,
    Requests,
    ScriptedRequests,
    StatusError,
    vector_for,
)

RETRIES = 3


async def test_texts_become_vectors_by_one_request_of_their_kind() -> None:
    passages = ScriptedRequests()
    one = Requests(passages=passages)

    assert await one.send("a", "bb") == [vector_for("a"), vector_for("bb")]
    assert await one.send("c", kind="query") == [vector_for("c")]

    assert (passages.requests, one.endpoint.requests) == ([["a", "bb"]], [["c"]])


@pytest.mark.parametrize("error", [StatusError(status) for status in (408, 409, 429, 500, 502, 503, 504)], ids=str)
def test_busy_endpoint_is_asked_again_and_no_failure_is_counted(error: StatusError) -> None:
    async def test() -> None:
        one = Requests()
        one.endpoint.then(error, error)

        assert await one.send("a") == [vector_for("a")]

        assert one.endpoint.requests == [["a"]] * 3
        assert one.requests.retried == 2
        assert one.failures == 0

    instantly(test)


def test_lost_connection_is_made_again() -> None:
    async def test() -> None:
        one = Requests()
        one.endpoint.then(APIConnectionError())

        assert await one.send("a") == [vector_for("a")]

    instantly(test)


def test_pauses_between_repeats_grow() -> None:
    async def test() -> None:
        one = Requests()
        one.endpoint.then(*[StatusError(503)] * 3)

        await one.send("a")

        pauses = [later - earlier for earlier, later in zip(one.endpoint.at, one.endpoint.at[1:], strict=False)]
        assert [0.25 <= pauses[0] <= 0.5, 0.5 <= pauses[1] <= 1.0, 1.0 <= pauses[2] <= 2.0] == [True] * 3

    instantly(test)


def test_endpoint_that_says_when_is_asked_then() -> None:
    async def test() -> None:
        one = Requests()
        one.endpoint.then(StatusError(429, retry_after="7"), StatusError(503, retry_after_ms="1500"))

        await one.send("a")

        assert one.endpoint.at == [0.0, 7.0, 8.5]

    instantly(test)


@pytest.mark.parametrize("retries", [0, 1, RETRIES])
def test_request_that_stays_refused_fails_once(retries: int) -> None:
    async def test() -> None:
        one = Requests(retries=retries)
        one.endpoint.judge = lambda _: StatusError(503)

        with pytest.raises(EmbeddingUnavailableError, match="503"):
            await one.send("a", "b")

        assert one.endpoint.requests == [["a", "b"]] * (retries + 1)
        assert one.failures == 1

    instantly(test)


def test_pause_that_would_not_end_in_time_is_not_begun() -> None:
    async def test() -> None:
        one = Requests(timeout=5.0)
        one.endpoint.judge = lambda _: StatusError(429, retry_after="5")

        with pytest.raises(EmbeddingUnavailableError, match="429"):
            await one.send("a")

        assert one.endpoint.at == [0.0]
        assert asyncio.get_running_loop().time() == 0.0
        assert one.failures == 1

    instantly(test)


@pytest.mark.parametrize("error", [StatusError(401), StatusError(403), StatusError(404), RuntimeError()], ids=repr)
async def test_what_no_repeat_helps_is_told_at_once_and_counts(error: Exception) -> None:
    one = Requests()
    one.endpoint.then(error)

    with pytest.raises(EmbeddingUnavailableError) as caught:
        await one.send("a", "b")

    assert caught.value.__cause__ is error
    assert one.endpoint.requests == [["a", "b"]]
    assert one.failures == 1


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_refused_text_is_told_at_once_and_does_not_count(status: int) -> None:
    one = Requests()
    one.endpoint.judge = lambda _: StatusError(status)

    for _ in range(FAILURES + 1):
        with pytest.raises(EmbeddingUnavailableError, match=str(status)):
            await one.send("a")

    assert len(one.endpoint.requests) == FAILURES + 1
    assert one.breaker.state == "closed"


async def test_refused_text_shows_that_the_endpoint_is_well() -> None:
    one = Requests(retries=0)
    one.endpoint.then(*[StatusError(503)] * (FAILURES - 1), StatusError(422))
    for _ in range(FAILURES):
        with pytest.raises(EmbeddingUnavailableError):
            await one.send("a")

    assert one.failures == 0


def test_endpoint_that_hangs_is_given_up_and_counts_once() -> None:
    async def test() -> None:
        one = Requests(timeout=5.0)
        one.endpoint.latency = 1_000.0

        with pytest.raises(OperationTimeoutError) as caught:
            await one.send("a")

        assert (caught.value.operation, caught.value.budget) == ("the embedding model", 5.0)
        assert one.endpoint.requests == [["a"]]
        assert one.failures == 1

    instantly(test)


def test_probe_is_not_repeated() -> None:
    async def test() -> None:
        one = Requests()
        one.endpoint.judge = lambda _: StatusError(503, retry_after="0")
        for _ in range(FAILURES):
            with pytest.raises(EmbeddingUnavailableError):
                await one.send("a")
        before = len(one.endpoint.requests)
        with pytest.raises(CircuitOpenError):
            await one.send("a")
        await asyncio.sleep(RESET)

        with pytest.raises(EmbeddingUnavailableError):
            await one.send("a")

        assert len(one.endpoint.requests) == before + 1
        assert one.breaker.state == "open"

    instantly(test)


async def test_our_own_errors_pass_and_say_nothing_about_the_model() -> None:
    one = Requests()
    own = KnowledgeBaseError("mine")
    one.endpoint.then(own)

    with pytest.raises(KnowledgeBaseError) as caught:
        await one.send("a")

    assert caught.value is own
    assert one.failures == 0


def test_rate_limit_holds_for_repeats_and_halves() -> None:
    async def test() -> None:
        one = Requests(requests_per_minute=60, timeout=1_000.0)
        for _ in range(60):
            await one.send("a")
        one.endpoint.then(StatusError(503, retry_after="0"), StatusError(413))

        await one.send("a", "b")

        assert one.endpoint.at[60:] == pytest.approx([1.0, 2.0, 3.0, 4.0])

    instantly(test)


def test_rate_limit_lets_queries_go_before_passages() -> None:
    async def test() -> None:
        one = Requests(requests_per_minute=60, timeout=1_000.0)
        for _ in range(60):
            await one.send("a")

        await asyncio.gather(one.send("p1"), one.send("p2"), one.send("q", kind="query"))

        assert one.endpoint.requests[60:] == [["q"], ["p1"], ["p2"]]

    instantly(test)


def test_rate_limit_that_leaves_no_room_in_time_does_not_count_against_the_endpoint() -> None:
    async def test() -> None:
        one = Requests(requests_per_minute=1, timeout=5.0)
        await one.send("a")

        for _ in range(FAILURES):
            with pytest.raises(OverloadedError):
                await one.send("b")

        assert one.breaker.state == "closed"
        assert one.endpoint.requests == [["a"]]

    instantly(test)


@pytest.mark.parametrize("answer", [[[1.0, 0.0]], [[1.0, 0.0]] * 3, []], ids=len)
async def test_other_number_of_vectors_than_texts_is_refused(answer: Any) -> None:
    one = Requests()
    one.endpoint.then(answer)

    with pytest.raises(EmbeddingUnavailableError, match=f"{len(answer)} vectors for 2 texts"):
        await one.send("a", "b")


@pytest.mark.parametrize(
    "bad", [[1.0], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], [1e39, 0.0], ["1", "2"], "ab", None, 1.0], ids=repr
)
async def test_unusable_vector_fails_alone_and_is_no_failure_of_the_endpoint(bad: Any) -> None:
    one = Requests()
    one.endpoint.then([[1.0, 0.0], bad, [0.0, 1.0]])

    first, second, third = await one.send("a", "b", "c")

    assert (first, third) == ([1.0, 0.0], [0.0, 1.0])
    assert isinstance(second, EmbeddingUnavailableError)
    assert one.failures == 0


@pytest.mark.parametrize("answer", [None, 7, "ab", {"a": 1, "b": 2}], ids=repr)
async def test_answer_that_holds_no_vectors_is_refused(answer: Any) -> None:
    one = Requests()
    one.endpoint.then(answer)

    try:
        outcomes = await one.send("a", "b")
    except EmbeddingUnavailableError:
        outcomes = []

    assert all(isinstance(outcome, EmbeddingUnavailableError) for outcome in outcomes)


async def test_dimension_is_learned_from_the_first_usable_vector() -> None:
    one = Requests(dimension=None)
    one.endpoint.then([[math.nan, 1.0, 1.0], [], [1.0, 2.0], [1.0, 2.0, 3.0]])

    outcomes = await one.send("a", "b", "c", "d")

    assert [isinstance(outcome, list) for outcome in outcomes] == [False, False, True, False]
    assert one.requests.dimension == 2


async def test_cancelled_request_counts_as_nothing() -> None:
    one = Requests()
    one.endpoint.latency = 1_000.0
    task = asyncio.create_task(one.send("a"))
    await eventually(lambda: one.endpoint.requests)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert one.failures == 0
