"""``Refinement``: what a search can ask for beyond the ranking: reranking, recency and diversity."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from knowledge_base.clock import now_ms
from knowledge_base.connection.hashes import HashGroup, read_hash_groups
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.errors import InvalidInputError, ServerRequirementError, UnavailableError
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import Keyspace, PartName
from knowledge_base.retrieval.candidates import SearchRequest
from knowledge_base.retrieval.chunk_passages import ChunkPassages
from knowledge_base.retrieval.diversity import Spreadable, spread
from knowledge_base.retrieval.fusion import Ranked
from knowledge_base.retrieval.recency import Ages, FadedRanking, ages_of, faded, fading_order
from knowledge_base.retrieval.reranking.judged import Passage
from knowledge_base.retrieval.reranking.reranker import Reranker
from knowledge_base.settings import RetrievalSettings
from knowledge_base.types import SearchHit

if TYPE_CHECKING:
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

RERANK = "rerank"
"""The reranker's name, among the scores of a hit and in ``degraded``."""

SPREAD_AT_LEAST = 50
SPREAD_OVER = 5
SPREAD_AT_MOST = 500
"""Hits among which different ones are looked for: five times as many as are wanted, within these bounds."""

INLINE_ITEMS = 500
"""So many facts are put in order on the event loop; more, which take it milliseconds, in a thread."""

THREAD_SECONDS = 5.0
"""Longest wait for a thread that compares."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """The checked options of one search."""

    rerank: bool | BaseNodePostprocessor | None = None
    """None: if there is a reranker; False: not; True: there must be one; or by a postprocessor."""
    diversity: float = 0.0
    """From 0 to 1."""
    recency: float | None = None
    """The half-life in seconds, or None where age does not count."""


PLAIN = SearchOptions(rerank=False)


class Shown(NamedTuple):
    """A hit, and the passage that it shows."""

    hit: SearchHit
    name: PartName


class RankedFacts(Protocol):
    """A ranking of facts, as ``Ranking`` and ``FadedRanking`` are."""

    def __len__(self) -> int: ...

    def part(self, begin: int, end: int) -> list[Ranked]:
        """Returns the facts from one place to before another."""
        ...

    def at_least(self, score: float) -> RankedFacts:
        """Returns the facts that have at least a score."""
        ...


class Refinement:
    """Reranks, fades and spreads the hits of searches.

    Args:
        manager: The connections.
        passages: Reads vectors.
        reranker: Orders hits anew.
        threads: Where many hits are compared.
        settings: How many hits are reranked.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        passages: ChunkPassages,
        reranker: Reranker,
        threads: WorkloadThreads,
        settings: RetrievalSettings,
    ) -> None:
        self._manager = manager
        self._passages = passages
        self._reranker = reranker
        self._threads = threads
        self._settings = settings

    def require(self, options: SearchOptions) -> None:
        """Refuses what cannot be done.

        Args:
            options: What is asked for.

        Raises:
            InvalidInputError: A reranker is asked for, and none is there, or it cannot be used.
            ServerRequirementError: A package is missing that the reranker needs.
        """
        if options.rerank is True:
            self._reranker.require()

    def reranks(self, options: SearchOptions) -> bool:
        """Tells whether the hits are to be reranked.

        Args:
            options: What is asked for.
        """
        if options.rerank is None:
            return self._reranker.is_there
        return options.rerank is not False

    def pool(self, options: SearchOptions, top_k: int) -> int:
        """Returns among how many hits those to show are chosen.

        Args:
            options: What is asked for.
            top_k: How many are wanted.
        """
        if self.reranks(options):
            # All of them are read by the reranker: scores of two kinds cannot stand in one ranking.
            return max(top_k, self._settings.rerank_candidates)
        if options.diversity > 0:
            return max(top_k, min(SPREAD_AT_MOST, max(SPREAD_AT_LEAST, SPREAD_OVER * top_k)))
        return top_k

    async def faded(self, namespace: str, ranked: RankedFacts, options: SearchOptions) -> tuple[RankedFacts, Ages]:
        """Returns the ranking in which age counts, if it is asked for, and how old the facts are.

        Args:
            namespace: Where they are.
            ranked: The facts.
            options: What is asked for.

        Raises:
            UnavailableError: Redis could not be reached, or not in time.
        """
        if options.recency is None or not len(ranked):
            return ranked, {}
        keys = Keyspace(namespace)
        items = await self._worked(len(ranked), partial(ranked.part, 0, len(ranked)))
        asked = HashGroup([keys.fact(item.fact_id) for item in items], ["updated_at"])
        (rows,) = await read_hash_groups(await self._manager.search(), [asked])
        changed = {item.fact_id: int(row[0]) for item, row in zip(items, rows, strict=True) if row[0] is not None}
        ages = ages_of(changed, now_ms(), options.recency)
        return await self._worked(len(items), partial(FadedRanking, items, ages)), ages

    async def refined(
        self,
        generation: Generation | None,
        request: SearchRequest,
        options: SearchOptions,
        shown: Sequence[Shown],
        ages: Ages,
    ) -> tuple[list[SearchHit], list[str]]:
        """Returns the hits to show, and what was unavailable.

        Args:
            generation: Where the passages are; None where there are none.
            request: The search.
            options: What is asked for.
            shown: Hits that the caller may see, best first.
            ages: How old they are, where age counts.

        Raises:
            InvalidInputError: A reranker is asked for, and cannot be used.
            ServerRequirementError: A package is missing that the reranker needs.
            UnavailableError: Redis could not be reached, or not in time.
        """
        degraded: list[str] = []
        if self.reranks(options):
            reranked = await self._reranked(request.query, options, shown, ages)
            shown = shown if reranked is None else reranked
            degraded = [RERANK] if reranked is None else []
            if request.min_score is not None:
                shown = [one for one in shown if one.hit["score"] >= request.min_score]
        if generation is not None and options.diversity > 0 and len(shown) > 1:
            shown = await self._spread(generation, shown, request.top_k, options.diversity)
        return [one.hit for one in shown[: request.top_k]], degraded

    async def _worked(self, items: int, work: Callable[[], Result]) -> Result:
        if items <= INLINE_ITEMS:
            return work()
        return await self._threads.to_thread(work, step="comparing ages", limit=THREAD_SECONDS)

    async def _reranked(
        self, query: str, options: SearchOptions, shown: Sequence[Shown], ages: Ages
    ) -> list[Shown] | None:
        by = options.rerank if not isinstance(options.rerank, bool) else None
        passages = [_passage(one) for one in shown]
        try:
            judged = await self._reranker.rerank(query, passages, by)
        except (InvalidInputError, ServerRequirementError):
            if options.rerank is True:
                raise
            return None
        except UnavailableError as error:
            cause = type(error.__cause__ or error).__name__
            logger.info("hits were not reranked", extra={"reason": cause, "hits": len(shown)})
            return None
        reranked: list[Shown] = []
        order: list[float] = []
        for one in judged:
            kept = shown[one.place]
            age = ages.get(kept.hit["fact_id"], 0.0)
            if one.raw is None or one.score is None:
                # The score from before stands, faded already.
                order.append(fading_order(kept.hit["score"], 0.0))
                reranked.append(kept)
                continue
            order.append(fading_order(one.score, age))
            scores = kept.hit["scores"] | {RERANK: one.raw}
            reranked.append(Shown({**kept.hit, "score": faded(one.score, age), "scores": scores}, kept.name))
        if not ages:
            return reranked
        return [reranked[place] for place in sorted(range(len(order)), key=lambda place: -order[place])]

    async def _spread(self, generation: Generation, shown: Sequence[Shown], most: int, diversity: float) -> list[Shown]:
        names = [one.name for one in shown]
        stored = await self._passages.stored(generation, vectors=names, texts=())
        hits = [Spreadable(one.hit["score"], one.hit["content"], stored[one.name].vector) for one in shown]
        work = partial(spread, hits, most, diversity)
        places = await self._threads.to_thread(work, step="spreading the hits", limit=THREAD_SECONDS)
        return [shown[place] for place in places]


def _passage(shown: Shown) -> Passage:
    hit = shown.hit
    about = {key: hit[key] for key in ("fact_id", "document_id", "source", "tags", "position")}
    return Passage(
        shown.name.node_id,
        hit["document_id"] or hit["fact_id"],
        hit["content"],
        # The caller's own keys come before ours.
        about | hit["metadata"],
        hit["score"],
    )
