"""RedisVL's asynchronous index, of its latest version, on the index that LlamaIndex's store has filled."""

from __future__ import annotations

from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redisvl.index import AsyncSearchIndex
from redisvl.query import VectorQuery

from tests.benchmarks.speed.contenders.peer_index import PEER, peer_schema
from tests.benchmarks.speed.passages import TOP_K, Material

CONNECTIONS = 50


class RedisVLPeer:
    """The index, and its queries."""

    def __init__(self, index: Any, client: Any, material: Material) -> None:
        self._index = index
        self._client = client
        self._questions = [vector.tobytes() for vector in material.questions]

    async def ask(self, what: str, number: int) -> list[int]:
        query = VectorQuery(
            vector=self._questions[number], vector_field_name="vector", return_fields=["text"], num_results=TOP_K
        )
        found = await self._index.query(query)
        return [int(one["id"].rpartition(":")[2]) for one in found]

    async def close(self) -> None:
        await self._client.aclose()


async def open(url: str, material: Material, size: int) -> RedisVLPeer:  # noqa: A001
    client = Redis(connection_pool=BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=None))
    return RedisVLPeer(AsyncSearchIndex.from_dict(peer_schema(PEER), redis_client=client), client, material)
