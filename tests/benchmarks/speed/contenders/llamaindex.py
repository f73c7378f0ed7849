"""LlamaIndex's own retriever over its RedisVectorStore, as its documentation builds it."""

from __future__ import annotations

import time

from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings.mock_embed_model import MockEmbedding
from llama_index.core.schema import BaseNode, QueryBundle, TextNode
from llama_index.vector_stores.redis import RedisVectorStore
from redis import Redis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redisvl.schema import IndexSchema

from tests.benchmarks.speed.contenders.peer_index import PEER, peer_schema
from tests.benchmarks.speed.passages import DIMENSION, TOP_K, Material, passage

AT_ONCE = 500
CONNECTIONS = 50


class LlamaIndexPeer:
    """The store, the index and the retriever."""

    def __init__(self, url: str, material: Material, name: str) -> None:
        self._url = url
        self._material = material
        # redis-py's own pool refuses who comes too many.
        pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=None)
        self._async_client = AsyncRedis(connection_pool=pool)
        self._store = RedisVectorStore(
            schema=IndexSchema.from_dict(peer_schema(name)),
            redis_client=Redis.from_url(url),
            redis_client_async=self._async_client,
        )
        self._index = VectorStoreIndex.from_vector_store(self._store, embed_model=MockEmbedding(DIMENSION))
        self._retriever = self._index.as_retriever(similarity_top_k=TOP_K)
        self._questions = [vector.tolist() for vector in material.questions]

    async def ask(self, what: str, number: int) -> list[int]:
        found = await self._retriever.aretrieve(QueryBundle(query_str="", embedding=self._questions[number]))
        return [int(one.node.node_id) for one in found]

    async def add(self, first: int, count: int) -> float:
        """Adds passages with ready vectors; returns the seconds that the store took."""
        took = 0.0
        for begin in range(first, first + count, AT_ONCE):
            numbers = range(begin, min(begin + AT_ONCE, first + count))
            vectors = self._material.vectors[begin : begin + AT_ONCE].tolist()
            begun = time.perf_counter()
            nodes: list[BaseNode] = [
                TextNode(id_=str(number), text=passage(number), embedding=vector)
                for number, vector in zip(numbers, vectors, strict=False)
            ]
            self._store.add(nodes)
            took += time.perf_counter() - begun
        return took

    async def add_apart(self, first: int, count: int) -> float:
        """As ``add``, to a store of its own, where nothing is searched."""
        return await LlamaIndexPeer(self._url, self._material, f"apart-{PEER}").add(first, count)

    async def close(self) -> None:
        await self._async_client.aclose()


async def open(url: str, material: Material, size: int) -> LlamaIndexPeer:  # noqa: A001
    return LlamaIndexPeer(url, material, PEER)
