"""How search fuses words and meaning, against reciprocal rank fusion, over the same candidates of the same run.

``python -m tests.benchmarks fusion DIR…`` reads test collections, as ``kb eval`` does.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from knowledge_base import KnowledgeBase, Settings
from knowledge_base.index.candidate import Candidates
from knowledge_base.retrieval.candidates import SearchRequest
from knowledge_base.retrieval.evaluation import Collection, mean_quality, read_collection
from knowledge_base.retrieval.fusion import by_similarity, by_words, convex_combination
from tests.support.polling import eventually

CUT = 10
RRF_K = 60
DEPTHS = (50, 100, 200)
DEPTH = 100
WEIGHTS = (0.3, 0.4, 0.5, 0.6, 0.7)
BINS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
PATIENT = 600.0

Ranking: TypeAlias = Sequence[str]


class Retrieved(NamedTuple):
    """What the retrievers found for one query."""

    text: Candidates
    vector: Candidates


Fuse: TypeAlias = Callable[[Candidates, Candidates], list[tuple[str, float]]]


def reciprocal_rank_fusion(text: Candidates, vector: Candidates) -> list[tuple[str, float]]:
    """Cormack, Clarke and Büttcher, SIGIR 2009."""
    sums: dict[str, float] = {}
    for candidates in (text, vector):
        for rank, owner in enumerate(dict.fromkeys(candidates.owners), 1):
            sums[owner] = sums.get(owner, 0.0) + 1 / (RRF_K + rank)
    return sorted(((owner.rpartition(":")[0], score) for owner, score in sums.items()), key=lambda one: -one[1])


def combination(weight: float, depth: int = DEPTH) -> Fuse:
    def fuse(text: Candidates, vector: Candidates) -> list[tuple[str, float]]:
        return [(one.fact_id, one.score) for one in convex_combination(text, vector, weight=weight, depth=depth)]

    return fuse


def ways(weight: float) -> dict[str, tuple[Fuse, int]]:
    """Name, function and depth of each way."""
    single: dict[str, tuple[Fuse, int]] = {
        "text alone": (lambda text, _: [(one.fact_id, one.score) for one in by_words(text)], DEPTH),
        "vector alone": (lambda _, vector: [(one.fact_id, one.score) for one in by_similarity(vector)], DEPTH),
        f"reciprocal rank fusion, k {RRF_K}": (reciprocal_rank_fusion, DEPTH),
    }
    single |= {f"combination, weight {one}": (combination(one), DEPTH) for one in WEIGHTS}
    return single | {f"combination, {depth} candidates": (combination(weight, depth), depth) for depth in DEPTHS}


async def retrieved(kb: KnowledgeBase, collection: Collection) -> dict[str, Retrieved]:
    """Asks every query for the deepest candidates."""
    for begin in range(0, len(collection.documents), 500):
        some = collection.documents[begin : begin + 500]
        await kb.store_facts([{"content": one.text, "fact_id": f"d{one.doc_id}"} for one in some], timeout=PATIENT)

    async def all_indexed() -> bool:
        return (await kb.get_stats())["pending"] == 0

    await eventually(all_indexed, PATIENT)
    found: dict[str, Retrieved] = {}
    async with kb._services.call("search", PATIENT, PATIENT) as services:
        for query in collection.queries:
            request = SearchRequest(kb.settings.namespace, query.text, "hybrid", CUT, [])
            both = (await services.finder.find(await services.finder.prepare(request), max(DEPTHS))).retrieved
            found[query.query_id] = Retrieved(both["text"], both["vector"])
    return found


def quality(found: Mapping[str, Retrieved], collection: Collection, fuse: Fuse, depth: int) -> float:
    rankings = {
        query_id: [fact_id.removeprefix("d") for fact_id, _ in fuse(one.text[:depth], one.vector[:depth])[:CUT]]
        for query_id, one in found.items()
    }
    return mean_quality(rankings, collection.judgements, CUT).ndcg


def relevant_by_score(found: Mapping[str, Retrieved], collection: Collection, fuse: Fuse) -> str:
    """The share of relevant hits among those of like scores."""
    hits: dict[int, list[bool]] = {}
    for query_id, one in found.items():
        judged = collection.judgements[query_id]
        for fact_id, score in fuse(one.text[:DEPTH], one.vector[:DEPTH])[:CUT]:
            place = max(place for place, least in enumerate(BINS) if score >= least)
            hits.setdefault(place, []).append(judged.get(fact_id.removeprefix("d"), 0) > 0)
    shares = {place: sum(some) / len(some) for place, some in hits.items() if len(some) > CUT}
    return "  ".join(f"{shares[place]:.2f}" if place in shares else "   -" for place in range(len(BINS)))


async def measure(folders: Sequence[Path]) -> None:
    collections = [read_collection(folder) for folder in folders]
    found: list[dict[str, Retrieved]] = []
    weight = Settings().retrieval.vector_weight
    for collection in collections:
        with tempfile.TemporaryDirectory() as folder:
            async with KnowledgeBase(Settings(data_dir=Path(folder))) as kb:
                found.append(await retrieved(kb, collection))
    print(f"nDCG@{CUT}".ljust(34) + "  ".join(f"{one.name[-12:]:>12}" for one in collections))
    for name, (fuse, depth) in ways(weight).items():
        figures = [quality(*pair, fuse, depth) for pair in zip(found, collections, strict=True)]
        print(name.ljust(34) + "  ".join(f"{figure:12.4f}" for figure in figures))
    print(f"share of relevant hits by score, from {BINS}")
    for name in ("text alone", "vector alone", f"combination, weight {weight}"):
        fuse = ways(weight)[name][0]
        for pair in zip(found, collections, strict=True):
            print(f"{name}, {pair[1].name}".ljust(44) + relevant_by_score(*pair, fuse))


def main() -> None:
    folders = [Path(argument) for argument in sys.argv[1:] if Path(argument).is_dir()]
    asyncio.run(measure(folders))
