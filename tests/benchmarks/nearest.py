"""What the parameters of the index of vectors give: vectors a second, recall, and time of a query.

``python -m tests.benchmarks nearest``
"""

from __future__ import annotations

import time

import numpy as np
import redis

from knowledge_base.index import schema
from knowledge_base.index.schema import Generation, vector_index_command
from tests.support.many_facts import unit_vectors
from tests.support.server import RedisServer

VECTORS = 20_000
QUERIES = 300
DIMENSION = 384
CLUSTERS = 4_000
NEAREST = 10
PIPELINE = 50
CHOICES = ((200, 100), (100, 150), (schema.HNSW_CONSTRUCTION, schema.HNSW_RUNTIME))


def measure(client: redis.Redis, number: int, construction: int, runtime: int) -> str:
    schema.HNSW_CONSTRUCTION, schema.HNSW_RUNTIME = construction, runtime
    generation = Generation("nearest", number, "model", DIMENSION)
    client.execute_command(*vector_index_command(generation, scan=False))
    vectors = unit_vectors(VECTORS, DIMENSION, clusters=CLUSTERS)
    queries = unit_vectors(QUERIES, DIMENSION, first=10 * VECTORS, clusters=CLUSTERS)
    begun = time.perf_counter()
    for begin in range(0, VECTORS, PIPELINE):
        pipeline = client.pipeline(transaction=False)
        for at in range(begin, begin + PIPELINE):
            pipeline.hset(f"{generation.passage_prefix}:{at}", mapping={"fact_id": at, "vector": vectors[at].tobytes()})
        pipeline.execute()
    rate = VECTORS / (time.perf_counter() - begun)
    right, begun = 0, time.perf_counter()
    answers = []
    for query in queries:
        text = f"*=>[KNN {NEAREST} @vector $vector AS distance]"
        options = ["PARAMS", 2, "vector", query.tobytes(), "NOCONTENT", "SORTBY", "distance", "DIALECT", 2]
        answers.append(client.execute_command("FT.SEARCH", generation.vector_index, text, *options)[1:])
    took = (time.perf_counter() - begun) / QUERIES * 1000
    for query, answer in zip(queries, answers, strict=True):
        nearest = set(np.argsort(-(vectors @ query))[:NEAREST].tolist())
        right += len(nearest & {int(key.decode().rpartition(":")[2]) for key in answer})
    client.execute_command("FT.DROPINDEX", generation.vector_index, "DD")
    return (
        f"construction {construction}, runtime {runtime}: {rate:.0f} vectors/s, "
        f"recall@{NEAREST} {right / (QUERIES * NEAREST):.4f}, {took:.2f} ms a query"
    )


def main() -> None:
    server = RedisServer()
    server.start()
    try:
        client = redis.Redis.from_url(server.url)
        for number, (construction, runtime) in enumerate(CHOICES, start=1):
            print(measure(client, number, construction, runtime), flush=True)
        client.close()
    finally:
        server.remove()
