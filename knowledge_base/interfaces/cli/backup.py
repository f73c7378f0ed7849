"""``kb backup``: everything into one file, or a test whether such a file can be restored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from knowledge_base.interfaces.cli.options import AsJson, Common, RedisUrl
from knowledge_base.interfaces.cli.output import Output
from knowledge_base.interfaces.cli.session import run

NOT_WHOLE = 1


def backup(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The file; .gz or .zst at its end compresses it.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Restore the file elsewhere and compare, instead of writing it.")
    ] = False,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Write all namespaces with vectors, history and documents into a file; kb import brings it back.

    With --verify the exit code is 1 when what was restored is not what is in the file.
    """
    common = Common.of(context, redis_url, None, as_json)
    out = Output(common.as_json)
    settings = common.settings()
    if not verify:
        with out.progress("writing") as progress:
            written = run(settings, lambda base: base.backup(path, progress=progress))
        out.result(written)
        out.say(f"{written['facts']} facts and {written['documents']} documents in {written['path']}")
        out.say(f"{written['bytes']} bytes, checksum {written['checksum']}")
        return
    with out.progress("restoring") as progress:
        found = run(settings, lambda base: base.verify_backup(path, progress=progress))
    out.result(found)
    restored = f"{found['facts']} facts and {found['documents']} documents were restored"
    out.say(f"{restored}, each as it was" if found["ok"] else restored)
    if found["expired"]:
        out.say(f"{found['expired']} facts have expired since")
    for problem in found["problems"]:
        out.say(f"  {problem}")
    if not found["ok"]:
        raise typer.Exit(NOT_WHOLE)
