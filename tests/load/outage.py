"""The endpoint hangs: what callers get meanwhile, and what becomes of what they stored."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence

from knowledge_base import KnowledgeBase, Settings, StoreResult, UnavailableError
from tests.benchmarks.collection import percentile
from tests.load.questions import Question
from tests.load.verdicts import Verdicts
from tests.support.openai_process import EndpointProcess

CALLERS = 100
STORES = 40
OPEN_MS = 50.0
BACK_WITHIN = 15.0
GIVE_UP = 120.0
SPREAD = 2.0
"""Seconds over which callers come who do not come all at once."""


async def outage(
    settings: Settings, endpoint: EndpointProcess, questions: Sequence[Question], verdicts: Verdicts
) -> None:
    """Lets the endpoint hang, and come back.

    Args:
        settings: With the usual timeouts and breaker.
        endpoint: The endpoint; well before and after.
        questions: One for each caller, never asked before; nobody learns its vector here.
        verdicts: What is told.
    """
    verdicts.heading(f"the endpoint hangs, {CALLERS} callers")
    async with KnowledgeBase(settings) as kb:
        await kb.search("warm")
        await asyncio.to_thread(endpoint.become, "hang")
        stores = asyncio.create_task(_stores(kb, "early"))
        await _searches(kb, questions, verdicts)
        await _open_breaker(kb, questions, verdicts)
        stored = [*await stores, *await _stores(kb, "late")]
        acknowledged = [one for one in stored if not isinstance(one, UnavailableError)]
        right = sum(one["status"] == "success" and not one["indexed"] for one in acknowledged)
        refused = Counter(type(one).__name__ for one in stored if isinstance(one, UnavailableError))
        verdicts.judge(
            "stores acknowledged, not indexed",
            f"{right} of {STORES} {dict(refused) or ''}",
            "all",
            right == STORES,
        )
        await asyncio.to_thread(endpoint.become, "well")
        took = await _until_indexed(kb, [one["fact_id"] for one in acknowledged])
        verdicts.at_most("indexed after the endpoint was back", took, BACK_WITHIN, " s")


async def _searches(kb: KnowledgeBase, questions: Sequence[Question], verdicts: Verdicts) -> None:
    outcomes = await asyncio.gather(*(_search(kb, question) for question in questions))
    right = sum(holds for holds, _ in outcomes)
    verdicts.judge("searches answered by words, and said so", f"{right} of {CALLERS}", "all", right == CALLERS)
    longest = max(took for _, took in outcomes)
    verdicts.at_most("the longest of them", longest, kb.settings.timeouts.search, " s")


async def _open_breaker(kb: KnowledgeBase, questions: Sequence[Question], verdicts: Verdicts) -> None:
    state = [one["state"] for one in (await kb.get_detailed_stats())["breakers"] if one["name"] == "embedding"]
    verdicts.judge("the breaker", state[0], "open", state == ["open"])
    every = SPREAD / CALLERS
    waits = [(number * every, question) for number, question in enumerate(questions)]
    paced = await asyncio.gather(*(_search(kb, question, after) for after, question in waits))
    verdicts.at_most(
        f"open breaker, {CALLERS} callers in {SPREAD:g} s, p95", _p95(paced), OPEN_MS, " ms", f"; {_right(paced)}"
    )
    at_once = await asyncio.gather(*(_search(kb, question) for question in questions))
    verdicts.tell(f"open breaker, {CALLERS} callers at once, p95", f"{_p95(at_once):.1f} ms; {_right(at_once)}")


def _p95(outcomes: Sequence[tuple[bool, float]]) -> float:
    return percentile([took * 1000 for _, took in outcomes], 0.95)


def _right(outcomes: Sequence[tuple[bool, float]]) -> str:
    return f"{sum(holds for holds, _ in outcomes)} of {len(outcomes)} by words"


async def _search(kb: KnowledgeBase, question: Question, after: float = 0.0) -> tuple[bool, float]:
    await asyncio.sleep(after)
    began = time.perf_counter()
    holds = False
    with contextlib.suppress(UnavailableError):
        results = await kb.search(question.text)
        holds = bool(results["hits"]) and results["degraded"] == ["vector"]
    return holds, time.perf_counter() - began


async def _stores(kb: KnowledgeBase, name: str) -> list[StoreResult | UnavailableError]:
    async def store(number: int) -> StoreResult | UnavailableError:
        try:
            return await kb.store_fact(f"a fact that was stored {name} in the outage, number {number}")
        except UnavailableError as error:
            return error

    return await asyncio.gather(*map(store, range(STORES // 2)))


async def _until_indexed(kb: KnowledgeBase, ids: Sequence[str]) -> float:
    began = time.perf_counter()
    while time.perf_counter() - began < GIVE_UP:
        facts = [fact for one in ids for fact in await kb.get_fact(one)]
        if all(fact["indexed"] for fact in facts):
            break
        await asyncio.sleep(0.1)
    return time.perf_counter() - began
