"""Whether a knowledge base lives, whether it can serve, and if not, which part is ill."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from knowledge_base.connection.deadline import deadline
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.embedding.embeddings import Embeddings
from knowledge_base.errors import IndexMismatchError, KnowledgeBaseError, OverloadedError, UnavailableError
from knowledge_base.index.background import BackgroundIndexer
from knowledge_base.index.generations import Generations
from knowledge_base.index.text_index import TextIndex
from knowledge_base.types import Health, PartHealth, PoolStats

NEARLY_FULL = 0.9
"""Share of the places for waiting from which on a pool counts as full."""


class Readiness:
    """Looks at every part that a search or a store needs.

    Args:
        manager: The connections.
        generations: Which index is live.
        embeddings: The embedding models.
        texts: Searches by words.
        background: Completes what waits for vectors; started anew if it has died.
        pools: Gives the use of all that is limited.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        generations: Generations,
        embeddings: Embeddings,
        texts: TextIndex,
        background: BackgroundIndexer,
        pools: Callable[[], dict[str, PoolStats]],
    ) -> None:
        self._manager = manager
        self._generations = generations
        self._embeddings = embeddings
        self._texts = texts
        self._background = background
        self._pools = pools

    async def health(self, namespace: str, limit: float) -> Health:
        """Says how every part is; raises nothing that an ill part causes.

        Args:
            namespace: Whose index is looked at.
            limit: Seconds for the parts, all of which are looked at at the same time.
        """
        is_live = not self._background.has_died
        checks: dict[str, Callable[[], Awaitable[str]]] = {
            "redis": self._redis,
            "search": lambda: self._search(namespace),
            "index": lambda: self._index(namespace),
            "embedding": lambda: self._model(namespace),
            "capacity": self._capacity,
            "indexer": self._indexer,
        }
        found = await asyncio.gather(*(_examine(name, check, limit) for name, check in checks.items()))
        parts = dict(zip(checks, found, strict=True))
        return {
            "live": is_live,
            "ready": all(part["ok"] for part in found),
            "parts": parts,
        }

    async def _redis(self) -> str:
        await (await self._manager.main()).ping()
        return "answers"

    async def _search(self, namespace: str) -> str:
        generation = await self._generations.current(namespace)
        if generation is None:
            return "the query engine answers; nothing is stored yet"
        await self._texts.probe(generation)
        return "the query engine searches"

    async def _index(self, namespace: str) -> str:
        generation = await self._generations.current(namespace)
        if generation is None:
            return "none yet; the first store makes one"
        generation = await self._generations.make_whole(generation)
        service = await self._embeddings.serving(generation.model, generation.dimension)
        if not await service.may_make(generation.model, generation.dimension):
            identity = await service.identity()
            raise IndexMismatchError(namespace, f"{identity.model}/{identity.dimension}", generation.identity)
        return f"generation {generation.number}, built with {generation.identity}"

    async def _model(self, namespace: str) -> str:
        service = self._embeddings.current
        # The model is ill or well whatever Redis is; which of two models is asked is Redis' matter.
        if self._embeddings.upcoming is not None and (generation := await self._generations.current(namespace)):
            service = await self._embeddings.serving(generation.model, generation.dimension)
        await service.probe()
        identity = await service.identity()
        return f"{identity.model}, {identity.dimension} dimensions"

    async def _capacity(self) -> str:
        pools = self._pools()
        for name, stats in pools.items():
            if is_full(stats):
                raise OverloadedError(f"{name}: all {stats['limit']} are taken, {stats['waiting']} calls wait")
        busiest = max(pools, key=lambda name: pools[name]["in_use"] / pools[name]["limit"])
        return f"busiest: {busiest}, {pools[busiest]['in_use']} of {pools[busiest]['limit']} in use"

    async def _indexer(self) -> str:
        if self._background.has_died:
            self._background.start()
            raise UnavailableError("the background task had ended, and is started anew; report what the log says")
        self._background.start()
        failure = self._background.failure
        return "runs" if failure is None else f"runs; waits after {failure}"


def is_full(pool: PoolStats) -> bool:
    """Tells whether a pool refuses callers, or is about to: all its threads are stuck, or hardly any more may wait.

    Args:
        pool: The pool.
    """
    most = pool["waiting_limit"]
    nearly_full = most is not None and most > 0 and pool["waiting"] >= NEARLY_FULL * most
    return nearly_full or pool["abandoned"] >= pool["limit"]


async def _examine(name: str, check: Callable[[], Awaitable[str]], limit: float) -> PartHealth:
    started = time.monotonic()
    try:
        async with deadline(f"health of {name}", limit):
            detail, ok = await check(), True
    except KnowledgeBaseError as error:
        detail, ok = str(error), False
    except Exception as error:  # noqa: BLE001 - an ill part is an answer; foreign texts may quote keys and values
        detail, ok = f"failed with {type(error).__name__}", False
    return {"ok": ok, "detail": detail, "took_ms": (time.monotonic() - started) * 1000}
