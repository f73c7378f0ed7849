"""Answers and their threads: late, cancelled, slow, many and closed ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from knowledge_base.answers.answerer import LEAD, Answerer
from knowledge_base.answers.parts import MOST_WAITING, Parts, streamed
from knowledge_base.connection.deadline import current_deadline, deadline
from knowledge_base.errors import OperationTimeoutError, OverloadedError, UnavailableError
from knowledge_base.types import Answer, AnswerPart
from tests.support.answers import BREAKER, NewAnswerer, question, read
from tests.support.llms import ScriptedLLM, words
from tests.support.polling import eventually

SOON = 0.3


def in_use(answerer: Answerer) -> int:
    return answerer.stats()["LLM threads"]["in_use"]


def abandoned(answerer: Answerer) -> int:
    return answerer.stats()["LLM threads"]["abandoned"]


def stream(answerer: Answerer, budget: float = 60.0) -> AsyncGenerator[AnswerPart, None]:
    async def work(parts: Parts) -> Answer:
        async with deadline("stream_answer", budget):
            return await answerer.answer(question(), parts)

    return streamed(work)


async def drained(parts: AsyncIterator[AnswerPart]) -> None:
    async for _ in parts:
        pass


async def late(answerer: Answerer, budget: float = SOON) -> Answer:
    async with deadline("ask", budget):
        return await answerer.answer(question())


async def test_llm_that_hangs_is_late_and_its_thread_counted_until_it_returns(
    new_answerer: NewAnswerer, llm: ScriptedLLM
):
    answerer = new_answerer()
    await answerer.preload()
    llm.become("hanging")

    with pytest.raises(OperationTimeoutError, match=r"ask was not done within 0.3 s \(spent in the LLM\)"):
        await late(answerer)

    assert abandoned(answerer) == in_use(answerer) == 1
    llm.become("well")
    await eventually(lambda: not abandoned(answerer) and not in_use(answerer))


async def test_one_request_has_a_limit_of_its_own(new_answerer: NewAnswerer, llm: ScriptedLLM):
    answerer = new_answerer()
    await answerer.preload()
    answerer._timeout = SOON
    llm.become("hanging")

    with pytest.raises(OperationTimeoutError, match=r"the LLM was not done within 0\.3 s"):
        await answerer.answer(question())


async def test_llm_that_hangs_between_two_parts_is_late(new_answerer: NewAnswerer, llm: ScriptedLLM):
    answerer = new_answerer()
    await answerer.preload()
    llm.become("hanging after the first word")
    parts = stream(answerer, SOON)

    first = await anext(parts)
    with pytest.raises(OperationTimeoutError, match="stream_answer"):
        await anext(parts)

    assert first == {"delta": "Tea "}
    assert abandoned(answerer) == 1
    llm.become("well")
    await eventually(lambda: llm.closed and not in_use(answerer))
    assert llm.words == 2


async def test_llm_that_hangs_opens_the_circuit(new_answerer: NewAnswerer, llm: ScriptedLLM):
    answerer = new_answerer()
    await answerer.preload()
    llm.become("hanging")

    for _ in range(BREAKER.failures):
        await asyncio.gather(late(answerer, 0.1), return_exceptions=True)

    assert answerer.breakers()[0]["state"] == "open"


async def test_reader_that_is_slow_does_not_count_against_the_llm(new_answerer: NewAnswerer, llm: ScriptedLLM):
    answerer = new_answerer()
    await answerer.preload()
    llm.text = words(10 * MOST_WAITING)
    parts = stream(answerer, SOON)

    await anext(parts)
    await asyncio.sleep(2 * SOON)
    with pytest.raises(OperationTimeoutError, match="stream_answer"):
        await anext(parts)

    assert answerer.breakers()[0]["failures"] == 0
    await eventually(lambda: llm.closed and not in_use(answerer))


async def test_llm_waits_for_a_reader_that_is_slow(new_answerer: NewAnswerer, llm: ScriptedLLM):
    answerer = new_answerer()
    llm.text = words(10 * MOST_WAITING)

    async with contextlib.aclosing(stream(answerer)) as parts:
        await anext(parts)
        await eventually(lambda: llm.words >= MOST_WAITING)
        await asyncio.sleep(SOON)
        given = llm.words
        rest = [part async for part in parts]

    assert given <= MOST_WAITING + 2
    assert "".join(part.get("delta", "") for part in rest) == llm.text.removeprefix("word0 ")
    assert rest[-1]["answer"]["answer"] == llm.text


async def test_reader_that_leaves_ends_the_answer(new_answerer: NewAnswerer, llm: ScriptedLLM):
    answerer = new_answerer()
    llm.text = words(10 * MOST_WAITING)

    async for _ in stream(answerer):
        break

    await eventually(lambda: llm.closed and not in_use(answerer))
    assert llm.words <= MOST_WAITING + 2
    assert abandoned(answerer) == 0


async def test_cancelled_reader_ends_the_answer(new_answerer: NewAnswerer, llm: ScriptedLLM):
    answerer = new_answerer()
    llm.become("hanging after the first word")
    parts = stream(answerer)
    await anext(parts)
    reading = asyncio.ensure_future(drained(parts))
    await asyncio.sleep(0)

    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    llm.become("well")

    await eventually(lambda: llm.closed and not in_use(answerer))
    assert llm.words == 2
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "kb-answer"]


async def test_cancelled_question_is_cancelled(new_answerer: NewAnswerer, llm: ScriptedLLM):
    answerer = new_answerer()
    llm.become("hanging")
    asking = asyncio.ensure_future(answerer.answer(question()))
    await eventually(lambda: llm.prompts)

    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking
    assert answerer.breakers()[0]["failures"] == 0
    llm.become("well")
    await eventually(lambda: not in_use(answerer))


async def test_deadline_is_not_the_reader_s(new_answerer: NewAnswerer):
    seen = [current_deadline() async for _ in stream(new_answerer())]

    assert seen == [None] * 6


async def test_too_many_questions_are_refused(new_answerer: NewAnswerer, llm: ScriptedLLM):
    answerer = new_answerer(max_concurrent_requests=2, max_waiting_requests=1)
    await answerer.preload()
    llm.become("hanging")
    asked = [asyncio.ensure_future(answerer.answer(question())) for _ in range(3)]
    await eventually(lambda: answerer.stats()["LLM threads"]["waiting"] == 1)

    with pytest.raises(OverloadedError, match="the LLM threads"):
        await answerer.answer(question())

    llm.become("well")
    assert [answer["answer"] for answer in await asyncio.gather(*asked)] == [llm.text] * 3


async def test_question_that_only_waited_does_not_count_against_the_llm(new_answerer: NewAnswerer, llm: ScriptedLLM):
    answerer = new_answerer(max_concurrent_requests=1)
    await answerer.preload()
    llm.become("hanging")
    first = asyncio.ensure_future(answerer.answer(question()))
    await eventually(lambda: llm.prompts)

    with pytest.raises(UnavailableError):
        await late(answerer)

    assert answerer.breakers()[0]["failures"] == 0
    llm.become("well")
    await first
    assert len(llm.prompts) == 1


async def test_turn_that_comes_in_the_last_moment_does_not_count_against_the_llm(
    new_answerer: NewAnswerer, llm: ScriptedLLM
):
    answerer = new_answerer(max_concurrent_requests=1)
    await answerer.preload()
    llm.become("hanging")
    first = asyncio.ensure_future(answerer.answer(question()))
    await eventually(lambda: llm.prompts)
    second = asyncio.ensure_future(late(answerer, budget=2 * SOON))

    await asyncio.sleep(2 * SOON - LEAD / 2)
    llm.become("well")
    await first

    with pytest.raises(UnavailableError):
        await second
    assert answerer.breakers()[0]["failures"] == 0
    assert len(llm.prompts) == 1


async def test_closing_ends_an_answer_under_way(new_answerer: NewAnswerer, llm: ScriptedLLM):
    answerer = new_answerer()
    llm.text = words(10 * MOST_WAITING)
    parts = stream(answerer)
    await anext(parts)

    await answerer.close(10.0)

    with pytest.raises(UnavailableError, match="closed"):
        await drained(parts)
    assert llm.closed
    assert answerer.breakers()[0]["failures"] == 0


async def test_closing_does_not_wait_for_an_llm_that_hangs(new_answerer: NewAnswerer, llm: ScriptedLLM):
    answerer = new_answerer()
    llm.become("hanging")
    asking = asyncio.ensure_future(answerer.answer(question()))
    await eventually(lambda: llm.prompts)

    await answerer.close(0.1)

    with pytest.raises(UnavailableError, match="closed"):
        await asking


async def test_many_streams_come_in_order_each(new_answerer: NewAnswerer, llm: ScriptedLLM):
    answerer = new_answerer(max_concurrent_requests=4)
    llm.text = words(3 * MOST_WAITING)

    outcomes = await asyncio.gather(*(read(answerer, question()) for _ in range(12)))

    for said, answered in outcomes:
        assert "".join(said) == answered["answer"] == llm.text
    assert answerer.stats()["LLM threads"]["connections"] <= 4
