"""``kb ask``: an answer that an LLM writes from the passages found."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

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
from knowledge_base.interfaces.cli.output import Output, snippet
from knowledge_base.interfaces.cli.session import run

if TYPE_CHECKING:
    from knowledge_base.knowledge_base import KnowledgeBase
    from knowledge_base.types import Answer, AnswerPart


def ask(
    context: typer.Context,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to answer.")],
    token_budget: Annotated[
        int, typer.Option("--token-budget", metavar="N", help="Tokens of all passages that the LLM is given.")
    ] = 2_000,
    tags: Tags = None,
    source: Source = None,
    written: Filter = None,
    principals: Principals = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Let an LLM answer a question from the facts.

    KB_LLM__MODEL, KB_LLM__BASE_URL and KB_LLM__API_KEY say which LLM.
    """
    from knowledge_base.settings import ONE_DAY

    common = Common.of(context, redis_url, namespace, as_json)
    out = Output(common.as_json)
    filters = filters_of(tags, source, written)
    settings = common.settings()
    # A new process loads the model first; that shall not cut the answer short.
    budget = min(settings.timeouts.ask + settings.timeouts.embedding, ONE_DAY)

    async def answer(base: KnowledgeBase) -> Answer:
        if out.is_live:
            return await _show(
                out,
                base.stream_answer(
                    question, token_budget=token_budget, principals=principals, filters=filters, timeout=budget
                ),
            )
        return await base.ask(
            question, token_budget=token_budget, principals=principals, filters=filters, timeout=budget
        )

    found = run(settings, answer)
    out.result(found)
    if not out.is_live:
        out.say(found["answer"])
    for citation in found["citations"]:
        origin = citation["source"] or citation["fact_id"]
        out.say((f"[{citation['number']}] ", "green"), (origin, "bold"), f"  {snippet(citation['content'], question)}")
    if found["degraded"]:
        out.note(f"not everything could be asked: {', '.join(found['degraded'])} was unavailable")


async def _show(out: Output, parts: AsyncGenerator[AnswerPart, None]) -> Answer:
    whole: Answer | None = None
    try:
        async with aclosing(parts):
            async for part in parts:
                out.write(part.get("delta", ""))
                whole = part.get("answer")
    finally:
        # What follows, be it an error, has a line of its own.
        out.write("\n")
    assert whole is not None
    return whole
