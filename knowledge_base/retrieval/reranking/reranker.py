"""``Reranker``: the reranker that a knowledge base has, and those that are given with a call, within their bounds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.connection.deadline import current_deadline
from knowledge_base.connection.worker_threads import WorkerThreads
from knowledge_base.errors import (
    InvalidInputError,
    KnowledgeBaseError,
    OperationTimeoutError,
    ServerRequirementError,
    UnavailableError,
)
from knowledge_base.heavy_imports import import_heavy
from knowledge_base.retrieval.reranking.cross_encoder import FIELD, CrossEncoder
from knowledge_base.retrieval.reranking.judged import Expired, Judge, Judged, Passage
from knowledge_base.settings import BreakerSettings
from knowledge_base.types import BreakerStats, PoolStats

if TYPE_CHECKING:
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

logger = logging.getLogger(__name__)

STEP = "reranking"
SHARE = 0.7
"""Of what is left of a call's budget, for reranking; the hits must still come back."""

LOADING_SECONDS = 60.0

NOT_THERE = f"needs a reranker: set {FIELD} to a directory, or pass reranker= to KnowledgeBase"


class Reranker:
    """Orders hits anew, in worker threads of its own.

    Those that are given with a call have other threads: one that hangs does not stop the configured one.

    Args:
        directory: Of a cross-encoder in ONNX, or None.
        given: A LlamaIndex node postprocessor to use instead, or None.
        threads: How many run at once, of each kind.
        waiting: How many calls may wait for one.
        timeout: Seconds that reranking the hits of one search may take.
        breaker: When a failing reranker is left alone.
        clock: Monotonic seconds; tests bring their own.
    """

    def __init__(
        self,
        directory: str | None,
        given: BaseNodePostprocessor | None,
        *,
        threads: int,
        waiting: int,
        timeout: float,
        breaker: BreakerSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._given = given
        self._timeout = timeout
        self._threads = WorkerThreads("reranking", threads=threads, waiting=waiting, yielding=True)
        self._call_threads = WorkerThreads("reranking by the call", threads=threads, waiting=waiting, yielding=True)
        self._breaker = CircuitBreaker("reranker", breaker, clock=clock)
        self._loading = threading.Lock()
        self._loaded: Judge | None = None
        self._unusable: KnowledgeBaseError | None = None

    @property
    def is_there(self) -> bool:
        """Whether the knowledge base has a reranker."""
        return self._given is not None or self._directory is not None

    def require(self) -> None:
        """Refuses when there is none, or one that cannot be used.

        Raises:
            InvalidInputError: There is none, or its directory holds no usable one.
            ServerRequirementError: A package is missing.
        """
        if not self.is_there:
            raise InvalidInputError("rerank", NOT_THERE)
        if self._unusable is not None:
            raise self._unusable

    async def preload(self) -> None:
        """Loads the configured cross-encoder, if there is one."""
        if self._given is None and self._directory is not None:
            # What is wrong with it is said by the first search that wants it.
            with contextlib.suppress(InvalidInputError, ServerRequirementError):
                await self._threads.to_thread(self._load, step="loading the reranker", limit=LOADING_SECONDS)

    async def rerank(
        self, query: str, passages: Sequence[Passage], by: BaseNodePostprocessor | None = None
    ) -> list[Judged]:
        """Returns the passages that are kept, in their new order.

        Args:
            query: What was asked.
            passages: What was found, best first.
            by: A postprocessor that is given with the call, or None for the configured one.

        Raises:
            InvalidInputError: The configured directory holds no usable cross-encoder.
            ServerRequirementError: A package is missing.
            UnavailableError: It failed, was late, or there was no thread for it.
        """
        if not passages:
            return []
        # A call that is too late to begin says nothing about the reranker.
        budget = _budget(self._timeout)
        if by is not None:
            return await _in_thread(self._call_threads, partial(_judge_by, by), query, passages, budget)
        self.require()
        with self._breaker.attempt() as attempt:
            try:
                judged = await _in_thread(self._threads, self._judge, query, passages, budget)
            except (_FailedError, OperationTimeoutError):
                attempt.failed()
                raise
            attempt.succeeded()
        return judged

    def stats(self) -> dict[str, PoolStats]:
        """Returns the use of the threads."""
        return {f"{one.name} threads": one.stats() for one in (self._threads, self._call_threads)}

    def breakers(self) -> list[BreakerStats]:
        """Returns the state of the breaker."""
        return [self._breaker.stats()]

    async def close(self, within: float) -> None:
        """Ends the threads.

        Args:
            within: Seconds to wait at most for those that are busy.
        """
        both = (self._threads, self._call_threads)
        for threads in both:
            threads.close()
        await asyncio.gather(*(threads.wait_closed(within) for threads in both))

    def _judge(self, query: str, passages: Sequence[Passage], expired: Expired) -> list[Judged]:
        return self._load()(query, passages, expired)

    def _load(self) -> Judge:
        with self._loading:
            if self._unusable is not None:
                raise self._unusable
            if self._loaded is None:
                try:
                    self._loaded = self._made()
                except (InvalidInputError, ServerRequirementError) as error:
                    self._unusable = error
                    logger.warning("the reranker cannot be used", extra={"reason": str(error)})
                    raise
            return self._loaded

    def _made(self) -> Judge:
        if self._given is not None:
            return partial(_judge_by, self._given)
        assert self._directory is not None
        return CrossEncoder(Path(self._directory))


class _FailedError(UnavailableError):
    """The reranker raised an error, or said what cannot be."""


def _budget(longest: float) -> float:
    call = current_deadline()
    if call is None:
        return longest
    if call.remaining <= 0:
        raise call.timed_out()
    return min(longest, SHARE * call.remaining)


async def _in_thread(
    threads: WorkerThreads, judge: Judge, query: str, passages: Sequence[Passage], budget: float
) -> list[Judged]:
    until = time.monotonic() + budget
    work = partial(_checked, judge, query, passages, lambda: time.monotonic() >= until)
    try:
        return await threads.to_thread(work, step=STEP, limit=budget)
    except KnowledgeBaseError:
        raise
    except Exception as error:
        raise _FailedError(f"the reranker failed ({type(error).__name__})") from error


def _checked(judge: Judge, query: str, passages: Sequence[Passage], expired: Expired) -> list[Judged]:
    judged = judge(query, passages, expired)
    if not all(one.raw is None or math.isfinite(one.raw) for one in judged):
        raise ValueError("a score is no finite number")
    return judged


def _judge_by(postprocessor: Any, query: str, passages: Sequence[Passage], _: Expired) -> list[Judged]:
    try:
        module = import_heavy("knowledge_base.retrieval.reranking.postprocessor")
        judged: list[Judged] = module.judge(postprocessor, query, passages)
    except Exception as error:
        # Also where it raises one of our own errors, as when it asks a knowledge base itself.
        raise _FailedError(f"the reranker failed ({type(error).__name__})") from error
    return judged
