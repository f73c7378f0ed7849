"""Search in each mode against LlamaIndex's own retriever and raw redis-py, with the same vectors on one server."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from redis.asyncio import Redis

from knowledge_base import KnowledgeBase, Settings
from knowledge_base.embedding.local_embedding import LocalEmbedding
from tests.benchmarks.collection import percentile, texts
from tests.support.server import RedisServer

QUESTIONS = 300
TOP_K = 10


async def timed(ask: Callable[[int], Awaitable[Any]]) -> list[float]:
    """Returns the milliseconds of each question, one after the other, after a warm-up."""
    for number in range(20):
        await ask(number)
    took: list[float] = []
    for number in range(QUESTIONS):
        before = time.perf_counter()
        await ask(number)
        took.append((time.perf_counter() - before) * 1000)
    return took


def peer_retriever(url: str, passages: list[str], vectors: list[list[float]], model: LocalEmbedding) -> Any:
    """Returns LlamaIndex's retriever over a RedisVectorStore of its own with the same passages and vectors."""
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode
    from llama_index.vector_stores.redis import RedisVectorStore
    from redis import Redis as SyncRedis
    from redisvl.schema import IndexSchema

    attributes = {"dims": 384, "algorithm": "hnsw", "distance_metric": "cosine"}
    schema = IndexSchema.from_dict(
        {
            "index": {"name": "peer", "prefix": "peer"},
            "fields": [
                {"name": "id", "type": "tag"},
                {"name": "doc_id", "type": "tag"},
                {"name": "text", "type": "text"},
                {"name": "vector", "type": "vector", "attrs": attributes},
            ],
        }
    )
    store = RedisVectorStore(
        schema=schema, redis_client=SyncRedis.from_url(url), redis_client_async=Redis.from_url(url)
    )
    index = VectorStoreIndex.from_vector_store(store, embed_model=model)
    pairs = zip(passages, vectors, strict=True)
    index.insert_nodes([TextNode(text=text, embedding=vector) for text, vector in pairs])
    return index.as_retriever(similarity_top_k=TOP_K)


async def measure(url: str) -> None:
    from llama_index.core.schema import QueryBundle

    passages, questions = texts("corpus"), texts("queries")[:QUESTIONS]
    model = LocalEmbedding.load()
    vectors = model.get_text_embedding_batch(passages)
    asked = [model.get_query_embedding(question) for question in questions]
    retriever = peer_retriever(url, passages, vectors, model)
    raw = Redis.from_url(url)
    async with KnowledgeBase(Settings(redis_url=url, namespace="bench"), embed_model=model) as kb:
        await kb.store_facts({"content": passage} for passage in passages)
        for question in questions:
            await kb.search(question, mode="vector")

        async def by_knn(number: int) -> None:
            query = f"*=>[KNN {TOP_K} @vector $v AS d]"
            blob = array("f", asked[number]).tobytes()
            await raw.execute_command(
                *("FT.SEARCH", "peer", query, "PARAMS", 2, "v", blob, "SORTBY", "d", "RETURN", 2, "text", "d"),
                *("LIMIT", 0, TOP_K, "DIALECT", 2),
            )

        runs: dict[str, Callable[[int], Awaitable[Any]]] = {
            "raw redis-py KNN, vector given": by_knn,
            "LlamaIndex aretrieve, vector given": lambda number: retriever.aretrieve(
                QueryBundle(query_str="", embedding=asked[number])
            ),
            "kb.search vector, embedding cached": lambda number: kb.search(questions[number], TOP_K, mode="vector"),
            "kb.search text": lambda number: kb.search(questions[number], TOP_K, mode="text"),
            "kb.search hybrid, embedding cached": lambda number: kb.search(questions[number], TOP_K),
            "kb.get_fact by words": lambda number: kb.get_fact(query=questions[number], limit=TOP_K),
        }
        baseline = 0.0
        for name, ask in runs.items():
            took = await timed(ask)
            baseline = baseline or median(took)
            print(
                f"{name}: p50 {median(took):.2f} ms, p95 {percentile(took, 0.95):.2f} ms, "
                f"{median(took) / baseline:.1f} x raw redis-py"
            )
    await raw.aclose()


def main() -> None:
    server = RedisServer()
    server.start()
    try:
        asyncio.run(measure(server.url))
    finally:
        server.remove()
