"""``JointInserts``: the vectors of facts that are stored at the same time go to LlamaIndex together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from knowledge_base.connection.admission import Admission
from knowledge_base.connection.batching import Batcher, Lane
from knowledge_base.connection.workload import in_job
from knowledge_base.index.schema import Generation
from knowledge_base.index.vector_index import EmbeddedPassage, VectorIndex

STEP = "LlamaIndex insert"
FACTS_TOGETHER = 16
"""Facts whose vectors share a thread's turn and a round trip."""

FEW = 8
"""Passages up to which a fact's go with those of others; more are worth a way of their own."""

WAITING = 1_000
"""Ways to the index that may wait for their turn; those who store wait before, in a queue of their own."""


@dataclass(frozen=True, slots=True, eq=False)
class _Insert:
    generation: Generation
    passages: Sequence[EmbeddedPassage]


class JointInserts:
    """Writes vectors, used from one event loop.

    Args:
        vectors: Writes them.
        at_once: Inserts under way at once, those of jobs apart; the others wait.
        timeout: Seconds that an insert, its wait included, may take at most.
    """

    def __init__(self, vectors: VectorIndex, *, at_once: int, timeout: float) -> None:
        self._vectors = vectors
        self._places = {is_job: Admission("the index", at_once) for is_job in (False, True)}
        self._timeout = timeout
        # Each namespace by itself: none waits for what another's index takes.
        self._lane: Lane[_Insert, None] = Lane(at_once, FACTS_TOGETHER, kind=lambda insert: insert.generation)
        self._joined = Batcher(STEP, self._send, [self._lane], at_once=at_once, wait=0.0, most_waiting=WAITING)

    async def insert(self, generation: Generation, passages: Sequence[EmbeddedPassage]) -> None:
        """Writes vectors beside their passages; see ``VectorIndex.insert`` for the errors.

        Args:
            generation: Where to.
            passages: At least one.
        """
        if in_job() or len(passages) > FEW:
            await self._alone(generation, passages)
        else:
            await self._joined.results(self._lane, [_Insert(generation, passages)], self._timeout)

    async def close(self) -> None:
        """Ends the inserts that are under way."""
        await self._joined.close()

    async def _alone(self, generation: Generation, passages: Sequence[EmbeddedPassage]) -> None:
        async with self._places[in_job()].place(self._timeout):
            await self._vectors.insert(generation, passages)

    async def _send(self, inserts: Sequence[_Insert], begun: Callable[[], None]) -> Sequence[Exception | None]:
        begun()
        await self._alone(inserts[0].generation, [passage for insert in inserts for passage in insert.passages])
        return [None] * len(inserts)
