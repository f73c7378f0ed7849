"""``kb search``: the best passages for a question."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from knowledge_base.interfaces.cli.options import (
    AsJson,
    Common,
    Filter,
    Namespace,
    Principals,
    RedisUrl,
    Source,
    Tags,
    filters_of,
)
from knowledge_base.interfaces.cli.output import Output, snippet
from knowledge_base.interfaces.cli.session import run


class Mode(StrEnum):
    """The choices of ``--mode``."""

    HYBRID = "hybrid"
    VECTOR = "vector"
    TEXT = "text"


def search(
    context: typer.Context,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for: a question or words.")],
    top_k: Annotated[int, typer.Option("--top-k", metavar="N", help="Hits at most.")] = 10,
    mode: Annotated[Mode, typer.Option("--mode", help="By meaning and words, by meaning, or by words.")] = Mode.HYBRID,
    tags: Tags = None,
    source: Source = None,
    written: Filter = None,
    principals: Principals = None,
    min_score: Annotated[
        float | None, typer.Option("--min-score", metavar="0…1", help="Leave out hits that score less.")
    ] = None,
    rerank: Annotated[
        bool | None,
        typer.Option(
            "--rerank/--no-rerank",
            help="Insist on the reranker of KB_RETRIEVAL__RERANKER, or do without; used if set when not given.",
        ),
    ] = None,
    diversity: Annotated[
        float | None,
        typer.Option("--diversity", metavar="0…1", help="How much hits like better ones give way to others."),
    ] = None,
    recency: Annotated[
        float | None, typer.Option("--recency", metavar="DAYS", help="The age at which a fact counts half.")
    ] = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Find facts by meaning and by words."""
    from knowledge_base.settings import ONE_DAY

    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    filters = filters_of(tags, source, written)
    settings = common.settings()
    # A new process loads the model first; that shall not make its only search do without it.
    loading = settings.timeouts.embedding
    budget = settings.timeouts.search + loading
    patient = settings.timeouts.model_copy(update={"rerank": min(settings.timeouts.rerank + loading, ONE_DAY)})
    found = run(
        settings.model_copy(update={"timeouts": patient}),
        lambda base: base.search(
            query,
            top_k,
            mode=mode.value,
            principals=principals,
            filters=filters,
            min_score=min_score,
            rerank=rerank,
            diversity=diversity,
            recency=None if recency is None else recency * ONE_DAY,
            timeout=min(budget, ONE_DAY),
        ),
    )
    out.result(found)
    for rank, hit in enumerate(found["hits"], start=1):
        about = "  ".join([*(f"#{tag}" for tag in hit["tags"]), *([f"from {hit['source']}"] if hit["source"] else [])])
        out.say(f"{rank:>2}. ", (f"{hit['score']:.3f}", "green"), "  ", (hit["fact_id"], "bold"), (f"  {about}", "dim"))
        out.say(f"    {snippet(hit['content'], query, 240)}")
    if not found["hits"]:
        out.say("Nothing found.")
    if found["degraded"]:
        out.note(f"not everything could be asked: {', '.join(found['degraded'])} was unavailable")
    if not found["complete"]:
        out.note("the server cut the search short; there may be better hits")
