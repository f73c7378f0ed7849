"""``kb prune`` and ``kb delete``: facts that are too old, or that match a filter, go."""

from __future__ import annotations

import re
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
    filters_of,
)
from knowledge_base.interfaces.cli.output import Output
from knowledge_base.interfaces.cli.session import run

if TYPE_CHECKING:
    from knowledge_base.types import BulkResult

FAILED = 1
UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)")

DryRun = Annotated[bool, typer.Option("--dry-run", help="Count only; delete nothing.")]


class By(StrEnum):
    """The choices of ``--by``."""

    UPDATED_AT = "updated_at"
    CREATED_AT = "created_at"


def seconds_of(written: str) -> float:
    """Reads a duration as people write it.

    Args:
        written: A number of seconds, or with a unit: ``90d``, ``12h``.

    Raises:
        typer.BadParameter: It is none.
    """
    match = _DURATION.fullmatch(written.strip())
    if match is None:
        raise typer.BadParameter(f"{written!r} is no duration; write 90d, 12h, 30m, 2w or seconds")
    return float(match.group(1)) * UNITS[match.group(2) or "s"]


def prune(
    context: typer.Context,
    older_than: Annotated[str, typer.Option("--older-than", metavar="TIME", help="As 90d, 12h, 30m, 2w or seconds.")],
    by: Annotated[By, typer.Option("--by", help="Which time counts.")] = By.UPDATED_AT,
    tags: Tags = None,
    source: Source = None,
    written: Filter = None,
    dry_run: DryRun = False,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Delete the facts that are older than some time, whoever may see them."""
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    seconds = seconds_of(older_than)
    filters = filters_of(tags, source, written)
    with out.progress("pruning") as progress:
        result = run(
            common.settings(),
            lambda base: base.prune_facts(seconds, by.value, filters=filters, dry_run=dry_run, progress=progress),
        )
    _tell(out, result, dry_run=dry_run)


def delete(
    context: typer.Context,
    fact_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The fact; or give a filter.")] = None,
    tags: Tags = None,
    source: Source = None,
    written: Filter = None,
    dry_run: DryRun = False,
    principals: Principals = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Delete one fact, or all facts that match a filter."""
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    filters = filters_of(tags, source, written)
    if (fact_id is None) == (filters is None):
        raise typer.BadParameter("give the ID of a fact or a filter (--tag, --source, --filter), not both")
    settings = common.settings()
    if filters is not None:
        with out.progress("deleting") as progress:
            result = run(
                settings,
                lambda base: base.delete_facts(filters, dry_run=dry_run, principals=principals, progress=progress),
            )
        _tell(out, result, dry_run=dry_run)
        return
    assert fact_id is not None
    if dry_run:
        is_there = bool(run(settings, lambda base: base.get_fact(fact_id, principals=principals)))
    else:
        is_there = run(settings, lambda base: base.delete_fact(fact_id, principals=principals))
    if not is_there:
        raise FactNotFoundError(fact_id, settings.namespace)
    _tell(out, {"processed": 1, "succeeded": 1, "duplicates": 0, "failed": [], "completed": True}, dry_run=dry_run)


def _tell(out: Output, result: BulkResult, *, dry_run: bool) -> None:
    out.result(result)
    done = "would be deleted" if dry_run else "deleted"
    out.say(f"{result['succeeded']} facts {done}")
    for failure in result["failed"]:
        out.say(f"  {failure.get('id', '')}: {failure['error']}")
    if not result["completed"]:
        out.note("cut short; run it again to go on")
        raise typer.Exit(FAILED)
