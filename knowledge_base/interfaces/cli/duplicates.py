"""``kb duplicates``: facts that say nearly the same."""

from __future__ import annotations

from typing import Annotated

import typer

from knowledge_base.interfaces.cli.options import AsJson, Common, Filter, Namespace, RedisUrl, Source, Tags, filters_of
from knowledge_base.interfaces.cli.output import Output
from knowledge_base.interfaces.cli.session import run


def duplicates(
    context: typer.Context,
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="0.5…1", help="Least similarity to the first fact of a group.")
    ] = 0.95,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="Groups at most.")] = 1_000,
    tags: Tags = None,
    source: Source = None,
    written: Filter = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """List groups of facts that say nearly the same; nothing is changed."""
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    filters = filters_of(tags, source, written)
    with out.progress("comparing") as progress:
        found = run(
            common.settings(),
            lambda base: base.find_duplicates(threshold, limit=limit, filters=filters, progress=progress),
        )
    out.result(found)
    for group in found["groups"]:
        for place, fact in enumerate(group["facts"]):
            lead = "" if place == 0 else "  "
            out.say(f"{lead}{fact['similarity']:.3f}  ", (fact["id"], "bold"), (f"  {fact['updated_at']}", "dim"))
    out.say(f"{found['duplicates']} near duplicates in {len(found['groups'])} groups of {found['facts']} facts")
    if found["not_compared"]:
        out.note(f"{found['not_compared']} facts wait for their vectors and were not compared")
    if not found["completed"]:
        out.note("the limit was reached; there may be more")
