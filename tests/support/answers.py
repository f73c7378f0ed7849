"""What the tests of answers share: passages that are found at once, and an answerer over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol

from knowledge_base.answers.answerer import Answerer, Question
from knowledge_base.answers.parts import streamed
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.retrieval.candidates import SearchRequest
from knowledge_base.retrieval.context_builder import ContextRequest
from knowledge_base.retrieval.context_text import BETWEEN, INDENT
from knowledge_base.retrieval.tokens import TokenCounter
from knowledge_base.settings import BreakerSettings, RetrievalConfig
from knowledge_base.types import Answer, ChatMessage, Citation, Context
from tests.support.llms import citation

TEA = citation(1, "Tea is at four.", source="Handbook", section_title="Habits")
COFFEE = citation(2, "Coffee is at ten.")
BREAKER = BreakerSettings(failures=4, reset_after=10.0)


class NewAnswerer(Protocol):
    """Makes an answerer that the fixture closes."""

    def __call__(self, given: Any = ..., *, timeout: float = ..., **settings: Any) -> Answerer: ...


class FoundAtOnce:
    """Finds the same passages for every question."""

    def __init__(self) -> None:
        self.citations: list[Citation] = [TEA, COFFEE]
        self.degraded: list[str] = []
        self.searches = 0

    async def build(self, request: ContextRequest) -> Context:
        self.searches += 1
        return {
            "text": BETWEEN.join(f"[{one['number']}]\n{INDENT}{one['content']}" for one in self.citations),
            "citations": self.citations,
            "tokens": 0,
            "query": request.search.query,
            "degraded": self.degraded,
            "complete": True,
            "reason": None,
        }


@asynccontextmanager
async def token_counter() -> AsyncIterator[TokenCounter]:
    """Counts tokens as nothing says of which model."""
    threads = WorkloadThreads("counting", threads=1, waiting=100)
    yield TokenCounter(threads)
    await threads.close(10.0)


def said(role: Literal["user", "assistant", "system"], content: str) -> ChatMessage:
    return {"role": role, "content": content}


def question(text: str = "When is tea?", history: Sequence[ChatMessage] = ()) -> Question:
    search = SearchRequest("acme", text, "hybrid", 5, [])
    return Question(text, history, ContextRequest(search, RetrievalConfig(), 2_000))


async def read(answerer: Answerer, asked: Question) -> tuple[list[str], Answer]:
    """Returns the parts of a streamed answer, and the whole."""
    deltas: list[str] = []
    async for part in streamed(lambda parts: answerer.answer(asked, parts)):
        if "answer" in part:
            return deltas, part["answer"]
        deltas.append(part["delta"])
    raise AssertionError("no whole answer came")


async def ask_both_ways(answerer: Answerer) -> list[BaseException]:
    """Returns what a question and a streamed one raised."""
    outcomes = [
        (await asyncio.gather(answerer.answer(question()), return_exceptions=True))[0],
        (await asyncio.gather(read(answerer, question()), return_exceptions=True))[0],
    ]
    assert all(isinstance(outcome, BaseException) for outcome in outcomes), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
