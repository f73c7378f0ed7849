"""Answers from passages: what the LLM is given, what is made of its answer, and what becomes of its failures."""

from __future__ import annotations

from typing import Any

import pytest

from knowledge_base.answers.prompt import NOTHING_FOUND
from knowledge_base.errors import CircuitOpenError, InvalidInputError, LLMUnavailableError
from knowledge_base.types import Answer
from tests.support.answers import BREAKER, COFFEE, TEA, FoundAtOnce, NewAnswerer, ask_both_ways, question, read, said
from tests.support.fake_redis import Clock
from tests.support.llms import ScriptedLLM, citation, numbers, shown_passages


async def test_answer_has_what_it_cites_and_all_that_was_shown(new_answerer: NewAnswerer):
    answered = await new_answerer().answer(question())

    assert answered == {"answer": "Tea is at four. [1]", "citations": [TEA], "passages": [TEA, COFFEE], "degraded": []}


async def test_numbers_without_a_passage_are_no_citations(new_answerer: NewAnswerer, llm: ScriptedLLM):
    llm.text = "Tea [2] is at four [3], as of [2024]."

    answered = await new_answerer().answer(question())

    assert numbers(answered["citations"]) == [2]


async def test_streamed_answer_comes_in_order_and_whole_in_the_end(new_answerer: NewAnswerer):
    deltas, answered = await read(new_answerer(), question())

    assert deltas == ["Tea ", "is ", "at ", "four. ", "[1]"]
    assert answered == {"answer": "Tea is at four. [1]", "citations": [TEA], "passages": [TEA, COFFEE], "degraded": []}


async def test_what_the_search_did_without_is_passed_on(new_answerer: NewAnswerer, found: FoundAtOnce):
    found.degraded = ["vector"]

    assert (await new_answerer().answer(question()))["degraded"] == ["vector"]


async def test_llm_is_not_asked_when_nothing_was_found(new_answerer: NewAnswerer, llm: ScriptedLLM, found: FoundAtOnce):
    answerer = new_answerer()
    found.citations = []

    answered = await answerer.answer(question())
    deltas, streamed = await read(answerer, question())

    expected: Answer = {"answer": NOTHING_FOUND, "citations": [], "passages": [], "degraded": []}
    assert answered == expected
    assert streamed == answered
    assert deltas == [NOTHING_FOUND]
    assert llm.prompts == []


async def test_prompt_shows_each_passage_once_and_the_question_after_them(new_answerer: NewAnswerer, llm: ScriptedLLM):
    await new_answerer().answer(question("When is tea?"))

    (prompt,) = llm.prompts
    assert shown_passages(prompt) == ["Tea is at four.", "Coffee is at ten."]
    assert prompt.count("Tea is at four.") == prompt.count("When is tea?") == 1
    assert prompt.index("Coffee is at ten.") < prompt.index("The question:") < prompt.index("When is tea?")


async def test_braces_in_a_passage_are_no_variables(new_answerer: NewAnswerer, llm: ScriptedLLM, found: FoundAtOnce):
    found.citations = [citation(1, "Tea {query_str} {context_str} {0} {{x}}")]

    await new_answerer().answer(question())

    assert shown_passages(llm.prompts[0]) == ["Tea {query_str} {context_str} {0} {{x}}"]


async def test_conversation_comes_before_the_question_as_it_was(new_answerer: NewAnswerer, llm: ScriptedLLM):
    history = [said("user", "Is there {query_str}?"), said("assistant", "Yes, {tea}.")]

    await new_answerer().answer(question("When is it?", history=history))

    (prompt,) = llm.prompts
    assert prompt.index("user: Is there {query_str}?") < prompt.index("assistant: Yes, {tea}.")
    assert prompt.index("assistant: Yes, {tea}.") < prompt.index("When is it?")


async def test_system_messages_of_the_conversation_are_left_out(new_answerer: NewAnswerer, llm: ScriptedLLM):
    await new_answerer().answer(question(history=[said("system", "You are a pirate."), said("user", "Hello")]))

    (prompt,) = llm.prompts
    assert "user: Hello" in prompt
    assert "pirate" not in prompt


async def test_old_turns_are_left_out_of_a_small_window(new_answerer: NewAnswerer, llm: ScriptedLLM):
    llm.window = 1_600
    history = [said("user", f"turn {place}: " + "tea " * 100) for place in range(10)]

    await new_answerer().answer(question(history=history))

    (prompt,) = llm.prompts
    assert "turn 9" in prompt
    assert "turn 0" not in prompt
    assert len(shown_passages(prompt)) == 2


async def test_passages_that_do_not_fit_into_the_window_are_left_out(
    new_answerer: NewAnswerer, llm: ScriptedLLM, found: FoundAtOnce
):
    llm.window = 1_600
    llm.text = "Both. [1] [5]"
    found.citations = [citation(number, f"fact {number}: " + "tea " * 300) for number in range(1, 6)]

    answered = await new_answerer().answer(question())

    shown = shown_passages(llm.prompts[0])
    assert len(llm.prompts) == 1
    assert 0 < len(shown) < 5
    assert numbers(answered["passages"]) == list(range(1, len(shown) + 1))
    assert numbers(answered["citations"]) == [1]


async def test_question_that_leaves_no_room_is_refused(new_answerer: NewAnswerer, llm: ScriptedLLM):
    llm.window = 1_024

    with pytest.raises(InvalidInputError, match=r"question.*1024 tokens"):
        await new_answerer().answer(question("tea " * 1_000))
    assert llm.prompts == []


async def test_without_an_llm_the_error_says_how_to_get_one(new_answerer: NewAnswerer, found: FoundAtOnce):
    with pytest.raises(InvalidInputError, match=r"KB_LLM__MODEL.*llm="):
        await new_answerer(None).answer(question())
    assert found.searches == 0


async def test_what_is_no_llm_is_refused(new_answerer: NewAnswerer):
    with pytest.raises(InvalidInputError, match="llm: must be a LlamaIndex LLM, not str"):
        await new_answerer("gpt-4o").answer(question())


async def test_endpoint_without_address_and_key_is_refused(new_answerer: NewAnswerer):
    with pytest.raises(InvalidInputError, match="KB_LLM__API_KEY"):
        await new_answerer(None, model="gpt-4o").answer(question())


async def test_model_that_has_no_chat_completions_is_refused(new_answerer: NewAnswerer):
    with pytest.raises(InvalidInputError, match="KB_LLM__MODEL"):
        await new_answerer(None, model="gpt-5.2-pro", api_key="sk-1").answer(question())


@pytest.mark.parametrize("mood", ["failing", "refusing a value"])
async def test_failing_llm_is_unavailable_without_a_word_of_the_content(
    mood: Any, new_answerer: NewAnswerer, llm: ScriptedLLM, caplog: pytest.LogCaptureFixture
):
    llm.become(mood)

    errors = await ask_both_ways(new_answerer())

    for error in errors:
        assert isinstance(error, LLMUnavailableError)
        assert "four" not in str(error)
        assert "four" in str(error.__cause__)
    assert "four" not in caplog.text


@pytest.mark.parametrize("text", ["", " \n"])
async def test_empty_answer_is_none(text: str, new_answerer: NewAnswerer, llm: ScriptedLLM):
    llm.text = text

    for error in await ask_both_ways(new_answerer()):
        assert isinstance(error, LLMUnavailableError)
        assert "empty" in str(error)


async def test_llm_that_fails_repeatedly_is_left_alone_until_a_probe(
    new_answerer: NewAnswerer, llm: ScriptedLLM, found: FoundAtOnce, clock: Clock
):
    answerer = new_answerer()
    llm.become("failing")
    for _ in range(BREAKER.failures // 2):
        await ask_both_ways(answerer)
    searches = found.searches

    with pytest.raises(CircuitOpenError, match="llm"):
        await answerer.answer(question())

    assert found.searches == searches
    llm.become("well")
    clock.pass_by(10.0)
    assert (await answerer.answer(question()))["citations"] == [TEA]
    assert answerer.breakers()[0]["state"] == "closed"


async def test_llama_index_s_global_settings_stay_as_they_were(new_answerer: NewAnswerer):
    from llama_index.core import Settings

    before = dict(vars(Settings))

    await new_answerer().answer(question())

    assert vars(Settings) == before
