"""``ModelRequests``: one request to the model: limited, guarded, repeated where that may help, and checked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, cast

from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.connection.deadline import GRACE
from knowledge_base.connection.worker_threads import WorkerThreads
from knowledge_base.embedding.asked import STEP, Kind, Outcome, Vector
from knowledge_base.embedding.models import LoadedModel
from knowledge_base.embedding.rate_limit import RateLimit
from knowledge_base.embedding.refusals import (
    is_about_the_texts,
    is_repeatable,
    pause_before_repeat,
    unavailable,
)
from knowledge_base.embedding.vector_check import checked_vector
from knowledge_base.errors import EmbeddingUnavailableError, KnowledgeBaseError, OperationTimeoutError

BYTES_A_TOKEN = 3


class Request(NamedTuple):
    """One request, its repeats and parts included."""

    kind: Kind
    until: float
    """When it is to be done, by the loop's clock."""
    repeats: int
    begun: Callable[[], None]
    """Called when the model is asked."""


class ModelRequests:
    """Sends texts to a model.

    Attributes:
        dimension: Length of its vectors; None until something tells.
        retried: Requests that were repeated.

    Args:
        loaded: The model.
        breaker: Told whether the model answered.
        limit: What the endpoint allows.
        query_threads: Where queries are embedded by a model that blocks.
        passage_threads: Where passages are.
        timeout: Seconds that a request may take, its repeats included.
        retries: How often it is repeated at most.
        on_batch_limit: Told how many texts of a kind the endpoint takes when it refused more.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        breaker: CircuitBreaker,
        limit: RateLimit,
        query_threads: WorkerThreads,
        passage_threads: WorkerThreads,
        *,
        timeout: float,
        retries: int,
        on_batch_limit: Callable[[Kind, int], None],
    ) -> None:
        self.dimension = loaded.dimension
        self.retried = 0
        self._loaded = loaded
        self._breaker = breaker
        self._limit = limit
        self._threads = {"query": query_threads, "passage": passage_threads}
        self._timeout = timeout
        self._retries = retries
        self._on_batch_limit = on_batch_limit

    async def send(self, kind: Kind, texts: list[str], begun: Callable[[], None]) -> list[Outcome]:
        """Returns what came of each text.

        Args:
            kind: What the texts are.
            texts: At least one, as many as the endpoint takes.
            begun: Called when the model is asked.

        Raises:
            EmbeddingUnavailableError: The model failed.
            CircuitOpenError: The model failed repeatedly and is left alone.
            OverloadedError: The rate limit leaves no room in time, or every thread is busy.
            OperationTimeoutError: It took too long.
        """
        is_probe = self._breaker.state != "closed"
        with self._breaker.attempt() as attempt:
            try:
                # Those who wait are told first, each by its own deadline.
                async with asyncio.timeout(self._timeout + GRACE):
                    until = asyncio.get_running_loop().time() + self._timeout
                    request = Request(kind, until, 0 if is_probe else self._retries, begun)
                    answers = await self._deliver(request, texts)
            except (TimeoutError, OperationTimeoutError) as error:
                attempt.failed()
                if isinstance(error, OperationTimeoutError):
                    raise
                raise OperationTimeoutError(STEP, self._timeout) from error
            except KnowledgeBaseError:
                raise
            except Exception as error:
                if is_about_the_texts(error):
                    attempt.succeeded()
                else:
                    attempt.failed()
                raise unavailable(error) from error
            attempt.succeeded()
        return [self._checked(answer) for answer in answers]

    async def _deliver(self, request: Request, texts: list[str]) -> list[Vector | Exception]:
        try:
            return list(await self._repeated(request, texts))
        except Exception as error:
            if len(texts) == 1 or not is_about_the_texts(error):
                raise
        # One text that is refused must not hold up those that happen to travel with it. If two are refused each by
        # itself, it is not about them: all are, without asking for each.
        first, *others, last = texts
        ends = [(await self._part(request, [text]))[0] for text in (first, last)]
        if all(isinstance(answer, Exception) for answer in ends):
            return [*ends[:1] * (len(texts) - 1), ends[1]]
        answers = [ends[0], *(await self._part(request, others) if others else []), ends[1]]
        self._learn(request.kind, answers, max(1, len(others)))
        return answers

    async def _part(self, request: Request, texts: list[str]) -> list[Vector | Exception]:
        try:
            return list(await self._repeated(request, texts))
        except Exception as error:
            if not is_about_the_texts(error):
                raise
            if len(texts) == 1:
                refused = unavailable(error)
                refused.__cause__ = error
                return [refused]
        middle = (len(texts) + 1) // 2
        halves = [await self._part(request, half) for half in (texts[:middle], texts[middle:])]
        answers = [answer for half in halves for answer in half]
        self._learn(request.kind, answers, middle)
        return answers

    def _learn(self, kind: Kind, answers: Sequence[Vector | Exception], most: int) -> None:
        # What was refused as a whole, and none of it by itself, was too much at once.
        if not any(isinstance(answer, Exception) for answer in answers):
            self._on_batch_limit(kind, most)

    async def _repeated(self, request: Request, texts: list[str]) -> Sequence[Vector]:
        loop = asyncio.get_running_loop()
        for repeat in range(request.repeats + 1):
            tokens = sum(len(text.encode("utf-8", "replace")) for text in texts) // BYTES_A_TOKEN + 1
            left = max(0.0, request.until - loop.time())
            await self._limit.take(tokens, urgent=request.kind == "query", within=left)
            request.begun()
            try:
                return await self._embed(request.kind, texts)
            except Exception as error:
                if repeat == request.repeats or not is_repeatable(error):
                    raise
                pause = pause_before_repeat(error, repeat)
                if pause >= request.until - loop.time():
                    raise
            self.retried += 1
            await asyncio.sleep(pause)
        raise AssertionError("a loop of at least one turn ended without an answer")

    async def _embed(self, kind: Kind, texts: list[str]) -> Sequence[Vector]:
        embed = self._loaded.embed_queries if kind == "query" else self._loaded.embed_passages
        if self._loaded.awaits:
            vectors = await cast("Awaitable[list[Vector]]", embed(texts))
        else:
            made = await self._threads[kind].to_thread(embed, texts, step=STEP, limit=self._timeout)
            vectors = cast("list[Vector]", made)
        if len(vectors) != len(texts):
            raise EmbeddingUnavailableError(f"the embedding model gave {len(vectors)} vectors for {len(texts)} texts")
        return vectors

    def _checked(self, answer: Vector | Exception) -> Outcome:
        if isinstance(answer, Exception):
            return answer
        try:
            vector = checked_vector(answer, self.dimension)
        except EmbeddingUnavailableError as error:
            return error
        self.dimension = len(vector)
        return vector
