"""``Answerer``: finds passages for a question and lets the LLM answer from them, off the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from knowledge_base.answers.exchange import Exchange
from knowledge_base.answers.llm import EmptyAnswerError, LoadedLLM, is_refusal, load_llm, require_llm
from knowledge_base.answers.parts import Parts
from knowledge_base.answers.prompt import NOTHING_FOUND, cited_numbers
from knowledge_base.connection.breaker import Attempt, CircuitBreaker
from knowledge_base.connection.deadline import current_deadline, enter_step
from knowledge_base.connection.worker_threads import WorkerThreads
from knowledge_base.errors import KnowledgeBaseError, LLMUnavailableError, OperationTimeoutError, UnavailableError
from knowledge_base.heavy_imports import import_heavy
from knowledge_base.retrieval.context_builder import ContextRequest
from knowledge_base.retrieval.context_text import BETWEEN
from knowledge_base.retrieval.tokens import TokenCounter
from knowledge_base.settings import BreakerSettings, LLMSettings
from knowledge_base.types import Answer, BreakerStats, ChatMessage, Context, PoolStats

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

    from knowledge_base.answers.engine import Written

STEP = "the LLM"
"""A request to the LLM, as named in errors."""

LEAD = 0.1
"""Seconds before its end at which a late request is cut off, so that its thread is back in time."""


class PassageFinder(Protocol):
    """Finds the passages that a question is answered from, as ``ContextBuilder`` does."""

    async def build(self, request: ContextRequest) -> Context:
        """Returns the numbered passages."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """The checked arguments of one question."""

    text: str
    history: Sequence[ChatMessage]
    """The conversation before it, oldest message first."""
    context: ContextRequest
    """Which passages it is answered from."""


class Answerer:
    """Answers questions.

    Args:
        settings: The LLM, and how hard it is used.
        passages: Finds the passages.
        tokens: Counts what is put into a prompt.
        timeout: Seconds for one request to the LLM.
        breaker: When a failing LLM is left alone.
        llm: A LlamaIndex LLM to use instead of the one that the settings name.
        clock: Monotonic seconds; tests bring their own.
    """

    def __init__(
        self,
        settings: LLMSettings,
        passages: PassageFinder,
        tokens: TokenCounter,
        *,
        timeout: float,
        breaker: BreakerSettings,
        llm: LLM | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._passages = passages
        self._tokens = tokens
        self._timeout = timeout
        self._given = llm
        self._breaker = CircuitBreaker("llm", breaker, clock=clock)
        self._threads = WorkerThreads(
            "LLM", threads=settings.max_concurrent_requests, waiting=settings.max_waiting_requests
        )
        self._loading = asyncio.Lock()
        self._loaded: LoadedLLM | None = None
        self._exchanges: set[Exchange] = set()
        self._is_closed = False

    async def load(self) -> LoadedLLM:
        """Returns the LLM, loaded in a thread by the first call.

        Raises:
            InvalidInputError: There is none, or it cannot be used.
            OperationTimeoutError: Loading took too long.
        """
        require_llm(self._settings, self._given)
        if self._loaded is None:
            async with self._loading:
                if self._loaded is None:
                    self._loaded = await self._threads.to_thread(
                        load_llm,
                        self._settings,
                        self._timeout,
                        self._given,
                        step="loading the LLM",
                        limit=self._timeout,
                    )
        return self._loaded

    async def preload(self) -> None:
        """Loads the LLM, if there is one, and what asks it."""
        if self._given is not None or self._settings.model is not None:
            await self.load()
            await self._tokens.load()
            await self._threads.to_thread(_engine, step="loading the LLM", limit=self._timeout)

    async def answer(self, question: Question, parts: Parts | None = None) -> Answer:
        """Answers a question from the passages that are found for it.

        Args:
            question: The question.
            parts: Takes the answer part by part, as it comes; None where it is wanted as a whole.

        Raises:
            InvalidInputError: There is no LLM, or question and passages do not fit into its context window.
            LLMUnavailableError: The LLM failed, or gave no answer.
            CircuitOpenError: The LLM failed repeatedly and is left alone.
            OverloadedError: Too many questions wait already.
            OperationTimeoutError: It took too long.
            UnavailableError: No passages could be looked for.
        """
        self._breaker.check()
        loaded = await self.load()
        context = await self._passages.build(question.context)
        found = context["citations"]
        if found:
            written = await self._ask(loaded, question, context["text"].split(BETWEEN), parts)
            text, shown = written.text, found[: written.shown]
        else:
            text, shown = NOTHING_FOUND, []
            if parts is not None:
                parts.add(text)
        known = {citation["number"]: citation for citation in shown}
        cited = [known[number] for number in cited_numbers(text, known)]
        return {"answer": text, "citations": cited, "passages": shown, "degraded": context["degraded"]}

    def stats(self) -> dict[str, PoolStats]:
        """Returns the use of the threads that wait for the LLM."""
        return {"LLM threads": self._threads.stats()}

    def breakers(self) -> list[BreakerStats]:
        """Returns the state of the breaker."""
        return [self._breaker.stats()]

    async def close(self, within: float) -> None:
        """Ends every request, and the threads; waits for those that do not end at once.

        Args:
            within: Seconds to wait at most.
        """
        self._is_closed = True
        self._threads.close()
        for exchange in self._exchanges:
            exchange.stop()
        await self._threads.wait_closed(within)
        if self._loaded is not None and self._loaded.close is not None:
            self._loaded.close()

    async def _ask(
        self, loaded: LoadedLLM, question: Question, passages: Sequence[str], parts: Parts | None
    ) -> Written:
        count = await self._tokens.load()
        # A call that is too late to begin says nothing about the LLM.
        budget = enter_step(STEP, self._timeout)
        exchange = Exchange(parts)
        self._exchanges.add(exchange)
        last_moment = asyncio.get_running_loop().call_later(max(budget - LEAD, budget / 2), exchange.stop)
        try:
            with self._breaker.attempt() as attempt:
                work = partial(_write, loaded.llm, count, question.text, question.history, passages, exchange)
                return await self._attempt(attempt, work, exchange)
        finally:
            last_moment.cancel()
            self._exchanges.discard(exchange)
            exchange.stop()

    async def _attempt(self, attempt: Attempt, work: Callable[[], Written], exchange: Exchange) -> Written:
        try:
            written = await self._threads.to_thread(work, step=STEP, limit=self._timeout)
        except OperationTimeoutError:
            self._count_late(attempt, exchange)
            raise
        except asyncio.CancelledError:
            call = current_deadline()
            if call is not None and call.remaining <= 0:
                self._count_late(attempt, exchange)
            raise
        except LLMUnavailableError as error:
            if exchange.is_stopped:
                raise self._stopped(attempt, exchange) from error
            if is_refusal(error.__cause__ or error) or isinstance(error, EmptyAnswerError):
                attempt.succeeded()
            else:
                attempt.failed()
            raise
        except KnowledgeBaseError:
            raise
        attempt.succeeded()
        return written

    def _count_late(self, attempt: Attempt, exchange: Exchange) -> None:
        # An LLM that has begun to answer is well; perhaps it is the reader who is slow.
        is_answering = exchange.parts is not None and exchange.parts.has_begun
        if exchange.has_begun and not is_answering:
            attempt.failed()

    def _stopped(self, attempt: Attempt, exchange: Exchange) -> UnavailableError:
        if self._is_closed:
            return UnavailableError("this knowledge base was closed while the LLM answered; make a new one")
        self._count_late(attempt, exchange)
        call = current_deadline()
        if call is not None and call.remaining <= 2 * LEAD:
            return call.timed_out()
        return OperationTimeoutError(STEP, self._timeout, STEP)


def _engine() -> ModuleType:
    return import_heavy("knowledge_base.answers.engine")


def _write(*arguments: object) -> Written:
    written: Written = _engine().write(*arguments)
    return written
