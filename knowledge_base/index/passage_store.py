"""LlamaIndex's vector index over our passages. Takes seconds to import: only worker threads do."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Sequence
from typing import Any, TypeAlias

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

DISTANCE = "distance"

Found: TypeAlias = tuple[list[str], list[float]]
"""Keys and similarities."""


class CompiledFilters(MetadataFilters):
    """Filters that are query text already, and how the server is to find the nearest of what passes them."""

    text: str
    attributes: str = ""


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
        )

    def create_index(self, overwrite: bool | None = None) -> None:
        """Does nothing: the index is created beforehand, with what this store's schema cannot say."""

    def query(self, query: VectorStoreQuery, **_: Any) -> VectorStoreQueryResult:
        """Returns the keys and cosine similarities of the nearest passages, best first; no nodes.

        Args:
            query: Its filters are ``CompiledFilters``.

        Raises:
            redis.RedisError: The server refused, or could not be reached.
        """
        reply: list[Any] = self.client.execute_command(*self.command(query))  # type: ignore[no-untyped-call]
        return result_of(reply)

    def command(self, query: VectorStoreQuery) -> list[Any]:
        """Returns the command of a query.

        The store's own way to it costs more than the server's search: it copies the vector, writes the query into a
        log line, and makes a dictionary of each row.

        Args:
            query: Its filters are ``CompiledFilters``.
        """
        filters = query.filters
        if not isinstance(filters, CompiledFilters):
            raise TypeError("passages are only searched within a compiled filter")
        vector = query.query_embedding
        packed = vector if isinstance(vector, array) else array("f", vector or [])
        nearest = f"KNN {query.similarity_top_k} @{VECTOR_FIELD} $vector {filters.attributes} AS {DISTANCE}"
        text = f"({filters.text})=>[{nearest}]"
        options = ["RETURN", 1, DISTANCE, "SORTBY", DISTANCE, "ASC", "LIMIT", 0, query.similarity_top_k]
        parameters = ["PARAMS", 2, "vector", packed.tobytes(), "DIALECT", 2]
        return ["FT.SEARCH", self.index_name, text, *options, *parameters]


def result_of(reply: list[Any]) -> VectorStoreQueryResult:
    """Returns what the server found.

    The content is read later, with the fact, for the few hits that are returned, so no nodes are made: a hundred of
    them would hold the interpreter's lock for milliseconds. What vanished while the server was searching comes without
    a distance, and is dropped then.

    Args:
        reply: The server's answer to a store's ``command``.
    """
    distances = [float(row[1]) if row else 1.0 for row in reply[2::2]]
    return VectorStoreQueryResult(nodes=[], ids=reply[1::2], similarities=[1.0 - distance for distance in distances])


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


def retrieve(
    client: redis.Redis, asked: Sequence[tuple[VectorStoreIndex, Sequence[float], str, int, str]]
) -> list[Found | redis.RedisError]:
    """Returns for each query the keys and cosine similarities of the nearest passages, best first, or its error.

    Args:
        client: The client of the stores; the queries share one round trip.
        asked: What ``open_index`` gave, the query's vector, its compiled filter text, how many passages, and the
            attributes of ``scope_size.knn_attributes``.

    Raises:
        redis.RedisError: The server could not be reached.
    """
    commands = []
    for index, vector, scope, top_k, attributes in asked:
        filters = CompiledFilters(filters=[], text=scope, attributes=attributes)
        query = VectorStoreQuery(query_embedding=vector, similarity_top_k=top_k, filters=filters)  # type: ignore[arg-type]
        store = index.vector_store
        assert isinstance(store, PassageStore)
        commands.append(store.command(query))
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
    replies = pipeline.execute(raise_on_error=False)
    return [reply if isinstance(reply, redis.RedisError) else _found(result_of(reply)) for reply in replies]


def _found(result: VectorStoreQueryResult) -> Found:
    return result.ids or [], result.similarities or []


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
