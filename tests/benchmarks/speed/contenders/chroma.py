"""Chroma in this process's memory: no server, no network, nothing that outlives the process."""

from __future__ import annotations

import asyncio
from typing import Any

import chromadb

from tests.benchmarks.speed.contenders.peer_index import CONSTRUCTION, LINKS, RUNTIME
from tests.benchmarks.speed.passages import TOP_K, Material, passage

AT_ONCE = 1_000


class ChromaPeer:
    """A collection; its calls block, so that they go to threads."""

    def __init__(self, collection: Any, material: Material) -> None:
        self._collection = collection
        self._questions = list(material.questions)

    async def ask(self, what: str, number: int) -> list[int]:
        found = await asyncio.to_thread(
            self._collection.query,
            query_embeddings=[self._questions[number]],
            n_results=TOP_K,
            include=["documents", "distances"],
        )
        return [int(one) for one in found["ids"][0]]

    async def close(self) -> None:
        """Has nothing to close."""


async def open(url: str, material: Material, size: int) -> ChromaPeer:  # noqa: A001
    client = chromadb.EphemeralClient(chromadb.Settings(anonymized_telemetry=False))
    graph = {"space": "cosine", "max_neighbors": LINKS, "ef_construction": CONSTRUCTION, "ef_search": RUNTIME}
    collection = client.create_collection("peer", embedding_function=None, configuration={"hnsw": graph})
    for begin in range(0, size, AT_ONCE):
        numbers = range(begin, min(begin + AT_ONCE, size))
        collection.add(
            ids=[str(number) for number in numbers],
            embeddings=material.vectors[begin : begin + AT_ONCE][: len(numbers)],
            documents=[passage(number) for number in numbers],
        )
    return ChromaPeer(collection, material)
