"""``kb ingest``: a folder or a file into documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from knowledge_base.interfaces.cli.options import AsJson, Common, Namespace, RedisUrl, json_object
from knowledge_base.interfaces.cli.output import Output
from knowledge_base.interfaces.cli.session import run

if TYPE_CHECKING:
    from knowledge_base.knowledge_base import KnowledgeBase
    from knowledge_base.types import IngestResult


def ingest(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="The folder, or a single file.")],
    pattern: Annotated[str, typer.Option("--pattern", metavar="GLOB", help="Which files of the folder.")] = "**/*",
    delete_missing: Annotated[
        bool, typer.Option("--delete-missing", help="Delete the documents whose files are gone.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Read files that look unchanged, too, and compare what they say.")
    ] = False,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag of all documents; repeatable.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="What the tree is known by; the folder's name when not given."),
    ] = None,
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="JSON", help="More about all of them, as a JSON object.")
    ] = None,
    principals: Annotated[
        list[str] | None,
        typer.Option("--principal", metavar="NAME", help="Who may see them; repeatable, everybody without."),
    ] = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> int:
    """Add the files of a folder as documents, or what has changed of them since the last time."""
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    described = json_object(metadata, "metadata")

    async def work(base: KnowledgeBase) -> IngestResult:
        with out.progress("Ingesting files") as progress:
            return await base.ingest_path(
                path,
                pattern=pattern,
                progress=progress,
                tags=tags or (),
                principals=principals,
                metadata=described,
                name=name,
                delete_missing=delete_missing,
                force=force,
            )

    result = run(common.settings(), work)
    out.result(result)
    for failure in result["failed"]:
        out.say((failure["path"], "bold"), f"  {failure['error']}")
    out.say(
        f"{result['processed']} files: {result['succeeded']} stored, {result['duplicates']} unchanged, "
        f"{len(result['failed'])} failed; {result['deleted']} documents deleted; "
        f"{result['embedded']} of {result['passages']} passages embedded"
    )
    if not result["completed"]:
        out.note("the run was cut short; run it again to go on")
    return 1 if result["failed"] or not result["completed"] else 0
