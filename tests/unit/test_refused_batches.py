"""A batch that the endpoint refuses: the bad text fails alone, and a limit is learned."""

from __future__ import annotations

import asyncio
import math

import pytest

from knowledge_base.errors import EmbeddingUnavailableError, OperationTimeoutError, OverloadedError
from tests.support.instant_loop import instantly
from tests.support.scripted_requests import Requests, StatusError, vector_for


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("count", [2, 3, 7, 32])
async def test_one_bad_text_fails_alone(status: int, count: int) -> None:
    texts = [f"text {number}" for number in range(count)]
    for bad in texts:
        one = Requests()
        one.endpoint.judge = lambda sent, bad=bad: StatusError(status) if bad in sent else None  # type: ignore[misc]

        outcomes = await one.send(*texts)

        for text, outcome in zip(texts, outcomes, strict=True):
            if text == bad:
                assert isinstance(outcome, EmbeddingUnavailableError)
                assert isinstance(outcome.__cause__, StatusError)
            else:
                assert outcome == vector_for(text)
        # Three more tell whether it is about the texts at all.
        assert len(one.endpoint.requests) <= 2 * math.ceil(math.log2(count)) + 4
        assert one.learned == []
        assert one.failures == 0


async def test_every_text_may_be_bad() -> None:
    one = Requests()
    one.endpoint.judge = lambda _: StatusError(422)

    outcomes = await one.send("a", "b", "c")

    assert [type(outcome) for outcome in outcomes] == [EmbeddingUnavailableError] * 3
    assert one.learned == []


@pytest.mark.parametrize(("limit", "count"), [(1, 2), (4, 32), (5, 32), (31, 32), (3, 7)])
async def test_batch_limit_of_the_endpoint_is_found_and_told(limit: int, count: int) -> None:
    one = Requests()
    one.endpoint.judge = lambda sent: StatusError(413) if len(sent) > limit else None
    texts = [f"text {number}" for number in range(count)]

    assert await one.send(*texts) == [vector_for(text) for text in texts]

    kinds, learned = zip(*one.learned, strict=True)
    assert set(kinds) == {"passage"}
    assert limit / 2 < min(learned) <= limit


async def test_half_that_fails_otherwise_fails_the_whole() -> None:
    one = Requests(retries=0)
    one.endpoint.then(StatusError(413), [vector_for("a")], StatusError(500))

    with pytest.raises(EmbeddingUnavailableError, match="500"):
        await one.send("a", "b")

    assert one.learned == []
    assert one.failures == 1


def test_halves_share_the_time_of_the_whole() -> None:
    async def test() -> None:
        one = Requests(timeout=5.0)
        one.endpoint.latency = 2.0
        one.endpoint.judge = lambda sent: StatusError(413) if len(sent) > 1 else None

        with pytest.raises(OperationTimeoutError):
            await one.send("a", "b", "c", "d")

        assert asyncio.get_running_loop().time() == pytest.approx(5.0, abs=0.1)
        assert one.failures == 1

    instantly(test)


def test_rate_limit_that_leaves_no_room_for_the_halves_does_not_count_against_the_endpoint() -> None:
    async def test() -> None:
        one = Requests(requests_per_minute=20, timeout=5.0)
        for _ in range(20):
            await one.send("a")
        one.endpoint.judge = lambda sent: StatusError(413) if len(sent) > 1 else None

        with pytest.raises(OverloadedError):
            await one.send("a", "b")

        assert one.failures == 0

    instantly(test)


async def test_endpoint_that_refuses_everything_is_not_asked_for_each_text() -> None:
    one = Requests()
    one.endpoint.judge = lambda _: StatusError(400)

    outcomes = await one.send(*(f"text {number}" for number in range(32)))

    assert [type(outcome) for outcome in outcomes] == [EmbeddingUnavailableError] * 32
    assert len(one.endpoint.requests) == 3
    assert one.learned == []
