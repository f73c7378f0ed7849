"""What an endpoint's client does, without a client: answers, refusals and pauses, told by the test."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.connection.worker_threads import WorkerThreads
from knowledge_base.embedding.asked import Kind
from knowledge_base.embedding.model_requests import ModelRequests
from knowledge_base.embedding.models import LoadedModel
from knowledge_base.embedding.rate_limit import RateLimit
from knowledge_base.settings import BreakerSettings

SIZE = 2
FAILURES = 3
RESET = 10.0
"""Of the breaker."""


class StatusError(Exception):
    """A refusal, as clients raise it.

    Attributes:
        status_code: The HTTP status.
        response: Has the headers.
    """

    def __init__(self, status_code: int, **headers: str) -> None:
        super().__init__("sk-hunter2")
        self.status_code = status_code
        self.response = self
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class APIConnectionError(Exception):
    """A connection that was lost, by the name that clients give it."""


def vector_for(text: str) -> list[float]:
    """Returns a vector that only this text has, in numbers that 32 bits hold."""
    return [float(len(text)), float(sum(map(ord, text)))]


class ScriptedRequests:
    """Answers requests as told, then well; ``judge`` is asked about each request before.

    Attributes:
        requests: The texts of each, in order.
        at: When each came, by the loop's clock.
        judge: Returns the error with which a request's texts are refused, or None.
        latency: Seconds that each takes.
    """

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.at: list[float] = []
        self.judge: Callable[[Sequence[str]], Exception | None] = lambda _: None
        self.latency = 0.0
        self._answers: list[Any] = []

    def then(self, *answers: Any) -> None:
        """Adds answers to requests; an exception is raised."""
        self._answers += answers

    async def __call__(self, texts: list[str]) -> Any:
        self.requests.append(list(texts))
        self.at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.latency)
        if self._answers:
            answer = self._answers.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return answer
        refused = self.judge(texts)
        if refused is not None:
            raise refused
        return [vector_for(text) for text in texts]


def loaded(
    queries: Callable[[list[str]], Any],
    passages: Callable[[list[str]], Any] | None = None,
    *,
    dimension: int | None = SIZE,
    awaits: bool = True,
    batch: int | None = None,
    takes_queries_together: bool = True,
    close: Callable[[], Awaitable[None]] | None = None,
) -> LoadedModel:
    """Returns a model whose requests are these functions."""
    return LoadedModel(
        None,  # type: ignore[arg-type]
        "scripted:model",
        dimension,
        None,
        None,
        queries,
        passages or queries,
        awaits=awaits,
        batch=batch,
        takes_queries_together=takes_queries_together,
        close=close,
    )


class Requests:
    """The way to a scripted endpoint, with nothing but the endpoint scripted.

    Args:
        dimension: What is known of the model's.
        requests_per_minute: What the endpoint allows.
        timeout: Seconds of a request.
        retries: Its repeats.
        passages: Another endpoint for passages.
    """

    def __init__(
        self,
        *,
        dimension: int | None = SIZE,
        requests_per_minute: int | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        passages: ScriptedRequests | None = None,
    ) -> None:
        clock = asyncio.get_running_loop().time
        self.endpoint = ScriptedRequests()
        self.breaker = CircuitBreaker("embedding", BreakerSettings(failures=FAILURES, reset_after=RESET), clock=clock)
        self.begun = 0
        self.learned: list[tuple[Kind, int]] = []
        self.requests = ModelRequests(
            loaded(self.endpoint, passages, dimension=dimension),
            self.breaker,
            RateLimit(requests_per_minute, None, clock),
            WorkerThreads("query embedding", threads=1, waiting=1),
            WorkerThreads("passage embedding", threads=1, waiting=1),
            timeout=timeout,
            retries=retries,
            on_batch_limit=lambda kind, most: self.learned.append((kind, most)),
        )

    async def send(self, *texts: str, kind: Kind = "passage") -> list[Any]:
        """Returns what came of each text, vectors as lists."""
        return [
            list(outcome) if isinstance(outcome, array) else outcome
            for outcome in await self.requests.send(kind, list(texts), self._begin)
        ]

    def _begin(self) -> None:
        self.begun += 1

    @property
    def failures(self) -> int:
        """Failures in a row that the breaker has counted."""
        return self.breaker.stats()["failures"]
