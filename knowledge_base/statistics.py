"""Counts, without scanning anything, and the state of what serves them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis.exceptions import ResponseError

from knowledge_base.answers.answerer import Answerer
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.embedding.embeddings import Embeddings
from knowledge_base.facts.repository import FactRepository
from knowledge_base.index.generations import Generations, is_missing_index
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import Keyspace
from knowledge_base.retrieval.reranking.reranker import Reranker
from knowledge_base.types import DetailedStats, PoolStats, Stats

BYTES_PER_MEGABYTE = 1_048_576
MEMORY_FIELD = "total_index_memory_sz_mb"
SEARCH_MODULES = {"search", "searchlight"}


class Statistics:
    """Says what is there, and how what serves it is doing.

    Args:
        manager: The connections.
        repository: Removes what has expired, so that it is not counted.
        generations: Which index is live.
        embeddings: The embedding models.
        answerer: Asks the LLM.
        reranker: Reranks hits.
        pools: Gives the use of all that is limited, but for the reranker's threads.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        repository: FactRepository,
        generations: Generations,
        embeddings: Embeddings,
        answerer: Answerer,
        reranker: Reranker,
        pools: Callable[[], dict[str, PoolStats]],
    ) -> None:
        self._manager = manager
        self._repository = repository
        self._generations = generations
        self._embeddings = embeddings
        self._answerer = answerer
        self._reranker = reranker
        self._pools = pools

    async def counts(self, namespace: str) -> Stats:
        """Returns the counts of a namespace, from counters that each change keeps.

        Args:
            namespace: The namespace.
        """
        client = await self._manager.main()
        keys = Keyspace(namespace)
        generation = await self._generations.current(namespace)
        if generation is not None:
            await self._repository.sweep(generation)
        pipeline = client.pipeline(transaction=False)
        pipeline.zcard(keys.facts)
        pipeline.zcard(keys.documents)
        pipeline.hget(keys.counters, "passages")
        pipeline.zcard(keys.pending)
        pipeline.hlen(keys.parked)
        facts, documents, passages, pending, parked = await pipeline.execute()
        return {
            "namespace": namespace,
            "facts": int(facts),
            "documents": int(documents),
            "passages": int(passages or 0),
            "pending": int(pending),
            "parked": int(parked),
            "embedding_model": generation.model if generation else None,
            "dimension": generation.dimension if generation else None,
        }

    async def details(self, namespace: str) -> DetailedStats:
        """Returns the counts of a namespace and the state of what serves it.

        Args:
            namespace: The namespace.
        """
        counts = await self.counts(namespace)
        generation = await self._generations.current(namespace)
        client = await self._manager.main()
        keys = Keyspace(namespace)
        pipeline = client.pipeline(transaction=False)
        pipeline.hgetall(keys.tag_counts)
        pipeline.hgetall(keys.source_counts)
        tags, sources = await pipeline.execute()
        indices = [] if generation is None else await self._index_infos(generation)
        server = await client.info("server")
        memory = await client.info("memory")
        return {
            **counts,
            "tags": _descending(tags),
            "sources": _descending(sources),
            "index_name": generation.text_index if generation else None,
            "index_bytes": round(sum(float(index.get(MEMORY_FIELD) or 0) for index in indices) * BYTES_PER_MEGABYTE),
            "index_failures": sum(int(index.get("hash_indexing_failures") or 0) for index in indices),
            "redis_memory_bytes": int(memory["used_memory"]),
            "redis_version": str(server.get("valkey_version") or server["redis_version"]),
            "search_version": await self._search_version(),
            "pools": self._pools() | self._reranker.stats(),
            "breakers": [
                *self._manager.breakers(),
                *self._embeddings.breakers(),
                *self._answerer.breakers(),
                *self._reranker.breakers(),
            ],
        }

    async def _index_infos(self, generation: Generation) -> list[dict[str, Any]]:
        client = await self._manager.main()
        try:
            replies = [
                await client.execute_command("FT.INFO", name)
                for name in (generation.text_index, generation.vector_index)
            ]
        except ResponseError as error:
            if is_missing_index(error):
                return []
            raise
        return [dict(zip(reply[::2], reply[1::2], strict=False)) for reply in replies]

    async def _search_version(self) -> str | None:
        client = await self._manager.main()
        info = await client.info("modules")
        modules = info.get("modules", [])
        for module in [modules] if isinstance(modules, dict) else modules:
            if module.get("name") in SEARCH_MODULES:
                number = int(module["ver"])
                return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"
        return None


def _descending(counts: dict[str, str]) -> dict[str, int]:
    ranked = sorted(counts.items(), key=lambda item: (-int(item[1]), item[0]))
    return {label: int(count) for label, count in ranked}
