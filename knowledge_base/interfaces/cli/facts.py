"""``kb add`` and ``kb get``: facts in, facts out."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from knowledge_base.errors import FactNotFoundError
from knowledge_base.interfaces.cli.options import (
    AsJson,
    Common,
    Filter,
    Namespace,
    Principals,
    RedisUrl,
    Source,
    Tags,
    content_of,
    filters_of,
    json_object,
)
from knowledge_base.interfaces.cli.output import Output
from knowledge_base.interfaces.cli.session import run

if TYPE_CHECKING:
    from knowledge_base.types import Fact


class WhenDuplicate(StrEnum):
    """The choices of ``--on-duplicate``."""

    RETURN = "return"
    UPDATE = "update"
    ERROR = "error"


def add(
    context: typer.Context,
    content: Annotated[str, typer.Argument(metavar="CONTENT", help="The fact; - reads it from standard input.")],
    tags: Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag; repeatable.")] = None,
    source: Annotated[str | None, typer.Option("--source", metavar="NAME", help="Where the fact is from.")] = None,
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="JSON", help="More about the fact, as a JSON object.")
    ] = None,
    fact_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The fact's id; one is made when not given.")
    ] = None,
    principals: Annotated[
        list[str] | None,
        typer.Option("--principal", metavar="NAME", help="Who may see the fact; repeatable, everybody without."),
    ] = None,
    expires_in: Annotated[
        float | None, typer.Option("--expires-in", metavar="SECONDS", help="Forget the fact after this time.")
    ] = None,
    on_duplicate: Annotated[
        WhenDuplicate, typer.Option("--on-duplicate", help="What to do when the fact is there already.")
    ] = WhenDuplicate.RETURN,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Store a fact."""
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    settings = common.settings()
    described = json_object(metadata, "metadata")
    text = content_of(content, settings.limits.content_chars)
    stored = run(
        settings,
        lambda base: base.store_fact(
            text,
            described,
            fact_id=fact_id,
            tags=tags or (),
            source=source,
            principals=principals,
            expires_in=expires_in,
            on_duplicate=on_duplicate.value,
        ),
    )
    out.result(stored)
    done = "Stored" if stored["status"] == "success" else "There already:"
    out.say(f"{done} ", (stored["fact_id"], "bold"), f" (version {stored['version']})")
    if not stored["indexed"]:
        out.note("the fact waits for its vector; until then it is found by words only")


def get(
    context: typer.Context,
    fact_id: Annotated[str | None, typer.Argument(metavar="ID", help="The fact; without it all are listed.")] = None,
    query: Annotated[
        str | None, typer.Option("--query", metavar="WORDS", help="Only facts with these words, best first.")
    ] = None,
    tags: Tags = None,
    source: Source = None,
    written: Filter = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="Facts at most.")] = 100,
    offset: Annotated[int, typer.Option("--offset", metavar="N", help="Facts to skip.")] = 0,
    principals: Principals = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Print one fact, or list facts, newest first."""
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    filters = filters_of(tags, source, written)
    settings = common.settings()
    found = run(
        settings,
        lambda base: base.get_fact(fact_id, query, principals=principals, filters=filters, limit=limit, offset=offset),
    )
    if fact_id is not None and not found:
        raise FactNotFoundError(fact_id, settings.namespace)
    out.result(found)
    for fact in found:
        _show(out, fact)
    if not found:
        out.say("No facts.")


def _show(out: Output, fact: Fact) -> None:
    about = [f"version {fact['version']}", fact["updated_at"], *(f"#{tag}" for tag in fact["tags"])]
    if fact["source"]:
        about.append(f"from {fact['source']}")
    out.say((fact["id"], "bold"), (f"  {'  '.join(about)}", "dim"))
    out.say(fact["content"])
    out.say()
