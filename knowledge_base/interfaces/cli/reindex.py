"""``kb reindex``: a new search index beside the live one, for the configured model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from knowledge_base.interfaces.cli.options import AsJson, Common, Namespace, RedisUrl
from knowledge_base.interfaces.cli.output import Output
from knowledge_base.interfaces.cli.session import run

if TYPE_CHECKING:
    from knowledge_base.knowledge_base import KnowledgeBase
    from knowledge_base.types import RebuildReport


def reindex(
    context: typer.Context,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Build the search index anew while everybody goes on searching.

    Vectors are kept where the embedding model stays; for another model all passages are embedded anew.
    """
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)

    async def rebuild(base: KnowledgeBase) -> RebuildReport:
        with out.progress("Rebuilding the search index") as progress:
            return await base.rebuild_search_index(progress=progress)

    report = run(common.settings(), rebuild)
    out.result(report)
    if report["generation"] is None:
        out.say("Nothing is stored here yet.")
        return
    out.say(
        f"{report['facts']} facts and documents, {report['embedded']} embedded anew, for {report['model']} "
        f"({report['dimension']} dimensions), in {report['took_s']:.1f} s"
    )
    out.say(f"Index {report['generation']} is live; index {report['replaced']} was dropped.")
