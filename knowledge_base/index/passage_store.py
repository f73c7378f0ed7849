"""LlamaIndex's vector index over our passages. Takes seconds to import: only worker threads do."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import redis
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery, VectorStoreQueryResult
from llama_index.vector_stores.redis import RedisVectorStore
from redisvl.schema import IndexSchema

from knowledge_base.index.schema import VECTOR_FIELD, Generation

# The store logs each query, with its filter, at INFO; its library each error, with a traceback that may quote content,
# although it raises it as well.
logging.getLogger("llama_index.vector_stores.redis.base").setLevel(logging.WARNING)
logging.getLogger("redisvl.index.index").setLevel(logging.CRITICAL)

RETURNED_FIELD = "fact_id"


class CompiledFilters(MetadataFilters):
    """Filters that are query text already."""

    text: str


class PassageStore(RedisVectorStore):
    """The vector store of one generation, attached to an index that exists.

    Args:
        generation: The generation.
        client: The synchronous client of the worker threads.
    """

    def __init__(self, generation: Generation, client: redis.Redis) -> None:
        super().__init__(
            schema=_schema(generation),
            redis_client=client,
            redis_client_async=_NeverAwaited(),  # type: ignore[arg-type]
            return_fields=[RETURNED_FIELD],
        )

    def create_index(self, overwrite: bool | None = None) -> None:
        """Does nothing: the index is created beforehand, with what this store's schema cannot say."""

    def _build_filter_expression(self, filters: MetadataFilters | None) -> str:
        if not isinstance(filters, CompiledFilters):
            raise TypeError("passages are only searched within a compiled filter")
        return f"({filters.text})"

    def _process_query_results(self, results: list[dict[str, Any]], redis_query: Any) -> VectorStoreQueryResult:
        # The content is read later, with the fact, for the few hits that are returned, so no nodes are made: a
        # hundred of them would hold the interpreter's lock for milliseconds. What vanished while the server was
        # searching comes without a distance, and is dropped then.
        distances = [float(found.get(redis_query.DISTANCE_ID, 1.0)) for found in results]
        ids = [found["id"] for found in results]
        return VectorStoreQueryResult(nodes=[], ids=ids, similarities=[1.0 - distance for distance in distances])


class _NeverAwaited:
    """Stands where the store would build an unguarded asynchronous client of its own."""


def open_index(generation: Generation, client: redis.Redis, model: BaseEmbedding) -> VectorStoreIndex:
    """Returns LlamaIndex's index over a generation; does no I/O.

    Args:
        generation: The generation.
        client: The synchronous client of the worker threads.
        model: The embedding model, so that LlamaIndex does not look for one.
    """
    return VectorStoreIndex.from_vector_store(PassageStore(generation, client), embed_model=model)


def insert(index: VectorStoreIndex, passages: Sequence[tuple[str, str, str, list[float]]]) -> None:
    """Inserts vectors.

    Args:
        index: What ``open_index`` gave.
        passages: Node id, fact id, text and vector of each.
    """
    nodes = [
        TextNode(
            id_=node_id,
            text=text,
            embedding=vector,
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=fact_id)},
        )
        for node_id, fact_id, text, vector in passages
    ]
    index.insert_nodes(nodes, preprocess=_only_the_vector)


def _only_the_vector(record: dict[str, Any]) -> dict[str, Any]:
    # Everything else stands with the passage already; here it would only take memory.
    return {"id": record["id"], VECTOR_FIELD: record[VECTOR_FIELD]}


def retrieve(index: VectorStoreIndex, vector: list[float], scope: str, top_k: int) -> list[tuple[str, float]]:
    """Returns the keys and cosine similarities of the nearest passages, best first.

    Args:
        index: What ``open_index`` gave.
        vector: The query's vector.
        scope: Compiled filter text.
        top_k: How many.
    """
    query = VectorStoreQuery(
        query_embedding=vector, similarity_top_k=top_k, filters=CompiledFilters(filters=[], text=scope)
    )
    found = index.vector_store.query(query)
    return list(zip(found.ids or [], found.similarities or [], strict=True))


def _schema(generation: Generation) -> IndexSchema:
    attributes: dict[str, Any] = {"dims": generation.dimension, "algorithm": "hnsw", "distance_metric": "cosine"}
    return IndexSchema.from_dict(
        {
            "index": {"name": generation.vector_index, "prefix": generation.passage_prefix, "key_separator": ":"},
            "fields": [
                {"name": "id", "type": "tag"},
                {"name": "doc_id", "type": "tag"},
                {"name": "text", "type": "text"},
                {"name": VECTOR_FIELD, "type": "vector", "attrs": {**attributes, "datatype": "float32"}},
            ],
        }
    )
