"""``kb demo``: real passages, real questions, and how well they find each other."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from knowledge_base.errors import KnowledgeBaseError
from knowledge_base.interfaces.cli.options import AsJson, Common, Namespace, RedisUrl
from knowledge_base.interfaces.cli.output import Output, snippet
from knowledge_base.interfaces.cli.session import run
from knowledge_base.interfaces.cli.trial import Ranking, rank_all, search_times, store_all, wait_until_indexed
from knowledge_base.retrieval.evaluation import Collection, Query, read_collection

if TYPE_CHECKING:
    from knowledge_base.knowledge_base import KnowledgeBase

NAMESPACE = "demo"
PASSAGES = Path(__file__).with_name("data") / "xquad_en"
ATTRIBUTION = (
    "Passages and questions: SQuAD (Rajpurkar et al. 2016) in the selection of XQuAD (Artetxe, Ruder, Yogatama 2020), "
    "from Wikipedia; CC BY-SA 4.0, https://creativecommons.org/licenses/by-sa/4.0/"
)
ONE_AT_A_TIME_FOR = 20.0

SHOWN = (
    "56bec6ac3aeaaa14008c93fd",  # How many Grammys has Lady Gaga won?
    "56dfa0d84a1a83140091ebb7",  # What year did Tesla die?
    "56f86e91aef237190062606a",  # What artist provided the woodcuts for Luther's Bible?
    "571cb27fdd7acb1400e4c134",  # How much heavier is oxygen 18 than oxygen 16?
    "5728349dff5b5019007d9f02",  # How many species of trees can be found in the Amazon rainforest?
    "57264b3edd62a815002e80aa",  # What was the black death originally blamed on?
    "57273455f1498d1400e8f48e",  # Where did the Chinese Nationalists move the mausoleum …?
    "5728d63c4b864d1900164f1b",  # Which famous Indian practiced civil disobedience?
    "5727cb4b2ca10214002d9676",  # What river runs alongside Jacksonville?
    "572914f46aef051400154a49",  # When did Obama finally visit Kenya?
    "572991943f37b319004784a2",  # What is a twin prime?
    "572ff12e04bcaa1900d76f02",  # What is the Rhine Gorge known for?
)


def demo(
    context: typer.Context,
    questions: Annotated[int | None, typer.Option("--questions", hidden=True, min=1)] = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Store real passages and ask real questions.

    240 paragraphs of Wikipedia, and 1 190 questions that people have asked of them. A second run stores nothing anew.
    """
    from knowledge_base.settings import redacted_url

    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    collection = read_collection(PASSAGES)
    settings = common.settings(**({} if common.namespace else {"namespace": NAMESPACE}))

    async def show(base: KnowledgeBase) -> dict[str, Any]:
        return {
            "namespace": settings.namespace,
            **await _store(base, collection, out),
            "answers": await _answer(base, collection, out),
            **await _measure(base, collection, spread(collection.queries, questions), out),
            "attribution": ATTRIBUTION,
        }

    out.result(run(settings, show))
    where = f" --redis-url {redacted_url(common.redis_url)}" if common.redis_url else ""
    out.say((ATTRIBUTION, "dim"))
    out.say()
    out.say(
        "Try next: ",
        (
            f'{kb_command()} search "Which inventor died poor in New York?" --namespace {settings.namespace}{where}',
            "bold",
        ),
    )


def kb_command() -> str:
    """Returns what to type for ``kb``: its path where the shell would not find it, or finds another one."""
    called = sys.argv[0]
    if os.path.basename(called) != "kb":
        return "kb"
    found = shutil.which("kb")
    return "kb" if found is not None and os.path.realpath(found) == os.path.realpath(called) else shlex.quote(called)


def spread(queries: Sequence[Query], number: int | None) -> Sequence[Query]:
    """So many of the queries, evenly from all of them.

    Args:
        queries: The queries in their order.
        number: How many; all when not given.
    """
    if number is None or number >= len(queries):
        return queries
    return [queries[place * len(queries) // number] for place in range(number)]


def fact_id_of(doc_id: str) -> str:
    """The id under which a passage is stored.

    Args:
        doc_id: Its id in the collection.
    """
    return f"xquad-{doc_id}"


async def _store(base: KnowledgeBase, collection: Collection, out: Output) -> dict[str, Any]:
    facts = [
        {
            "content": document.text,
            "fact_id": fact_id_of(document.doc_id),
            "source": "XQuAD",
            "tags": ["wikipedia"],
            "metadata": {"paragraph": document.doc_id},
        }
        for document in collection.documents
    ]
    began = time.monotonic()
    with out.progress("Storing passages") as progress:
        stored = await store_all(base, facts, progress)
    failed = stored["failed"]
    if failed and len(failed) == len(facts):
        raise KnowledgeBaseError(f"no passage could be stored; the first: {failed[0]['error']}")
    pending = await wait_until_indexed(base)
    took = time.monotonic() - began
    out.say(
        (f"{len(facts)} Wikipedia paragraphs", "bold"),
        f": {stored['succeeded']} new, {stored['duplicates']} there already ({took:.1f} s)",
    )
    if failed:
        out.note(f"{len(failed)} passages are not as they were shipped and stay as they are: {failed[0]['error']}")
    if pending:
        out.note(f"{pending} passages still wait for their vectors and are found by words only")
    return {"passages": len(facts), "new": stored["succeeded"]}


async def _answer(base: KnowledgeBase, collection: Collection, out: Output) -> list[dict[str, Any]]:
    texts = {query.query_id: query.text.strip() for query in collection.queries}
    answers: list[dict[str, Any]] = []
    for number, query_id in enumerate(SHOWN, start=1):
        question = texts[query_id]
        hits = (await base.search(question, 1))["hits"]
        out.say()
        out.say(f"{number:>2}. ", (question, "bold"))
        if not hits:
            out.say("    Nothing found.")
            answers.append({"question": question, "fact_id": None, "passage": None, "score": None, "right": False})
            continue
        hit = hits[0]
        right = hit["fact_id"] in {fact_id_of(doc_id) for doc_id in collection.judgements[query_id]}
        passage = snippet(hit["content"], question, 200)
        missed = "" if right else "  (not the paragraph that this was asked of)"
        out.say("    ", (f"{hit['score']:.3f}", "green" if right else "yellow"), f"  {passage}", (missed, "yellow"))
        answers.append(
            {"question": question, "fact_id": hit["fact_id"], "passage": passage, "score": hit["score"], "right": right}
        )
    return answers


async def _measure(
    base: KnowledgeBase, collection: Collection, queries: Sequence[Query], out: Output
) -> dict[str, Any]:
    with out.progress("Asking every question") as progress:
        rankings = await rank_all(
            lambda question: base.search(question, 5), queries, progress, alone_for=ONE_AT_A_TIME_FOR
        )
    first, fifth = (_share(rankings, collection, cut) for cut in (1, 5))
    p50, p95, timed = search_times(rankings)
    out.say()
    out.say(
        (f"{len(queries)} questions", "bold"),
        ": the paragraph that each was asked of is the first hit for ",
        (f"{first:.1%}", "bold"),
        ", among the first five for ",
        (f"{fifth:.1%}", "bold"),
    )
    out.say(f"Search time: p50 {p50:.1f} ms, p95 {p95:.1f} ms ({timed} searches, one at a time)")
    out.say()
    if degraded := sum(not ranking.whole for ranking in rankings):
        out.note(f"{degraded} of {len(rankings)} searches were degraded or cut short")
    return {
        "questions": len(queries),
        "top_1": round(first, 4),
        "top_5": round(fifth, 4),
        "p50_ms": p50,
        "p95_ms": p95,
        "timed_one_at_a_time": timed,
    }


def _share(rankings: Sequence[Ranking], collection: Collection, cut: int) -> float:
    found = sum(
        any(fact_id_of(doc_id) in ranking.fact_ids[:cut] for doc_id in collection.judgements[ranking.query_id])
        for ranking in rankings
    )
    return found / len(rankings)
