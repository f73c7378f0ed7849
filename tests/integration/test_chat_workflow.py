"""The chat example: answers with citations, a memory, whole transcripts, and an answer also when something is away."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base import AsyncRedisManager, KnowledgeBase
from knowledge_base.settings import BreakerSettings, EmbeddingSettings, LLMSettings, Settings, Timeouts
from tests.support.chat import load_example, transcript
from tests.support.control import Control
from tests.support.leaks import Footprint
from tests.support.polling import eventually
from tests.support.server import RedisServer, free_port

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from tests.support.openai_endpoint import OpenAIEndpoint

REFUNDS = "Refunds are paid within fourteen days, in the way that you paid."
HANDBOOK = [
    {"content": REFUNDS, "source": "Handbook, Refunds"},
    {"content": "A repair in our workshop takes six weeks.", "source": "Handbook, Repairs"},
    {"content": "The shop is closed on Sundays and on public holidays.", "source": "Handbook, Opening hours"},
]
SLACK = 5.0
"""Seconds that a busy machine may add; the steps that hang would add more than that if they were not bounded."""
HANGING_FOREVER = 60.0
Chat = Any
OpenChat = Callable[..., Chat]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_example()


@pytest.fixture
def ann() -> str:
    """A conversation that nobody has held yet."""
    return f"ann-{uuid.uuid4().hex}"


@pytest.fixture
def bob() -> str:
    return f"bob-{uuid.uuid4().hex}"


@pytest.fixture
async def open_chat(
    example: ModuleType, settings: Settings, local_embedding: BaseEmbedding, tmp_path: Path, control: Control
) -> AsyncIterator[OpenChat]:
    """Makes workflows with connections and a knowledge base of their own, and closes them; they leave nothing."""
    before = Footprint.taken(control)
    opened: list[Any] = []

    def open_one(
        *, llm: OpenAIEndpoint | None = None, embed_model: BaseEmbedding | None = local_embedding, **changes: Any
    ) -> Chat:
        bounds = example.Bounds(**changes.pop("bounds", {}))
        used = settings.model_copy(update=changes)
        redis = AsyncRedisManager(used)
        kb = KnowledgeBase(used, redis=redis, embed_model=embed_model)
        model = example.LanguageModel(LLMSettings(base_url=llm.base_url, model="test-chat")) if llm else None
        chat = example.ChatWorkflow(kb, redis, tmp_path, model, bounds)
        opened.extend((chat, kb, redis))
        chat.kb = kb
        return chat

    yield open_one
    for one in opened:
        await one.close()
    await before.assert_regained(control)


async def with_handbook(chat: Chat) -> Chat:
    await chat.kb.store_facts(HANDBOOK)
    return chat


def sources(reply: Any) -> list[str | None]:
    return [citation["source"] for citation in reply.citations]


def said(prompt: Sequence[dict[str, Any]]) -> list[str]:
    return [message["content"] for message in prompt if message["role"] != "system"]


async def test_without_a_language_model_the_best_passage_is_quoted_with_its_citation(open_chat: OpenChat, ann: str):
    chat = await with_handbook(open_chat())

    reply = await chat.answer(ann, "When is a refund paid?")

    assert reply.text == f"{REFUNDS} [1]"
    assert sources(reply) == ["Handbook, Refunds"]
    assert reply.notes == []


async def test_language_model_gets_the_numbered_passages_and_only_what_it_cites_is_shown(
    open_chat: OpenChat, endpoint: OpenAIEndpoint, ann: str
):
    chat = await with_handbook(open_chat(llm=endpoint))
    endpoint.answers.append("Within fourteen days [1].")

    reply = await chat.answer(ann, "When is a refund paid, and when is the shop closed?")

    [prompt] = endpoint.counters.prompts
    assert prompt[0]["role"] == "system"
    assert REFUNDS in prompt[0]["content"]
    assert "[2]" in prompt[0]["content"]
    assert reply.text == "Within fourteen days [1]."
    assert [citation["number"] for citation in reply.citations] == [1]


async def test_numbers_that_belong_to_no_passage_are_not_shown_as_citations(
    open_chat: OpenChat, endpoint: OpenAIEndpoint, ann: str
):
    chat = await with_handbook(open_chat(llm=endpoint))
    endpoint.answers.append("So it is written [1, 99], and also [98].")

    reply = await chat.answer(ann, "When is a refund paid?")

    assert [citation["number"] for citation in reply.citations] == [1]


async def test_follow_up_question_is_understood_from_the_conversation(open_chat: OpenChat, ann: str, bob: str):
    chat = await with_handbook(open_chat())

    await chat.answer(ann, "I want my money back. How are refunds paid?")
    follow_up = await chat.answer(ann, "How long does that take?")
    fresh = await chat.answer(bob, "How long does that take?")

    assert sources(follow_up) == ["Handbook, Refunds"]
    assert sources(fresh) != ["Handbook, Refunds"]


async def test_conversation_goes_on_in_another_process(open_chat: OpenChat, endpoint: OpenAIEndpoint, ann: str):
    endpoint.answers.extend(["Hello Ann.", "You are Ann."])

    await open_chat(llm=endpoint).answer(ann, "I am Ann.")
    await open_chat(llm=endpoint).answer(ann, "Who am I?")

    assert said(endpoint.counters.prompts[-1]) == ["I am Ann.", "Hello Ann.", "Who am I?"]


async def test_conversations_do_not_see_each_other(open_chat: OpenChat, endpoint: OpenAIEndpoint, ann: str, bob: str):
    chat = open_chat(llm=endpoint)

    await chat.answer(ann, "I am Ann.")
    await chat.answer(bob, "Who am I?")

    assert said(endpoint.counters.prompts[-1]) == ["Who am I?"]


async def test_conversation_is_kept_for_some_messages_and_some_days(
    open_chat: OpenChat, example: ModuleType, control: Control, ann: str
):
    chat = open_chat()

    for number in range(example.HISTORY):
        await chat.answer(ann, f"Question {number}")

    assert control.run("LLEN", f"chat:{ann}") == example.HISTORY
    assert 0 < control.run("TTL", f"chat:{ann}") <= example.KEPT_SECONDS


async def test_transcript_has_every_message_in_order(open_chat: OpenChat, tmp_path: Path, ann: str):
    chat = await with_handbook(open_chat())

    first = await chat.answer(ann, "When is a refund paid?")
    second = await chat.answer(ann, "How long is a repair?")

    assert transcript(tmp_path / f"{ann}.jsonl") == [
        ("user", "When is a refund paid?"),
        ("assistant", first.text),
        ("user", "How long is a repair?"),
        ("assistant", second.text),
    ]
    assert os.listdir(tmp_path) == [f"{ann}.jsonl"]


async def test_transcript_that_cannot_be_written_is_named_and_the_answer_is_given(
    open_chat: OpenChat, tmp_path: Path, ann: str
):
    chat = await with_handbook(open_chat())
    os.rmdir(tmp_path)

    reply = await chat.answer(ann, "When is a refund paid?")

    assert reply.text == f"{REFUNDS} [1]"
    assert [note.split(":")[0] for note in reply.notes] == ["not in the transcript"]


async def test_file_that_hangs_holds_up_an_answer_no_longer_than_its_bound(
    open_chat: OpenChat, tmp_path: Path, ann: str, bob: str
):
    chat = await with_handbook(open_chat(bounds={"file": 0.2}))
    path = tmp_path / f"{ann}.jsonl"
    os.mkfifo(path)

    started = time.monotonic()
    try:
        first = await chat.answer(ann, "When is a refund paid?")
        second = await chat.answer(bob, "How long is a repair?")
        took = time.monotonic() - started
    finally:
        # Whoever reads a pipe waits until somebody opens it for writing.
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))

    assert [first.text, second.text] == [f"{REFUNDS} [1]", "A repair in our workshop takes six weeks. [1]"]
    assert [first.notes, second.notes] == [["not in the transcript: not done within 0.2 s"]] * 2
    assert took < SLACK
    await eventually(lambda: path.is_file() and transcript(path)[0] == ("user", "When is a refund paid?"))


async def test_frozen_redis_delays_an_answer_by_no_more_than_the_bounds(
    open_chat: OpenChat, endpoint: OpenAIEndpoint, new_server: Callable[..., RedisServer], ann: str
):
    server = new_server().start()
    chat = open_chat(
        llm=endpoint,
        redis_url=server.url,
        timeouts=Timeouts(redis=0.4),
        breaker=BreakerSettings(failures=3, reset_after=0.5),
        bounds={"redis": 0.5, "context": 1.0},
    )
    await with_handbook(chat)
    endpoint.answers.append("I can't look that up.")
    server.freeze()

    started = time.monotonic()
    reply = await chat.answer(ann, "When is a refund paid?")
    took = time.monotonic() - started

    assert reply.text == "I can't look that up."
    assert [note.split(":")[0] for note in reply.notes] == [
        "without what was said before",
        "without context",
        "not remembered",
    ]
    assert took < 0.5 + 1.0 + 0.5 + SLACK
    assert REFUNDS not in endpoint.counters.prompts[-1][0]["content"]


async def test_with_redis_back_answers_have_context_and_memory_again(
    open_chat: OpenChat, new_server: Callable[..., RedisServer], ann: str
):
    server = new_server().start()
    chat = open_chat(
        redis_url=server.url,
        timeouts=Timeouts(redis=0.4),
        breaker=BreakerSettings(failures=3, reset_after=0.2),
        bounds={"redis": 0.5, "context": 1.0},
    )
    await with_handbook(chat)
    server.freeze()
    await chat.answer(ann, "When is a refund paid?")
    server.thaw()

    async def whole_again() -> bool:
        reply = await chat.answer(ann, "When is a refund paid?")
        return not reply.notes

    await eventually(whole_again)


async def test_while_the_circuit_is_open_redis_is_not_asked(open_chat: OpenChat, ann: str):
    chat = open_chat(
        redis_url=f"redis://127.0.0.1:{free_port()}/0", breaker=BreakerSettings(failures=1, reset_after=600.0)
    )
    await chat.answer(ann, "Is anybody there?")

    reply = await chat.answer(ann, "When is a refund paid?")

    assert len(reply.notes) == 3
    assert all("failed repeatedly" in note for note in reply.notes)


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        ("status", "without the language model: it answered with HTTP status 500"),
        ("cut before", "without the language model: it can't be reached"),
        ("cut within", "without the language model: it can't be reached"),
        ("no json", "without the language model: it didn't answer as a chat model does"),
        ("wrong shape", "without the language model: it didn't answer as a chat model does"),
    ],
)
async def test_language_model_that_fails_is_replaced_by_a_quotation(
    open_chat: OpenChat, endpoint: OpenAIEndpoint, mood: Any, reason: str, ann: str
):
    chat = await with_handbook(open_chat(llm=endpoint))
    endpoint.become(mood, path="chat")

    reply = await chat.answer(ann, "When is a refund paid?")

    assert reply.text == f"{REFUNDS} [1]"
    assert sources(reply) == ["Handbook, Refunds"]
    assert reply.notes == [reason]


async def test_language_model_that_hangs_is_waited_for_within_its_bound(
    open_chat: OpenChat, endpoint: OpenAIEndpoint, ann: str
):
    chat = await with_handbook(open_chat(llm=endpoint, bounds={"llm": 0.3}))
    endpoint.become("hang", path="chat")

    started = time.monotonic()
    reply = await chat.answer(ann, "When is a refund paid?")
    took = time.monotonic() - started

    assert reply.text == f"{REFUNDS} [1]"
    assert reply.notes == ["without the language model: not done within 0.3 s"]
    assert took < 0.3 + SLACK
    await eventually(lambda: endpoint.counters.cancelled == 1)


async def test_embedding_endpoint_that_fails_leaves_answers_by_words(
    open_chat: OpenChat, endpoint: OpenAIEndpoint, ann: str
):
    embedding = EmbeddingSettings(
        provider="openai", base_url=endpoint.base_url, model="test-embedding", dimension=endpoint.size, retries=0
    )
    chat = await with_handbook(open_chat(embed_model=None, embedding=embedding))
    endpoint.become("status", path="embeddings")

    reply = await chat.answer(ann, "Are refunds paid within fourteen days?")

    assert sources(reply) == ["Handbook, Refunds"]
    assert reply.notes == ["found without: vector"]


async def test_conversation_is_answered_while_another_waits(
    open_chat: OpenChat, endpoint: OpenAIEndpoint, ann: str, bob: str
):
    chat = await with_handbook(open_chat(llm=endpoint, bounds={"llm": HANGING_FOREVER}))
    endpoint.then("hang", path="chat")
    waits = asyncio.create_task(chat.answer(ann, "When is a refund paid?"))
    await eventually(lambda: endpoint.held == 1)

    reply = await chat.answer(bob, "How long is a repair?")

    assert sources(reply) == ["Handbook, Repairs"]
    assert not waits.done()
    endpoint.release()
    assert sources(await waits) == ["Handbook, Refunds"]


async def test_messages_of_one_conversation_are_answered_in_order(
    open_chat: OpenChat, endpoint: OpenAIEndpoint, tmp_path: Path, ann: str
):
    chat = open_chat(llm=endpoint)
    questions = [f"Question {number}" for number in range(5)]
    endpoint.answers.extend(f"Answer {number}" for number in range(5))
    endpoint.latency = 0.02

    replies = await asyncio.gather(*(chat.answer(ann, question) for question in questions))

    assert [reply.text for reply in replies] == [f"Answer {number}" for number in range(5)]
    assert endpoint.counters.most == 1
    expected = [text for number in range(5) for text in (f"Question {number}", f"Answer {number}")]
    assert said(endpoint.counters.prompts[-1]) == expected[:-1]
    assert [content for _, content in transcript(tmp_path / f"{ann}.jsonl")] == expected


async def test_message_that_is_given_up_does_not_hold_up_the_next(
    open_chat: OpenChat, endpoint: OpenAIEndpoint, ann: str
):
    chat = await with_handbook(open_chat(llm=endpoint, bounds={"llm": HANGING_FOREVER}))
    endpoint.then("hang", path="chat")
    given_up = asyncio.create_task(chat.answer(ann, "How long is a repair?"))
    await eventually(lambda: endpoint.held == 1)

    given_up.cancel()
    reply = await chat.answer(ann, "When is a refund paid?")

    assert sources(reply) == ["Handbook, Refunds"]
    assert said(endpoint.counters.prompts[-1]) == ["When is a refund paid?"]


@pytest.mark.parametrize("name", ["", "../ann", "a/b", "a.b", "x" * 65, "ann\n"])
async def test_conversation_whose_name_leads_elsewhere_is_refused(open_chat: OpenChat, tmp_path: Path, name: str):
    chat = open_chat()
    before = os.listdir(tmp_path.parent)

    with pytest.raises(ValueError, match="name"):
        await chat.answer(name, "When is a refund paid?")

    assert os.listdir(tmp_path) == []
    assert os.listdir(tmp_path.parent) == before
