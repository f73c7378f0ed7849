"""``kb import``: a file into the base."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from knowledge_base.interfaces.cli.options import AsJson, Common, Namespace, RedisUrl
from knowledge_base.interfaces.cli.output import Output
from knowledge_base.interfaces.cli.session import run
from knowledge_base.keyspace import EVERY_NAMESPACE

NOT_WHOLE = 1
SHOWN = 20
"""Failures that are shown line by line; --json shows more."""


class Conflict(StrEnum):
    """What becomes of an entry whose id is taken."""

    skip = "skip"
    overwrite = "overwrite"
    newer = "newer"
    error = "error"


def import_(
    context: typer.Context,
    path: Annotated[str, typer.Argument(help='A file of kb export, or lines like {"content": "…"}.')],
    on_conflict: Annotated[Conflict, typer.Option("--on-conflict", help="When an id is taken.")] = Conflict.skip,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")] = False,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", help="Each entry into its own namespace, not all into one.")
    ] = False,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Read facts and documents from a file.

    What was interrupted goes on where it stopped when the same command is given again. The exit code is 1 when some
    entries could not be read or Redis went away.
    """
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    with out.progress("importing") as progress:
        report = run(
            common.settings(),
            lambda base: base.import_data(
                path,
                on_conflict=on_conflict.value,
                dry_run=dry_run,
                namespace=EVERY_NAMESPACE if all_namespaces else None,
                progress=progress,
            ),
        )
    out.result(report)
    done = "would be imported" if dry_run else "imported"
    out.say(
        f"{report['succeeded']} of {report['processed']} {done} ({report['replaced']} replaced another version); "
        f"{report['duplicates']} were there, {report['expired']} had expired, {report['failures']} failed"
    )
    for failure in report["failed"][:SHOWN]:
        out.say(f"  line {failure['line']}: {failure['error']}")
    if not report["completed"]:
        out.note(f"{report['stopped_by']}; give the same command again to go on")
    if report["failures"] or not report["completed"]:
        raise typer.Exit(NOT_WHOLE)
