"""The index that the Redis peers share, in the form of LlamaIndex's store and with the parameters of ours."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.speed.passages import DIMENSION

PEER = "peer"
LINKS = 16
CONSTRUCTION = 64
RUNTIME = 200
"""As ``knowledge_base.index.schema`` has them, which environments of peers cannot import."""


def peer_schema(name: str) -> dict[str, Any]:
    """The schema of an index whose keys begin with its name.

    Args:
        name: The index.
    """
    attributes = {
        "dims": DIMENSION,
        "algorithm": "hnsw",
        "distance_metric": "cosine",
        "datatype": "float32",
        "m": LINKS,
        "ef_construction": CONSTRUCTION,
        "ef_runtime": RUNTIME,
    }
    return {
        "index": {"name": name, "prefix": name, "key_separator": ":"},
        "fields": [
            {"name": "id", "type": "tag"},
            {"name": "doc_id", "type": "tag"},
            {"name": "text", "type": "text"},
            {"name": "vector", "type": "vector", "attrs": attributes},
        ],
    }
