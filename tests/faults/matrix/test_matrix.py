"""Each fault, with ten callers of every public call at the same time; ``make faults`` has the figures."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.matrix.calls import ADDED, CALLS, Pages, is_whole
from tests.faults.matrix.faults import Fault, faults, idle, nothing
from tests.faults.matrix.run import suffer
from tests.faults.matrix.stage import Stage

CALLERS = 10
SLACK = 2.0
"""Seconds that a slow machine may add to a deadline."""

NOTHING_DONE = {"processed": 0, "succeeded": 0, "duplicates": 0, "failed": []}
NO_HITS = {"hits": [], "mode": "hybrid", "complete": True}
NO_CONTEXT = {"text": "", "citations": [], "degraded": []}
LIES = [
    ("store_fact", {"status": "duplicate", "fact_id": "s-ann", "version": 1, "indexed": True}),
    ("store_facts", {**NOTHING_DONE, "completed": True}),
    ("store_facts", {**NOTHING_DONE, "processed": 1, "completed": False}),
    ("get_fact by id", []),
    ("get_fact by query", []),
    ("get_fact by filter", []),
    ("get_fact list", []),
    ("iter_facts", Pages(["f0"], 0.0)),
    ("update_fact", {"id": "u-ann", "content": "old for ann"}),
    ("delete_fact", False),
    ("delete_facts", {**NOTHING_DONE, "completed": True}),
    ("get_fact_history", []),
    ("search hybrid", {**NO_HITS, "degraded": []}),
    ("search text", {**NO_HITS, "degraded": []}),
    ("search vector", {**NO_HITS, "degraded": []}),
    ("retrieve_chunks_from_text", {"chunks": [], "degraded": []}),
    ("build_context", {**NO_CONTEXT, "reason": "nothing found"}),
    ("build_context", {**NO_CONTEXT, "reason": "unavailable: Redis"}),
    ("build_context or empty", {**NO_CONTEXT, "reason": "nothing found"}),
    ("build_context or empty", {**NO_CONTEXT, "text": "[1] swim", "reason": "unavailable: Redis"}),
    ("ask", {"answer": "I do not know.", "citations": [], "passages": [], "degraded": []}),
    ("get_stats", {"facts": 0}),
    ("get_detailed_stats", {"facts": 20, "tags": {}}),
    ("health", {"live": True, "ready": True, "parts": {"redis": {"ok": False}}}),
    ("check_integrity", {"facts": 0}),
]
HONEST = [
    ("store_facts", {**NOTHING_DONE, "completed": False}),
    ("delete_facts", {**NOTHING_DONE, "processed": 1, "failed": [{"id": "t-ann", "error": "no"}], "completed": True}),
    ("search hybrid", {**NO_HITS, "degraded": ["vector"]}),
    ("search text", {**NO_HITS, "degraded": [], "complete": False}),
    ("retrieve_chunks_from_text", {"chunks": [], "degraded": ["vector"]}),
    ("build_context", {**NO_CONTEXT, "degraded": ["vector"], "reason": "nothing found"}),
    ("build_context or empty", {**NO_CONTEXT, "reason": "unavailable: Redis"}),
    ("health", {"live": True, "ready": False, "parts": {"redis": {"ok": False}}}),
]


def forget_facts(stage: Stage) -> None:
    for key in stage.control.keys(ADDED):
        stage.control.run("DEL", key)


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.name.replace(" ", "-"))
async def test_every_call_ends_in_time_and_tells_the_truth(fault: Fault) -> None:
    report = await suffer(fault, [CALLERS], together=True)

    assert not report.all_defects(), "\n".join(sorted(set(report.all_defects())))
    assert sum(sum(cell.outcomes.values()) for cell in report.cells) == CALLERS * len(CALLS)
    assert max(cell.overrun for cell in report.cells) < SLACK


async def test_single_lost_reply_is_noticed_by_no_call_that_may_repeat() -> None:
    fault = next(fault for fault in faults() if fault.name == "one reply lost")

    report = await suffer(fault, [1])

    assert not report.all_defects(), "\n".join(sorted(set(report.all_defects())))


async def test_matrix_notices_a_fault_that_is_none() -> None:
    report = await suffer(Fault("none", "nothing happens", idle, idle, opens=True), [1])

    cells = {cell.call for cell in report.cells if any("cannot" in defect for defect in cell.defects)}
    assert cells == {call.name for call in CALLS}
    assert "none: the breaker does not open" in report.defects


async def test_matrix_notices_what_was_acknowledged_and_is_lost() -> None:
    fault = Fault("amnesia", "the server forgets", idle, forget_facts, refuses=nothing)

    report = await suffer(fault, [1])

    assert any("acknowledged, and lost: ['b-1-0-0'" in defect for defect in report.defects)


@pytest.mark.parametrize(("name", "lie"), LIES)
def test_matrix_notices_an_answer_that_pretends_to_be_whole(name: str, lie: Any) -> None:
    call = next(call for call in CALLS if call.name == name)

    assert call.judge(lie, "ann") is not None


@pytest.mark.parametrize(("name", "answer"), HONEST)
def test_matrix_takes_an_answer_that_says_what_it_lacks(name: str, answer: Any) -> None:
    call = next(call for call in CALLS if call.name == name)

    assert call.judge(answer, "ann") is None
    assert not is_whole(answer)
