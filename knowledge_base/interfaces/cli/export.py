"""``kb export``: everything of a namespace into a file."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from knowledge_base.interfaces.cli.options import AsJson, Common, Filter, Namespace, RedisUrl, Source, Tags, filters_of
from knowledge_base.interfaces.cli.output import Output
from knowledge_base.interfaces.cli.session import run
from knowledge_base.keyspace import EVERY_NAMESPACE


class Format(StrEnum):
    """How a file is written."""

    jsonl = "jsonl"
    csv = "csv"
    markdown = "markdown"


def export(
    context: typer.Context,
    path: Annotated[str, typer.Argument(help="The file; .gz or .zst at its end compresses it.")],
    format_: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.jsonl,
    vectors: Annotated[bool, typer.Option("--vectors", help="With vectors: an import needs no model.")] = False,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", help="Every namespace, not one.")] = False,
    tags: Tags = None,
    source: Source = None,
    written_filter: Filter = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Write facts and documents into a file that kb import reads.

    What was interrupted goes on where it stopped when the same command is given again.
    """
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    filters = filters_of(tags, source, written_filter)
    with out.progress("exporting") as progress:
        report = run(
            common.settings(),
            lambda base: base.export_all_data(
                path,
                format=format_.value,
                namespace=EVERY_NAMESPACE if all_namespaces else None,
                include_vectors=vectors,
                filters=filters,
                progress=progress,
            ),
        )
    out.result(report)
    out.say(f"{report['facts']} facts, {report['documents']} documents, {report['bytes']} bytes: {report['path']}")
