"""redis-py as it is: one command a question, the hash as it comes. Nothing can be faster in Python."""

from __future__ import annotations

import contextlib
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ResponseError

from knowledge_base.facts.records import LABELS
from tests.benchmarks.speed.contenders.peer_index import CONSTRUCTION, LINKS, PEER
from tests.benchmarks.speed.passages import DIMENSION, TOP_K, Material, passage

CONNECTIONS = 50
FACT = "raw-fact:"
STORED = "raw-stored"
READ = 500


class Raw:
    """redis-py on the index of LlamaIndex's store, and on hashes of its own."""

    def __init__(self, client: Redis, material: Material) -> None:
        self._client = client
        self._vectors = material.vectors
        self._questions = [vector.tobytes() for vector in material.questions]
        self._stored = 0

    async def prepare(self) -> None:
        """Writes the hashes that are read, as large as those of facts, and makes an index for those that are stored."""
        for number in range(READ):
            fact = dict.fromkeys(LABELS, "1700000000000") | {"content": passage(number)}
            await self._client.hset(f"{FACT}{number}", mapping=fact)  # type: ignore[misc]
        graph = ["TYPE", "FLOAT32", "DIM", DIMENSION, "DISTANCE_METRIC", "COSINE", "M", LINKS]
        graph += ["EF_CONSTRUCTION", CONSTRUCTION]
        command = ["FT.CREATE", STORED, "PREFIX", 1, f"{STORED}:", "SCHEMA", "vector", "VECTOR", "HNSW", len(graph)]
        with contextlib.suppress(ResponseError):  # made already
            await self._client.execute_command(*command, *graph)

    async def ask(self, what: str, number: int) -> list[int]:
        if what == "get":
            await self._client.hgetall(f"{FACT}{number}")  # type: ignore[misc]
            return []
        if what == "store":
            self._stored += 1
            mapping = {"content": passage(number), "vector": self._vectors[number].tobytes()}
            await self._client.hset(f"{STORED}:{self._stored}", mapping=mapping)  # type: ignore[misc]
            return []
        query = f"*=>[KNN {TOP_K} @vector $v AS d]"
        reply: list[Any] = await self._client.execute_command(
            *("FT.SEARCH", PEER, query, "PARAMS", 2, "v", self._questions[number], "SORTBY", "d"),
            *("RETURN", 2, "text", "d", "LIMIT", 0, TOP_K, "DIALECT", 2),
        )
        return [int(key.rpartition(b":")[2]) for key in reply[1::2]]

    async def close(self) -> None:
        await self._client.aclose()


async def open(url: str, material: Material, size: int) -> Raw:  # noqa: A001
    pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=None)
    raw = Raw(Redis(connection_pool=pool), material)
    await raw.prepare()
    return raw
