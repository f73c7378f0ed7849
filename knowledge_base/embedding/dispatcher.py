"""``Dispatcher``: texts that wait at the same time travel to the model together, each only once, queries first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from knowledge_base.connection.batching import Batcher, Lane
from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.embedding.asked import STEP, Asked, Kind, Outcome, PackedVector

TextLane: TypeAlias = Lane[Asked, PackedVector]
Send: TypeAlias = Callable[[Sequence[Asked], Callable[[], None]], Awaitable[Sequence[Outcome]]]
"""Embeds texts of one kind by one request, and says when the model is asked; may raise what came of all of them."""


class Dispatcher(Batcher[Asked, PackedVector]):
    """Brings texts to the model, used from one event loop.

    Args:
        send: Makes one request.
        breaker: While it is not closed, one request is made at a time, as a probe.
        queries: How queries travel.
        passages: How passages travel.
        at_once: Requests of both kinds under way at most.
        wait: Seconds that a text waits for others to travel with.
        most_waiting: Requests that may wait for their turn.
    """

    def __init__(
        self,
        send: Send,
        breaker: CircuitBreaker,
        *,
        queries: TextLane,
        passages: TextLane,
        at_once: int,
        wait: float,
        most_waiting: int,
    ) -> None:
        # Who asks waits for an answer; passages do not.
        self._of_kind: dict[Kind, TextLane] = {"query": queries, "passage": passages}
        super().__init__(
            STEP,
            send,
            [queries, passages],
            at_once=at_once,
            wait=wait,
            most_waiting=most_waiting,
            breaker=breaker,
        )

    def limit_batch(self, kind: Kind, most: int) -> None:
        """Learns how many texts the endpoint takes at once.

        Args:
            kind: Of which kind they were.
            most: How many it took.
        """
        lane = self._of_kind[kind]
        lane.batch = max(1, min(lane.batch, most))

    async def vectors(self, asked: Sequence[Asked], limit: float) -> list[PackedVector]:
        """Returns the vectors of texts of one kind, in their order.

        Args:
            asked: At least one text.
            limit: Seconds to wait at most.

        Raises:
            EmbeddingUnavailableError: The model failed, or gave no usable vector.
            CircuitOpenError: The model failed repeatedly and is left alone.
            OverloadedError: Too many requests wait already, or their turn did not come in time.
            OperationTimeoutError: It took too long.
        """
        return await self.results(self._of_kind[asked[0].kind], asked, limit)
