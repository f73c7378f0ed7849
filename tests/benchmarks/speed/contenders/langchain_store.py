"""LangChain's Redis vector store, of its latest version, on the index that LlamaIndex's store has filled."""

from __future__ import annotations

from typing import Any

from langchain_core.embeddings import FakeEmbeddings
from langchain_redis import RedisConfig, RedisVectorStore

from tests.benchmarks.speed.contenders.peer_index import PEER, peer_schema
from tests.benchmarks.speed.passages import DIMENSION, TOP_K, Material, passage


class LangChainPeer:
    """The store; its asynchronous calls are its synchronous ones in threads."""

    def __init__(self, store: Any, material: Material, size: int) -> None:
        self._store = store
        # It does not say which key a document has.
        self._numbers = {passage(number): number for number in range(size)}
        self._questions = [vector.tolist() for vector in material.questions]

    async def ask(self, what: str, number: int) -> list[int]:
        found = await self._store.asimilarity_search_by_vector(self._questions[number], k=TOP_K)
        return [self._numbers[document.page_content] for document in found]

    async def close(self) -> None:
        """Has nothing to close."""


async def open(url: str, material: Material, size: int) -> LangChainPeer:  # noqa: A001
    from redisvl.schema import IndexSchema

    config = RedisConfig(
        index_name=PEER,
        redis_url=url,
        schema=IndexSchema.from_dict(peer_schema(PEER)),
        content_field="text",
        embedding_field="vector",
        embedding_dimensions=DIMENSION,
        from_existing=True,
    )
    return LangChainPeer(RedisVectorStore(FakeEmbeddings(size=DIMENSION), config=config), material, size)
