"""Answers of an LLM behind an OpenAI-compatible endpoint, over real HTTP, and all that can go wrong there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.answers.answerer import Answerer
from knowledge_base.answers.parts import Parts, streamed
from knowledge_base.connection.deadline import deadline
from knowledge_base.errors import KnowledgeBaseError, LLMUnavailableError, OperationTimeoutError, UnavailableError
from knowledge_base.settings import LLMSettings
from knowledge_base.types import Answer, AnswerPart
from tests.support.answers import BREAKER, COFFEE, TEA, FoundAtOnce, ask_both_ways, question, read, said, token_counter
from tests.support.polling import eventually

if TYPE_CHECKING:
    from tests.support.openai_endpoint import OpenAIEndpoint

KEY = "sk-very-secret"
SOON = 0.5
# Between the moment at which nobody waits any more and the one at which the thread is free.
PROMPTLY = 2.0

OpenAnswerer = Callable[..., Answerer]


@pytest.fixture
async def open_answerer(endpoint: OpenAIEndpoint) -> AsyncIterator[OpenAnswerer]:
    made: list[Answerer] = []
    async with token_counter() as tokens:

        def make(**changes: Any) -> Answerer:
            usual = {"model": "any-model:7b", "base_url": endpoint.base_url, "api_key": KEY}
            settings = LLMSettings(**{**usual, **changes})
            made.append(Answerer(settings, FoundAtOnce(), tokens, timeout=60.0, breaker=BREAKER))
            return made[-1]

        yield make
        endpoint.become("well")
        for one in made:
            await one.close(10.0)


@pytest.fixture
async def answerer(open_answerer: OpenAnswerer, endpoint: OpenAIEndpoint) -> Answerer:
    """An answerer that has answered before."""
    one = open_answerer()
    endpoint.answers.append("Yes.")
    await one.answer(question())
    endpoint.reset()
    return one


def in_use(answerer: Answerer) -> int:
    return answerer.stats()["LLM threads"]["in_use"]


async def nobody_waits(answerer: Answerer, endpoint: OpenAIEndpoint) -> None:
    """Waits until neither a thread nor the endpoint works for nobody."""
    await eventually(lambda: not in_use(answerer) and not endpoint.counters.now, PROMPTLY)
    assert answerer.stats()["LLM threads"]["abandoned"] == 0


def stream(answerer: Answerer, budget: float = 60.0) -> AsyncGenerator[AnswerPart, None]:
    async def work(parts: Parts) -> Answer:
        async with deadline("stream_answer", budget):
            return await answerer.answer(question(), parts)

    return streamed(work)


async def test_any_model_answers_from_numbered_passages(open_answerer: OpenAnswerer, endpoint: OpenAIEndpoint):
    endpoint.answers.append("Tea is at four [1], coffee at ten [2][9].")

    answered = await open_answerer().answer(
        question("When is tea?", history=[said("system", "Obey."), said("user", "Hello"), said("assistant", "Hello!")])
    )

    assert answered["citations"] == [TEA, COFFEE]
    (messages,) = endpoint.counters.prompts
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert [message["content"] for message in messages[1:3]] == ["Hello", "Hello!"]
    assert "[1]\n  Tea is at four." in messages[3]["content"]
    assert messages[3]["content"].endswith("When is tea?")
    assert endpoint.counters.authorizations == {f"Bearer {KEY}"}


async def test_endpoint_without_a_key_is_asked_all_the_same(open_answerer: OpenAnswerer, endpoint: OpenAIEndpoint):
    endpoint.answers.append("Four. [1]")

    assert (await open_answerer(api_key=None).answer(question()))["citations"] == [TEA]


async def test_parts_come_while_the_endpoint_still_writes(answerer: Answerer, endpoint: OpenAIEndpoint):
    endpoint.answers.append("Tea is at four. [1]")
    endpoint.become("slow body", seconds=1.0)
    deltas: list[str] = []
    at_first: int | None = None

    async for part in stream(answerer):
        if at_first is None:
            at_first = endpoint.counters.now
        deltas.append(part.get("delta", ""))

    assert at_first == 1
    assert "".join(deltas) == "Tea is at four. [1]"
    assert part["answer"]["citations"] == [TEA]


@pytest.mark.parametrize(
    ("kind", "details", "says"),
    [
        ("status", {"status": 500}, "answered 500.*retry"),
        ("status", {"status": 429}, "answered 429.*KB_LLM__MAX_CONCURRENT_REQUESTS"),
        ("status", {"status": 401}, "answered 401.*KB_LLM__API_KEY"),
        ("status", {"status": 404}, "answered 404.*KB_LLM__MODEL"),
        ("status", {"status": 400}, "answered 400.*KB_LLM__CONTEXT_WINDOW"),
        ("cut before", {}, "APIConnectionError"),
        ("cut within", {}, "failed|broke off"),
        ("no json", {}, "no chat completion"),
        ("wrong shape", {}, "no chat completion"),
    ],
)
async def test_endpoint_that_fails_is_unavailable(
    kind: Any, details: dict[str, Any], says: str, answerer: Answerer, endpoint: OpenAIEndpoint
):
    endpoint.become(kind, message=f"no answer for {KEY}: Tea is at four.", **details)

    errors = await ask_both_ways(answerer)

    for error in errors:
        with pytest.raises(LLMUnavailableError, match=says):
            raise error
        assert KEY not in str(error)
        assert "four" not in str(error)
    assert endpoint.counters.chats == 2
    await nobody_waits(answerer, endpoint)


async def test_nobody_at_the_address_is_unavailable(open_answerer: OpenAnswerer):
    for error in await ask_both_ways(open_answerer(base_url="http://127.0.0.1:9/v1")):
        assert isinstance(error, LLMUnavailableError)


@pytest.mark.parametrize(("status", "failures"), [(500, 2), (429, 2), (401, 0), (404, 0), (400, 0)])
async def test_refusals_of_a_request_open_no_circuit(
    status: int, failures: int, answerer: Answerer, endpoint: OpenAIEndpoint
):
    endpoint.become("status", status=status)

    await ask_both_ways(answerer)

    assert answerer.breakers()[0]["failures"] == failures


async def test_empty_answers_open_no_circuit(answerer: Answerer, endpoint: OpenAIEndpoint):
    endpoint.answers += [""] * 2 * BREAKER.failures

    for _ in range(2 * BREAKER.failures):
        with pytest.raises(LLMUnavailableError, match="empty answer"):
            await answerer.answer(question())

    assert answerer.breakers()[0]["state"] == "closed"


async def test_answer_that_breaks_off_is_no_answer(answerer: Answerer, endpoint: OpenAIEndpoint):
    endpoint.answers.append("Tea is at four, but only on days that do not end in y. [1]")
    endpoint.then("cut within")
    parts = stream(answerer)

    assert "delta" in await anext(parts)
    with pytest.raises(LLMUnavailableError):
        await drained(parts)


async def test_endpoint_that_hangs_is_late_and_left(answerer: Answerer, endpoint: OpenAIEndpoint):
    endpoint.become("hang")

    with pytest.raises(OperationTimeoutError, match=r"stream_answer was not done within 0\.5 s \(spent in the LLM\)"):
        await drained(stream(answerer, SOON))

    await nobody_waits(answerer, endpoint)
    assert endpoint.counters.cancelled == 1


async def test_endpoint_that_hangs_between_two_parts_is_late_and_left(answerer: Answerer, endpoint: OpenAIEndpoint):
    endpoint.answers.append("Tea is at four. [1]")
    endpoint.become("slow body", seconds=200.0)

    with pytest.raises(OperationTimeoutError, match="stream_answer"):
        await drained(stream(answerer, SOON))

    await nobody_waits(answerer, endpoint)


async def test_cancelled_question_leaves_the_endpoint(answerer: Answerer, endpoint: OpenAIEndpoint):
    endpoint.become("hang")
    asking = asyncio.ensure_future(answerer.answer(question()))
    await eventually(lambda: endpoint.held)

    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking
    await nobody_waits(answerer, endpoint)
    assert answerer.breakers()[0]["failures"] == 0


async def test_reader_that_goes_away_leaves_the_endpoint(answerer: Answerer, endpoint: OpenAIEndpoint):
    endpoint.answers.append("Tea is at four. [1]")
    endpoint.become("slow body", seconds=200.0)
    parts = stream(answerer)
    reading = asyncio.ensure_future(drained(parts))
    await eventually(lambda: endpoint.counters.now)

    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await parts.aclose()

    await nobody_waits(answerer, endpoint)


async def test_closing_leaves_the_endpoint(answerer: Answerer, endpoint: OpenAIEndpoint):
    endpoint.become("hang")
    asking = asyncio.ensure_future(answerer.answer(question()))
    await eventually(lambda: endpoint.held)

    await answerer.close(10.0)

    with pytest.raises(UnavailableError, match="closed"):
        await asking
    assert answerer.breakers()[0]["failures"] == 0
    await nobody_waits(answerer, endpoint)


async def test_no_more_requests_at_once_than_allowed(open_answerer: OpenAnswerer, endpoint: OpenAIEndpoint):
    answerer = open_answerer(max_concurrent_requests=3)
    endpoint.latency = 0.05
    endpoint.answers.extend("Four. [1]" for _ in range(30))

    outcomes = await asyncio.gather(*(read(answerer, question()) for _ in range(30)))

    assert all(answer["citations"] == [TEA] for _, answer in outcomes)
    assert endpoint.counters.most == 3


async def test_many_that_come_and_go_leave_nothing_behind(answerer: Answerer, endpoint: OpenAIEndpoint):
    endpoint.answers.extend("Tea is at four. [1]" for _ in range(60))
    endpoint.become("slow body", seconds=0.2)

    async def come_and_go(number: int) -> None:
        with contextlib.suppress(KnowledgeBaseError, TimeoutError):
            async with asyncio.timeout(0.01 * number):
                await read(answerer, question())

    await asyncio.gather(*(come_and_go(number) for number in range(60)))

    await nobody_waits(answerer, endpoint)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "kb-answer"]
    endpoint.become("well")
    endpoint.answers.clear()
    endpoint.answers.append("Four. [1]")
    assert (await answerer.answer(question()))["citations"] == [TEA]


async def drained(parts: AsyncIterator[AnswerPart]) -> None:
    async for _ in parts:
        pass
