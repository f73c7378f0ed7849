"""``kb jobs``: what runs in the background of the processes that serve this base."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, cast

import typer

from knowledge_base.interfaces.cli.options import AsJson, Common, Namespace, RedisUrl
from knowledge_base.interfaces.cli.output import Output, table
from knowledge_base.interfaces.cli.session import run

if TYPE_CHECKING:
    from knowledge_base.knowledge_base import KnowledgeBase
    from knowledge_base.types import Job, JobState, Progress

FAILED = 1
LOOK_EVERY = 0.5
LIVE = ("queued", "running")


class Action(StrEnum):
    """The choices of the first argument."""

    LIST = "list"
    SHOW = "show"
    CANCEL = "cancel"
    WAIT = "wait"


class State(StrEnum):
    """The choices of ``--state``."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


def jobs(
    context: typer.Context,
    action: Annotated[
        Action, typer.Argument(metavar="[list|show|cancel|wait]", help="What to do; list them when not given.")
    ] = Action.LIST,
    job_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The job to show, cancel or wait for.")] = None,
    state: Annotated[State | None, typer.Option("--state", help="List only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="List so many at most.")] = 100,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """List background jobs of all processes, or show one, cancel it, or wait for its end.

    Waiting fails with exit code 1 when the job was not done.
    """
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    if (action is Action.LIST) != (job_id is None):
        needs = "takes no ID" if action is Action.LIST else "needs the ID of a job"
        raise typer.BadParameter(f"kb jobs {action.value} {needs}")
    if job_id is None:
        # All namespaces, unless one is asked for: a job may work in any.
        wanted: JobState | None = state.value if state is not None else None
        found = run(
            common.settings(), lambda base: base.list_jobs(state=wanted, namespace=common.namespace, limit=limit)
        )
        out.result(found)
        for job in found:
            _say_line(out, job)
        if not found:
            out.say("No jobs.")
        return
    job = _one(common, out, action, job_id)
    out.result(job)
    for line in table(cast("dict[str, object]", {**job, "log": []})):
        out.say(line)
    for line in job["log"]:
        out.say(f"  {line}")
    if action is Action.WAIT and job["state"] != "done":
        raise typer.Exit(FAILED)


def _one(common: Common, out: Output, action: Action, job_id: str) -> Job:
    settings = common.settings()
    if action is Action.SHOW:
        return run(settings, lambda base: base.get_job(job_id))
    if action is Action.CANCEL:
        return run(settings, lambda base: base.cancel_job(job_id))
    with out.progress("waiting") as progress:
        return run(settings, lambda base: _ended(base, job_id, progress))


async def _ended(base: KnowledgeBase, job_id: str, progress: Progress) -> Job:
    while True:
        job = await base.get_job(job_id)
        progress(job["done"], job["total"])
        if job["state"] not in LIVE:
            return job
        await asyncio.sleep(LOOK_EVERY)


def _say_line(out: Output, job: Job) -> None:
    much = f"{job['done']}/{job['total']}" if job["total"] else str(job["done"] or "")
    left = f"  {job['eta_s']:.0f} s left" if job["eta_s"] is not None else ""
    where = job["namespace"] or "all namespaces"
    colour = {"done": "green", "running": "cyan", "queued": "dim"}.get(job["state"], "red")
    out.say(
        (job["id"], "bold"),
        ("  " + f"{job['state']:<9}", colour),
        f"  {job['kind']:<10}  {job['created_at']}  {where}  {much}{left}",
    )
