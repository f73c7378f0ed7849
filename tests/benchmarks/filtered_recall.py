"""Recall of filtered vector search against exact search, and its time against the server's unfiltered KNN.

``python -m tests.benchmarks filtered_recall --facts 100000 --clusters 5000 --json FILE``

A filter may let passages through that are spread evenly over all of them, or whole clusters of them, so that most
queries find what passes far away: the second is harder for the server's graph of vectors.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import redis
from llama_index.core.base.embeddings.base import BaseEmbedding

from knowledge_base import KnowledgeBase, Settings
from knowledge_base.index.filters import FilterCompiler
from knowledge_base.index.schema import VECTOR_FIELD
from knowledge_base.settings import Limits
from tests.support.many_facts import BATCH, populate, unit_vectors
from tests.support.server import RedisServer

FACTS = 100_000
CLUSTERS = 5_000
DIMENSION = 384
QUERIES = 100
NEAREST = 10
CANDIDATES = 100
NEEDED = 0.95
SHARES = {"50 %": 0.5, "10 %": 0.1, "1 %": 0.01, "0.1 %": 0.001}
NAMESPACE = "filtered"

Passes = Callable[[Any], Any]


def spread(share: float) -> Passes:
    """Lets facts through wherever they are: by a hash of their numbers."""
    return lambda number: (number * 2_654_435_761) % 2**32 < share * 2**32


def gathered(share: float, clusters: int) -> Passes:
    """Lets whole clusters through, and of the last one the share that is left."""
    whole = int(share * clusters)
    if whole:
        return lambda number: number % clusters < whole
    every = round(1 / (share * clusters))
    return lambda number: (number % clusters == 0) & (number // clusters % every == 0)


class NumberedVectors(BaseEmbedding):
    """Gives the query "17" the seventeenth of some vectors."""

    vectors: list[list[float]]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self.vectors[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.vectors[int(query)]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


def raw_nearest(client: redis.Redis, index_name: str, scope: str, vector: Any, top_k: int) -> set[str]:
    """Asks the server alone, as it thinks best."""
    text = f"{scope}=>[KNN {top_k} @{VECTOR_FIELD} $vector AS distance]"
    options = ["PARAMS", 2, "vector", vector.tobytes(), "NOCONTENT", "SORTBY", "distance", "LIMIT", 0, top_k]
    reply = client.execute_command("FT.SEARCH", index_name, text, *options, "DIALECT", 2)
    return {key.decode().split(":passage:")[1].split(":")[1] for key in reply[1 : NEAREST + 1]}


class Recall:
    """Counts what was found of the exact nearest, and how long it took."""

    def __init__(self, exact: Sequence[set[str]]) -> None:
        self._exact = exact
        self.found = 0
        self.took: list[float] = []

    def add(self, number: int, found: set[str], took: float) -> None:
        self.found += len(found & self._exact[number])
        self.took.append(took * 1000)

    def figures(self) -> dict[str, float]:
        """Returns recall and median milliseconds."""
        return {"recall": self.found / sum(map(len, self._exact)), "p50_ms": median(self.took)}


async def measure(url: str, facts: int, clusters: int) -> dict[str, Any]:
    asked = unit_vectors(QUERIES, DIMENSION, first=10 * facts, clusters=clusters)
    filters: dict[str, Passes] = {"all": lambda number: number >= 0}
    filters |= {f"{name}, spread": spread(share) for name, share in SHARES.items()}
    filters |= {f"{name}, clusters": gathered(share, clusters) for name, share in SHARES.items()}
    model = NumberedVectors(model_name="numbered", vectors=asked.tolist())
    settings = Settings(redis_url=url, namespace=NAMESPACE, limits=Limits(history=0))
    numbers = np.arange(facts)
    firsts = range(0, facts, BATCH)
    stored = np.vstack([unit_vectors(min(BATCH, facts - at), DIMENSION, first=at, clusters=clusters) for at in firsts])
    similarities = asked @ stored.T
    report: dict[str, Any] = {"facts": facts, "clusters": clusters, "filters": {}}
    async with KnowledgeBase(settings, embed_model=model) as kb:
        await populate(
            kb, facts, clusters=clusters, tags=lambda number: [name for name in filters if filters[name](number)]
        )
        services = await kb._services.start()
        generation = await services.generations.current(NAMESPACE)
        assert generation is not None
        client = redis.Redis.from_url(url)

        async def by_search(passing: Any, filters: Any) -> dict[str, float]:
            recall = Recall(nearest(passing))
            for number in range(QUERIES):
                begun = time.perf_counter()
                found = await kb.search(str(number), NEAREST, mode="vector", filters=filters)
                recall.add(number, {hit["fact_id"] for hit in found["hits"]}, time.perf_counter() - begun)
            return recall.figures()

        async def by_candidates(passing: Any, scope: str) -> dict[str, float]:
            recall = Recall(nearest(passing))
            for number in range(QUERIES):
                begun = time.perf_counter()
                found = await services.vectors.query(generation, model.vectors[number], scope, CANDIDATES)
                recall.add(number, {one.name.fact_id for one in found[:NEAREST]}, time.perf_counter() - begun)
            return recall.figures()

        def by_server(passing: Any, scope: str, top_k: int) -> dict[str, float]:
            recall = Recall(nearest(passing))
            for number in range(QUERIES):
                begun = time.perf_counter()
                found = raw_nearest(client, generation.vector_index, scope, asked[number], top_k)
                recall.add(number, found, time.perf_counter() - begun)
            return recall.figures()

        def nearest(passing: Any) -> list[set[str]]:
            inside = np.where(passing, similarities, -2.0)
            most = min(NEAREST, int(passing.sum()))
            return [{f"f{at}" for at in row[:most]} for row in np.argsort(-inside, axis=1)]

        everything = np.ones(facts, dtype=bool)
        await by_search(everything, None)
        baseline = by_server(everything, "*", NEAREST)
        report["unfiltered KNN"] = baseline
        _print("the server's KNN without a filter", 1.0, baseline, baseline["p50_ms"])
        for name, passes in filters.items():
            passing = passes(numbers)
            share = float(passing.mean())
            scope = FilterCompiler(10).compile({"tags": name}, [])
            rows = {
                f"search for {NEAREST}": await by_search(passing, {"tags": name}),
                f"{CANDIDATES} candidates": await by_candidates(passing, scope),
                f"the server left alone, {NEAREST}": by_server(passing, f"({scope})", NEAREST),
                f"the server left alone, {CANDIDATES}": by_server(passing, f"({scope})", CANDIDATES),
            }
            report["filters"][name] = {"share": share, **rows}
            for row, figures in rows.items():
                _print(f"{name}: {row}", share, figures, baseline["p50_ms"])
        client.close()
    return report


def _print(name: str, share: float, figures: dict[str, float], baseline: float) -> None:
    verdict = "" if "alone" in name or figures["recall"] >= NEEDED else f" — below {NEEDED}"
    print(
        f"{name}: {share:.2%} pass, recall@{NEAREST} {figures['recall']:.3f}, {figures['p50_ms']:.2f} ms, "
        f"{figures['p50_ms'] / baseline:.1f} x unfiltered KNN{verdict}",
        flush=True,
    )


def _option(name: str, default: str) -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def main() -> None:
    server = RedisServer()
    server.start()
    try:
        facts, clusters = int(_option("--facts", str(FACTS))), int(_option("--clusters", str(CLUSTERS)))
        report = asyncio.run(measure(server.url, facts, clusters))
    finally:
        server.remove()
    if path := _option("--json", ""):
        Path(path).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
