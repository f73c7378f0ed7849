"""``kb stats`` and ``kb health``: what there is, and whether it can serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from knowledge_base.interfaces.cli.options import AsJson, Common, Namespace, RedisUrl
from knowledge_base.interfaces.cli.output import Output, table
from knowledge_base.interfaces.cli.session import run

if TYPE_CHECKING:
    from knowledge_base.knowledge_base import KnowledgeBase
    from knowledge_base.settings import Settings
    from knowledge_base.types import DetailedStats, Stats

NOT_READY = 3


def stats(
    context: typer.Context,
    detailed: Annotated[
        bool, typer.Option("--detailed", help="Tags, sources, index, server, pools and breakers too.")
    ] = False,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Print the counts of a namespace."""
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)

    async def counts(base: KnowledgeBase) -> Stats | DetailedStats:
        return await (base.get_detailed_stats() if detailed else base.get_stats())

    found = run(common.settings(), counts)
    out.result(found)
    for line in table(cast("dict[str, object]", found)):
        out.say(line)


def health(
    context: typer.Context,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Tell whether all that is needed answers.

    The exit code is 3 when it does not.
    """
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    found = run(_patient(common.settings()), lambda base: base.health())
    out.result(found)
    out.say(("ready", "bold green") if found["ready"] else ("not ready", "bold red"))
    width = max((len(name) for name in found["parts"]), default=0)
    for name, part in found["parts"].items():
        mark = ("ok    ", "green") if part["ok"] else ("failed", "red")
        out.say(f"  {name:<{width}}  ", mark, f"  {part['took_ms']:8.1f} ms  {part['detail']}")
    if not found["ready"]:
        raise typer.Exit(NOT_READY)


def _patient(settings: Settings) -> Settings:
    # A new process loads the model before it can tell; a service that asks for its health has done so long ago.
    from knowledge_base.settings import ONE_DAY

    limit = min(settings.timeouts.health + settings.timeouts.embedding, ONE_DAY)
    return settings.model_copy(update={"timeouts": settings.timeouts.model_copy(update={"health": limit})})
