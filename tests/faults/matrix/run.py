"""One fault, every call, so many callers: what each of them got, and when."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import Any

from knowledge_base import KnowledgeBase
from knowledge_base.errors import CircuitOpenError, KnowledgeBaseError, UnavailableError
from tests.faults.matrix.calls import BULK, CALLS, TIMEOUT, Call, Pages, is_whole
from tests.faults.matrix.faults import Fault
from tests.faults.matrix.stage import SPARE, Stage
from tests.support.polling import eventually

TICK = 0.001
HUNG = 10.0
"""Seconds after its deadline at which a call counts as hung."""
MENDED_WITHIN = 30.0
CLOSES_WITHIN = 5.0
MOST_ATTEMPTS = 50


@dataclass
class Cell:
    """What the callers of one call got.

    Attributes:
        outcomes: How many got which: "ok", "partial" (the answer says what it lacks), or an error.
        overrun: Seconds by which the latest was late; below zero when all were in time.
        lag: Seconds by which the event loop itself was late at worst.
        defects: What must not be.
    """

    fault: str
    call: str
    callers: int
    outcomes: Counter[str] = field(default_factory=Counter)
    overrun: float = -TIMEOUT
    lag: float = 0.0
    defects: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The cell, as defects name it."""
        return f"{self.fault}, {self.call} x {self.callers}"


@dataclass
class Report:
    """What one fault did.

    Attributes:
        opened: Whether the breaker opened; None where it is not for it to open.
        recovered: Seconds from the end of the fault until the breakers were closed and calls succeeded.
        closed: Seconds that ``close`` took in the midst of the fault.
    """

    fault: str
    cells: list[Cell] = field(default_factory=list)
    opened: bool | None = None
    recovered: float = 0.0
    closed: float = 0.0
    defects: list[str] = field(default_factory=list)

    def all_defects(self) -> list[str]:
        """Returns the defects of the fault and its cells."""
        return [*self.defects, *(defect for cell in self.cells for defect in cell.defects)]


@asynccontextmanager
async def watched_loop(cell: Cell) -> AsyncIterator[None]:
    """Notes in the cell how late the loop was."""

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK)
            cell.lag = max(cell.lag, time.monotonic() - before - TICK)

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def labels(callers: int) -> list[str]:
    """Returns the names of so many callers."""
    return [f"{callers}-{number}" for number in range(callers)]


async def call_once(stage: Stage, fault: Fault, cell: Cell, call: Call, who: str) -> None:
    begun = time.monotonic()
    answer: Any = None
    try:
        answer = await call.make(stage.steady, who)
        outcome = "ok" if is_whole(answer) else "partial"
    except KnowledgeBaseError as error:
        outcome = type(error).__name__
        if not error.retryable and outcome != fault.error:
            # Nothing is wrong with the call or the data, and an error that says so sends the caller astray.
            cell.defects.append(f"{cell.name}: {error!r} from {error.__cause__!r}")
        elif type(error) is UnavailableError and fault.repeats(call):
            cell.defects.append(f"{cell.name}: was not repeated: {error!r}")
        elif call.is_spared and isinstance(error, UnavailableError):
            cell.defects.append(f"{cell.name}: its caller is not spared: {error!r}")
    except (Exception, asyncio.CancelledError) as error:
        outcome = f"untyped {type(error).__name__}"
        cell.defects.append(f"{cell.name}: {error!r}")
    took = answer.slowest if isinstance(answer, Pages) else time.monotonic() - begun
    cell.outcomes[outcome] += 1
    cell.overrun = max(cell.overrun, took - TIMEOUT)
    if answer is None:
        return
    wrong = call.judge(answer, who)
    if wrong is None and outcome == "ok" and fault.refuses(call):
        wrong = f"succeeded, which it cannot: {answer!r:.200}"
    if wrong is not None:
        cell.defects.append(f"{cell.name}: {wrong}")
    elif outcome == "ok" and not fault.elsewhere:
        keep_promise(stage, call, who)


def keep_promise(stage: Stage, call: Call, who: str) -> None:
    """Notes what the server must hold from now on."""
    promises = stage.promises
    if call.name == "store_fact":
        promises.stored.add(f"s-{who}")
    elif call.name == "store_facts":
        promises.stored.update(f"b-{who}-{number}" for number in range(BULK))
    elif call.name == "update_fact":
        promises.changed.add(f"u-{who}")
    elif call.name == "delete_fact":
        promises.deleted.add(f"d-{who}")
    elif call.name == "delete_facts":
        promises.deleted.add(f"t-{who}")


async def run_cell(stage: Stage, fault: Fault, call: Call, callers: int) -> Cell:
    """Lets so many callers make one call at the same time."""
    cell = Cell(fault.name, call.name, callers)
    async with watched_loop(cell):
        tasks = [asyncio.create_task(call_once(stage, fault, cell, call, who)) for who in labels(callers)]
        _, hung = await asyncio.wait(tasks, timeout=TIMEOUT + HUNG)
        for task in hung:
            task.cancel()
            cell.defects.append(f"{cell.name}: hangs")
        await asyncio.gather(*tasks)
    return cell


async def tells(kb: KnowledgeBase, fault: Fault) -> bool:
    """Tells whether a call that is alone gets the error that says what is wrong."""
    refused = next(filter(fault.refuses, CALLS), None)
    if refused is None:
        return True
    # On a slow machine it may run out of time instead, now and then.
    for _ in range(MOST_ATTEMPTS):
        try:
            await refused.make(kb, "alone")
        except KnowledgeBaseError as error:
            if type(error).__name__ == fault.error:
                return True
    return False


async def opens(kb: KnowledgeBase) -> bool:
    """Tells whether the breaker opens, asked in vain again and again."""
    for _ in range(MOST_ATTEMPTS):
        try:
            await kb.get_fact("f0", timeout=TIMEOUT)
        except CircuitOpenError:
            return True
        except KnowledgeBaseError:
            continue
    return False


async def closes_amid(stage: Stage) -> float:
    """Closes a knowledge base while each call is under way, and returns the seconds that it took."""
    calls = [asyncio.ensure_future(call.make(stage.leaver, "leaver")) for call in CALLS]
    await asyncio.sleep(0)
    begun = time.monotonic()
    await stage.leaver.close()
    took = time.monotonic() - begun
    await asyncio.gather(*calls, return_exceptions=True)
    return took


async def succeeds(kb: KnowledgeBase, call: Call, spare: Iterator[str]) -> bool:
    who = next(spare)
    try:
        answer = await call.make(kb, who)
    except KnowledgeBaseError:
        await asyncio.sleep(0.05)
        return False
    return call.judge(answer, who) is None and is_whole(answer)


async def all_calls_succeed(kb: KnowledgeBase, spare: Sequence[str]) -> list[str]:
    """Makes every call until it succeeds; returns those that do not."""
    failing: list[str] = []
    for call in CALLS:
        # Each attempt has a label of its own, since the one before may have done its work unheard.
        try:
            await eventually(partial(succeeds, kb, call, cycle(spare)), MENDED_WITHIN)
        except AssertionError:
            failing.append(call.name)
    return failing


async def breakers_closed(kb: KnowledgeBase) -> bool:
    try:
        stats = await kb.get_detailed_stats()
    except KnowledgeBaseError:
        return False
    return {breaker["state"] for breaker in stats["breakers"]} == {"closed"}


async def recover(stage: Stage, report: Report) -> None:
    begun = time.monotonic()
    half = len(SPARE) // 2
    for kb, spare in ((stage.guarded, SPARE[:half]), (stage.steady, SPARE[half:])):
        failing = await all_calls_succeed(kb, spare)
        report.defects += [f"{report.fault}: {name} does not succeed after the end" for name in failing]
    if not await breakers_closed(stage.guarded):
        report.defects.append(f"{report.fault}: a breaker stays open after the end")
    report.recovered = time.monotonic() - begun


async def suffer(fault: Fault, levels: Sequence[int], *, together: bool = False) -> Report:
    """Plays one fault.

    Args:
        fault: The fault.
        levels: How many callers make each call at the same time.
        together: Whether all the calls are made at the same time, too.
    """
    report = Report(fault.name)
    stage = Stage([who for level in levels for who in labels(level)] + ["leaver"], proxied=fault.proxied)
    try:
        await stage.furnish()
        for kb in (stage.steady, stage.guarded, stage.leaver):
            await kb.start()
            await kb.search("penguins")
            # Loads the tokenizer, and what asks the LLM.
            await kb.ask("penguins")
        await asyncio.to_thread(fault.begin, stage)
        try:
            await _endure(stage, fault, levels, report, together=together)
        finally:
            await asyncio.to_thread(fault.end, stage)
        await recover(stage, report)
        report.defects += [f"{fault.name}: {broken}" for broken in await stage.broken_promises()]
    finally:
        left = await stage.clear()
        report.defects += [f"{fault.name}: left behind {what}" for what in left]
    return report


async def _endure(stage: Stage, fault: Fault, levels: Sequence[int], report: Report, *, together: bool) -> None:
    for level in levels:
        if together:
            await asyncio.to_thread(fault.renew, stage)
            report.cells += await asyncio.gather(*(run_cell(stage, fault, call, level) for call in CALLS))
            continue
        for call in CALLS:
            await asyncio.to_thread(fault.renew, stage)
            report.cells.append(await run_cell(stage, fault, call, level))
    if not await tells(stage.steady, fault):
        report.defects.append(f"{fault.name}: no call tells of it by {fault.error}")
    if fault.opens:
        report.opened = await opens(stage.guarded)
        if not report.opened:
            report.defects.append(f"{fault.name}: the breaker does not open")
    report.closed = await closes_amid(stage)
    if report.closed > CLOSES_WITHIN:
        report.defects.append(f"{fault.name}: close took {report.closed:.1f} s")
