"""``kb check``: what does not agree, what is not found by meaning, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from knowledge_base.interfaces.cli.options import AsJson, Common, Namespace, RedisUrl
from knowledge_base.interfaces.cli.output import Output
from knowledge_base.interfaces.cli.session import run
from knowledge_base.types import IntegrityReport

NOT_WHOLE = 1
NAMES = 3
"""Examples of a kind that are named in its line; the report has more of them."""


def check(
    context: typer.Context,
    repair: Annotated[bool, typer.Option("--repair", help="Mend it, and try again what was given up.")] = False,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Look whether everything that is stored agrees, and list the facts that were given up.

    It looks at every key of the namespace, beside whoever reads and writes. The exit code is 1 when something was found
    that is not mended.
    """
    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    with out.progress("checking") as progress:
        found = run(common.settings(), lambda base: base.check_integrity(repair=repair, progress=progress))
    out.result(found)
    _say(out, found, repair=repair)
    if not found["ok"]:
        raise typer.Exit(NOT_WHOLE)


def _say(out: Output, found: IntegrityReport, *, repair: bool) -> None:
    # Not before the command runs: a list of commands needs nothing of what they do.
    from knowledge_base.admin.integrity.findings import ADVICE

    out.say(
        f"{found['facts']} facts, {found['documents']} documents, {found['pending']} wait for their vectors, "
        f"{len(found['parked'])} were given up"
    )
    for fact in found["parked"]:
        out.say(f"  {fact['id']}  after {fact['attempts']} attempts, {fact['since']}: {fact['reason']}")
    for kind, count in sorted(found["findings"].items()):
        advice = ADVICE[kind]
        names = [
            example.get("id") or f"{example['key']} {example.get('detail', '')}".strip()
            for example in found["examples"]
            if example["kind"] == kind
        ]
        shown = ", ".join(names[:NAMES]) + (" …" if count > NAMES else "")
        does = "repair" if repair else "--repair"
        out.say(f"{count} {kind}: {advice.meaning} ({shown}); {does} {advice.repair}")
    total = sum(found["findings"].values())
    if not total:
        out.say("everything agrees")
    elif found["repaired"]:
        out.say(
            f"{found['repaired']} of {total} mended; missing vectors are made by any process that uses the namespace"
        )
    elif not repair:
        out.say(f"{total} findings; mend the cause, then: kb check --repair")
    else:
        out.say(f"none of {total} could be mended")
