"""``kb check``: what is not found by meaning, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from knowledge_base.interfaces.cli.options import AsJson, Common, Namespace, RedisUrl
from knowledge_base.interfaces.cli.output import Output
from knowledge_base.interfaces.cli.session import run

NOT_WHOLE = 1


def check(
    context: typer.Context,
    repair: Annotated[bool, typer.Option("--repair", help="Try again what was given up.")] = False,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """List the facts that have no vectors, and why.

    The exit code is 1 when some were given up and stay so.
    """
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    found = run(common.settings(), lambda base: base.check_integrity(repair=repair))
    out.result(found)
    out.say(f"{found['facts']} facts, {found['pending']} wait for their vectors, {len(found['parked'])} were given up")
    for fact in found["parked"]:
        out.say(f"  {fact['id']}  after {fact['attempts']} attempts, {fact['since']}: {fact['reason']}")
    if found["repaired"]:
        out.say(f"{found['repaired']} wait again; whatever process uses this namespace tries them")
    elif not found["ok"]:
        out.say("found by words only; mend the cause, then: kb check --repair")
        raise typer.Exit(NOT_WHOLE)
