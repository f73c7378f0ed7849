"""Every public call, as a caller of the fault matrix makes it, and what is wrong with an answer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from knowledge_base.retrieval.context_builder import UNAVAILABLE

TIMEOUT = 0.6
"""Seconds that each call, or page of ``iter_facts``, is given."""

KEPT, CHANGED, DOOMED, ADDED = "kept", "changed", "doomed", "added"
"""Namespaces: what is only read, what is updated, what is deleted, and what is stored."""

WORDS = "penguins swim"
SOUGHT = "f0"
KEPT_IDS = {f"f{number}" for number in range(20)}
BIRDS = {f"f{number}" for number in range(0, 20, 4)}
BULK = 3

Kind = Literal["read", "add", "remove", "health"]
Verdict = str | None
"""What is wrong with an answer; None when it is right and whole, or says itself what it lacks."""


@dataclass(frozen=True)
class Call:
    """One public call.

    Attributes:
        name: As the table shows it.
        kind: What it does to the data.
        make: Makes the call with a knowledge base, on behalf of a caller whose label no other has.
        judge: Says what is wrong with its answer to that caller.
        by_index: Whether it needs the search index.
        is_spared: Whether no ``UnavailableError`` may reach its caller.
    """

    name: str
    kind: Kind
    make: Callable[[Any, str], Awaitable[Any]]
    judge: Callable[[Any, str], Verdict]
    by_index: bool = False
    is_spared: bool = False


@dataclass(frozen=True)
class Pages:
    """What iteration gave, and how long its slowest page took; each page has a deadline of its own."""

    ids: list[str]
    slowest: float


async def iterate(kb: Any, _: str) -> Pages:
    ids: list[str] = []
    slowest = 0.0
    page_begun = time.monotonic()
    async for fact in kb.iter_facts(namespace=KEPT, timeout=TIMEOUT):
        slowest = max(slowest, time.monotonic() - page_begun)
        page_begun = time.monotonic()
        ids.append(fact["id"])
    return Pages(ids, max(slowest, time.monotonic() - page_begun))


async def retrieve(kb: Any, _: str) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []
    chunks = await kb.retrieve_chunks_from_text(WORDS, namespace=KEPT, on_metrics=seen.append, timeout=TIMEOUT)
    [metrics] = seen
    return {"chunks": chunks, "degraded": metrics["degraded"]}


def differs(what: str, found: Any, right: Any) -> Verdict:
    return None if found == right else f"{what}: {found!r} instead of {right!r}"


def judge_facts(right: set[str]) -> Callable[[Any, str], Verdict]:
    def judge(facts: Sequence[dict[str, Any]], _: str) -> Verdict:
        return differs("facts", sorted(fact["id"] for fact in facts), sorted(right))

    return judge


def judge_pages(pages: Pages, _: str) -> Verdict:
    return differs("iterated facts", sorted(pages.ids), sorted(KEPT_IDS))


def judge_stored(result: dict[str, Any], caller: str) -> Verdict:
    return differs("stored", (result["status"], result["fact_id"], result["version"]), ("success", f"s-{caller}", 1))


def judge_bulk(right: int) -> Callable[[Any, str], Verdict]:
    def judge(result: dict[str, Any], _: str) -> Verdict:
        counted = result["succeeded"] + result["duplicates"] + len(result["failed"])
        if counted != result["processed"] or result["duplicates"]:
            return f"bulk counts do not add up: {result}"
        if result["completed"] and result["processed"] != right:
            return f"bulk says that it is complete: {result}"
        return None

    return judge


def judge_updated(fact: dict[str, Any], caller: str) -> Verdict:
    return differs("updated", (fact["id"], fact["content"]), (f"u-{caller}", f"changed for {caller}"))


def judge_deleted(deleted: bool, _: str) -> Verdict:
    return differs("deleted", deleted, True)


def judge_history(versions: Sequence[dict[str, Any]], _: str) -> Verdict:
    return differs("versions", [version["version"] for version in versions], [2, 1])


def judge_hits(results: dict[str, Any], _: str) -> Verdict:
    if results["degraded"] or not results["complete"]:
        return None
    return differs("best hit", [hit["fact_id"] for hit in results["hits"]][:1], [SOUGHT])


def judge_chunks(retrieved: dict[str, Any], _: str) -> Verdict:
    if retrieved["degraded"]:
        return None
    return differs("best chunk", [chunk["doc_id"] for chunk in retrieved["chunks"]][:1], [SOUGHT])


def judge_context(context: dict[str, Any], _: str) -> Verdict:
    if context["degraded"]:
        return None
    return differs("best citation", [citation["fact_id"] for citation in context["citations"]][:1], [SOUGHT])


def judge_spared_context(context: dict[str, Any], who: str) -> Verdict:
    if not is_missing(context):
        return judge_context(context, who)
    return differs("what is there of nothing", (context["text"], context["citations"]), ("", []))


def judge_answer(answer: dict[str, Any], _: str) -> Verdict:
    if answer["degraded"]:
        return None
    return differs("cited first", [citation["fact_id"] for citation in answer["citations"]][:1], [SOUGHT])


def judge_stats(stats: dict[str, Any], _: str) -> Verdict:
    return differs("counted facts", stats["facts"], len(KEPT_IDS))


def judge_details(stats: dict[str, Any], _: str) -> Verdict:
    return differs("counted", (stats["facts"], stats["tags"]), (len(KEPT_IDS), {"birds": len(BIRDS)}))


def judge_health(health: dict[str, Any], _: str) -> Verdict:
    if not health["live"]:
        return "says that the process is not alive"
    ill = [name for name, part in health["parts"].items() if not part["ok"]]
    return differs("ready", health["ready"], not ill)


def judge_integrity(report: dict[str, Any], _: str) -> Verdict:
    return differs("examined facts", report["facts"], len(KEPT_IDS))


def is_missing(answer: dict[str, Any]) -> bool:
    """Tells whether an answer is an empty context that says what is away."""
    return str(answer.get("reason")).startswith(UNAVAILABLE)


def is_whole(answer: Any) -> bool:
    """Tells whether an answer lacks nothing by its own account."""
    if not isinstance(answer, dict):
        return True
    lacks = answer.get("degraded") or answer.get("failed") or is_missing(answer)
    return not lacks and all(answer.get(sign, True) for sign in ("complete", "completed", "ready"))


def search_in(mode: str) -> Call:
    def make(kb: Any, _: str) -> Awaitable[Any]:
        found: Awaitable[Any] = kb.search(WORDS, 5, mode=mode, namespace=KEPT, timeout=TIMEOUT)
        return found

    return Call(f"search {mode}", "read", make, judge_hits, by_index=True)


def context_call(name: str, judge: Callable[[Any, str], Verdict], on_error: str) -> Call:
    def make(kb: Any, _: str) -> Awaitable[Any]:
        built: Awaitable[Any] = kb.build_context(WORDS, on_error=on_error, namespace=KEPT, timeout=TIMEOUT)
        return built

    return Call(name, "read", make, judge, by_index=True, is_spared=on_error == "empty")


def items_of(caller: str) -> list[dict[str, Any]]:
    return [{"content": f"added in bulk {caller} {n}", "fact_id": f"b-{caller}-{n}"} for n in range(BULK)]


CALLS: tuple[Call, ...] = (
    Call(
        "store_fact",
        "add",
        lambda kb, who: kb.store_fact(f"added by {who}", fact_id=f"s-{who}", namespace=ADDED, timeout=TIMEOUT),
        judge_stored,
    ),
    Call(
        "store_facts",
        "add",
        lambda kb, who: kb.store_facts(items_of(who), namespace=ADDED, timeout=TIMEOUT),
        judge_bulk(BULK),
    ),
    Call(
        "get_fact by id",
        "read",
        lambda kb, _: kb.get_fact(SOUGHT, namespace=KEPT, timeout=TIMEOUT),
        judge_facts({SOUGHT}),
    ),
    Call(
        "get_fact by query",
        "read",
        lambda kb, _: kb.get_fact(query=WORDS, namespace=KEPT, timeout=TIMEOUT),
        judge_facts({SOUGHT}),
        by_index=True,
    ),
    Call(
        "get_fact by filter",
        "read",
        lambda kb, _: kb.get_fact(filters={"tags": "birds"}, namespace=KEPT, timeout=TIMEOUT),
        judge_facts(BIRDS),
        by_index=True,
    ),
    Call("get_fact list", "read", lambda kb, _: kb.get_fact(namespace=KEPT, timeout=TIMEOUT), judge_facts(KEPT_IDS)),
    Call("iter_facts", "read", iterate, judge_pages),
    Call(
        "update_fact",
        "add",
        lambda kb, who: kb.update_fact(f"u-{who}", content=f"changed for {who}", namespace=CHANGED, timeout=TIMEOUT),
        judge_updated,
    ),
    Call(
        "delete_fact",
        "remove",
        lambda kb, who: kb.delete_fact(f"d-{who}", namespace=DOOMED, timeout=TIMEOUT),
        judge_deleted,
    ),
    Call(
        "delete_facts",
        "remove",
        lambda kb, who: kb.delete_facts({"tags": f"t-{who}"}, namespace=DOOMED, timeout=TIMEOUT),
        judge_bulk(1),
        by_index=True,
    ),
    Call(
        "get_fact_history",
        "read",
        lambda kb, _: kb.get_fact_history(SOUGHT, namespace=KEPT, timeout=TIMEOUT),
        judge_history,
    ),
    *map(search_in, ("hybrid", "text", "vector")),
    Call("retrieve_chunks_from_text", "read", retrieve, judge_chunks, by_index=True),
    context_call("build_context", judge_context, "raise"),
    context_call("build_context or empty", judge_spared_context, "empty"),
    Call("ask", "read", lambda kb, _: kb.ask(WORDS, namespace=KEPT, timeout=TIMEOUT), judge_answer, by_index=True),
    Call("get_stats", "read", lambda kb, _: kb.get_stats(namespace=KEPT, timeout=TIMEOUT), judge_stats),
    Call(
        "get_detailed_stats",
        "read",
        lambda kb, _: kb.get_detailed_stats(namespace=KEPT, timeout=TIMEOUT),
        judge_details,
    ),
    Call("health", "health", lambda kb, _: kb.health(timeout=TIMEOUT), judge_health),
    Call(
        "check_integrity",
        "read",
        lambda kb, _: kb.check_integrity(namespace=KEPT, timeout=TIMEOUT),
        judge_integrity,
    ),
)
