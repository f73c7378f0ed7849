"""``kb namespaces``: which there are; one copied, renamed or dropped."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from knowledge_base.interfaces.cli.options import AsJson, Common, Namespace, RedisUrl
from knowledge_base.interfaces.cli.output import Output
from knowledge_base.interfaces.cli.session import run


class Action(StrEnum):
    """The choices of the first argument."""

    LIST = "list"
    COPY = "copy"
    RENAME = "rename"
    DROP = "drop"


NAMES_OF = {Action.LIST: 0, Action.COPY: 2, Action.RENAME: 2, Action.DROP: 1}


def namespaces(
    context: typer.Context,
    action: Annotated[
        Action, typer.Argument(metavar="[list|copy|rename|drop]", help="What to do; list them when not given.")
    ] = Action.LIST,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME] [TARGET]", help="The namespace, and the new one.")
    ] = None,
    confirm: Annotated[
        str | None, typer.Option("--confirm", metavar="NAME", help="To drop one: its name once more.")
    ] = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """List namespaces with their counts, copy or rename one, or drop it with everything in it."""
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    given = names or []
    if len(given) != NAMES_OF[action]:
        raise typer.BadParameter(f"kb namespaces {action.value} takes {NAMES_OF[action]} names, not {len(given)}")
    settings = common.settings()
    if action is Action.LIST:
        found = run(settings, lambda base: base.list_namespaces())
        out.result(found)
        width = max((len(one["namespace"]) for one in found), default=0)
        for one in found:
            counts = f"{one['facts']} facts  {one['documents']} documents  {one['passages']} passages"
            state = ("  off", "red") if one["state"] == "off" else ""
            out.say((f"{one['namespace']:<{width}}", "bold"), f"  {counts}", state)
        if not found:
            out.say("No namespaces.")
        return
    if action is Action.DROP and confirm is None:
        raise typer.BadParameter(f"everything in {given[0]!r} would be gone; say --confirm {given[0]}")
    with out.progress(action.value) as progress:
        if action is Action.COPY:
            report = run(settings, lambda base: base.copy_namespace(given[0], given[1], progress=progress))
        elif action is Action.RENAME:
            report = run(settings, lambda base: base.rename_namespace(given[0], given[1], progress=progress))
        else:
            report = run(settings, lambda base: base.drop_namespace(given[0], confirm=confirm or "", progress=progress))
    out.result(report)
    counts = f"{report['facts']} facts and {report['documents']} documents"
    done = {
        Action.COPY: f"Copied to {report['target']}: {counts}.",
        Action.RENAME: f"Now {report['target']}: {counts}.",
        Action.DROP: f"Dropped: {counts}, {report['keys']} keys.",
    }
    out.say(done[action])
