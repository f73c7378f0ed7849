"""``kb eval``: the quality and the speed of search on a retrieval test collection."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from knowledge_base.errors import InvalidInputError
from knowledge_base.interfaces.cli.options import AsJson, Common, Namespace, RedisUrl
from knowledge_base.interfaces.cli.output import Output
from knowledge_base.interfaces.cli.session import run
from knowledge_base.interfaces.cli.trial import Ranking, rank_all, search_times, store_all, wait_until_indexed
from knowledge_base.retrieval.evaluation import Collection, mean_quality, read_collection

if TYPE_CHECKING:
    from knowledge_base.knowledge_base import KnowledgeBase
    from knowledge_base.settings import Settings
    from knowledge_base.types import SearchMode, SearchResults

MODES = ("text", "vector", "hybrid")
TAG, PRINCIPAL = "evaluated", "group:evaluators"


def evaluate(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Holds corpus.jsonl, queries.jsonl and qrels.tsv.")],
    modes: Annotated[
        str, typer.Option("--modes", metavar="LIST", help="Any of text, vector and hybrid, with commas between.")
    ] = ",".join(MODES),
    filtered: Annotated[
        bool, typer.Option("--filtered", help="Search with a tag and a principal that every document has.")
    ] = False,
    top_k: Annotated[int, typer.Option("--top-k", metavar="N", min=1, help="The rank to measure down to.")] = 10,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the documents stored for the next run.")] = False,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Measure search on a test collection.

    The documents go into a namespace of their own and are removed again; --keep leaves them for the next run.
    Queries are asked one at a time, without cached embeddings.
    """
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    wanted = modes_of(modes)
    # Each search shall pay for its own embedding: the modes ask the same questions one after the other.
    settings = common.settings(embedding={"cache_size": 0})
    trial = Trial(read_collection(folder), settings, filtered, top_k, out)
    if common.namespace is None:
        settings = settings.model_copy(update={"namespace": trial.namespace})

    async def measure(base: KnowledgeBase) -> dict[str, dict[str, float]]:
        await trial.store(base)
        measured: dict[str, dict[str, float]] = {mode: await trial.measure(base, mode) for mode in wanted}
        if not keep:
            await trial.remove(base)
        return measured

    measured = run(settings, measure)
    out.result(measured)
    names = list(next(iter(measured.values())))
    out.say((f"{'mode':<8}" + "".join(f"{name:>12}" for name in names), "bold"))
    for mode, figures in measured.items():
        out.say(f"{mode:<8}" + "".join(_shown(name, figures[name]) for name in names))


def modes_of(written: str) -> list[SearchMode]:
    """Reads a list of modes.

    Args:
        written: Modes with commas between them.

    Raises:
        InvalidInputError: One is unknown, or there is none.
    """
    modes = list(dict.fromkeys(mode.strip() for mode in written.split(",") if mode.strip()))
    if not modes or not set(modes) <= set(MODES):
        raise InvalidInputError("modes", f"must be one or more of {', '.join(MODES)}, with commas between")
    return cast("list[SearchMode]", modes)


class Trial:
    """One test collection in a knowledge base.

    The ids of a collection may be anything, and several documents may share one text, which makes one fact. So a
    fact's id is derived from its text, and leads back to every document that has it.

    Args:
        collection: The collection.
        settings: Of the knowledge base; what they say about embedding and chunking is part of the namespace's name.
        filtered: Whether every document gets a tag and a principal, and every search asks for them.
        cut: The rank to measure down to.
        out: Where notes and progress go.
    """

    def __init__(self, collection: Collection, settings: Settings, filtered: bool, cut: int, out: Output) -> None:
        self._collection = collection
        self._cut = cut
        self._out = out
        self._principals = [PRINCIPAL] if filtered else None
        self._filters = {"tags": [TAG]} if filtered else None
        self._texts: dict[str, str] = {}
        self._documents: dict[str, list[str]] = {}
        for document in collection.documents:
            fact_id = f"text-{hashlib.sha256(document.text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
            self._texts[fact_id] = document.text
            self._documents.setdefault(fact_id, []).append(document.doc_id)
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", collection.name)[:64]
        self.source = f"eval-{name}"
        self.namespace = f"eval-{name}-{self._identity(settings, filtered)}"

    async def store(self, base: KnowledgeBase) -> None:
        """Stores every document that is not there yet, and waits for their vectors.

        Args:
            base: The knowledge base.

        Raises:
            UnavailableError: It was cut short.
        """
        if self._collection.empty:
            self._out.note(f"{len(self._collection.empty)} documents without a text were skipped")
        facts = [self._fact(fact_id, text) for fact_id, text in self._texts.items()]
        with self._out.progress(f"Storing {len(facts)} documents") as progress:
            stored = await store_all(base, facts, progress)
        if failed := stored["failed"]:
            self._out.note(f"{len(failed)} documents could not be stored; the first: {failed[0]['error']}")
        if pending := await wait_until_indexed(base):
            self._out.note(f"{pending} documents still wait for their vectors; vector and hybrid figures are too low")

    async def measure(self, base: KnowledgeBase, mode: SearchMode) -> dict[str, float]:
        """Asks every query, one at a time.

        Args:
            base: The knowledge base.
            mode: How to search.
        """

        async def search(text: str) -> SearchResults:
            return await base.search(text, self._cut, mode=mode, principals=self._principals, filters=self._filters)

        queries = self._collection.queries
        await search(queries[0].text)  # connections and the model are not part of what is timed
        with self._out.progress(f"Searching ({mode})") as progress:
            rankings = await rank_all(search, queries, progress)
        if degraded := sum(not ranking.whole for ranking in rankings):
            self._out.note(f"{mode}: {degraded} of {len(rankings)} searches were degraded or cut short")
        quality = mean_quality(
            {ranking.query_id: self._doc_ids(ranking) for ranking in rankings}, self._collection.judgements, self._cut
        )
        p50, p95, _ = search_times(rankings)
        return {
            f"ndcg@{self._cut}": round(quality.ndcg, 6),
            f"recall@{self._cut}": round(quality.recall, 6),
            f"mrr@{self._cut}": round(quality.mrr, 6),
            "p50_ms": p50,
            "p95_ms": p95,
            "queries": len(rankings),
        }

    async def remove(self, base: KnowledgeBase) -> None:
        """Deletes what ``store`` has stored.

        The trial's own namespace goes as a whole: the server counts the words of deleted documents until it cleans up,
        which would spoil the scores of the next run.

        Args:
            base: The knowledge base.
        """
        if base.settings.namespace == self.namespace:
            await base.drop_namespace(self.namespace, confirm=self.namespace)
            return
        with self._out.progress("Removing the documents") as progress:
            await base.delete_facts({"source": self.source}, principals=self._principals, progress=progress)

    def _fact(self, fact_id: str, text: str) -> dict[str, Any]:
        fact: dict[str, Any] = {"content": text, "fact_id": fact_id, "source": self.source}
        if self._principals:
            fact |= {"tags": [TAG], "principals": self._principals}
        return fact

    def _doc_ids(self, ranking: Ranking) -> list[str]:
        return [doc_id for fact_id in ranking.fact_ids for doc_id in self._documents.get(fact_id, [fact_id])]

    def _identity(self, settings: Settings, filtered: bool) -> str:
        embedding = settings.embedding.model_dump(mode="json", include={"provider", "model", "base_url", "dimension"})
        chunking = settings.chunking.model_dump(mode="json")
        identity = json.dumps([embedding, chunking, filtered, sorted(self._texts)], sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()[:12]


def _shown(name: str, figure: float) -> str:
    digits = 0 if name == "queries" else 1 if name.endswith("_ms") else 4
    return f"{figure:>12.{digits}f}"
