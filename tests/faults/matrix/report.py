"""The table of all faults: printed, and kept in the docs."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.faults.matrix.calls import CALLS, TIMEOUT
from tests.faults.matrix.faults import faults
from tests.faults.matrix.run import Cell, Report
from tests.faults.matrix.stage import OPENS, REDIS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "fault-matrix.md"
LATE_MS = 100.0
"""Milliseconds after its deadline at which a call must be back."""

INTRODUCTION = f"""\
# Fault matrix

This page is measured: `make faults` prints the table, and
`python -m tests.faults.matrix --write` writes this page.

Each fault is played against a real server. While it lasts, each of the {len(CALLS)} calls below is made by
1, by 10 and by 100 callers at the same time, with `timeout={TIMEOUT:g}` and {REDIS:g} s for one exchange with
Redis. Every call must return, or raise an error of this package that says what to do, within its
deadline and {LATE_MS:.0f} ms; an answer must be right and whole, or say what it lacks. After the end of the
fault the breaker must close by itself (it probes after {OPENS.reset_after:g} s here) and each call succeed; what was
acknowledged must be there; and after `close()` no task, thread, connection or socket may be left.

- **outcomes**: how many calls got what. "ok" is right and whole. "partial" is an answer that says
  what it lacks: a search with `degraded`, a bulk result that isn't `completed`, a `health` that
  isn't `ready`.
- **overrun**: milliseconds by which the latest call came after its deadline; 0 when all were in
  time. The **lag** beside it is the worst stall of the event loop meanwhile, that of the test's own
  callers included.
- **opened**: whether a breaker that opens after {OPENS.failures} failures did; empty where the server answers, if
  only with a refusal.
- **close**: seconds that `close()` took in the midst of the fault, with every call under way.
- **recovery**: seconds from the end of the fault until the breakers were closed and each of the
  calls had succeeded through two knowledge bases, one after the other.
"""


def summary(outcomes: Counter[str]) -> str:
    """Returns what callers got, the best first."""
    order = {"ok": 0, "partial": 1}
    ranked = sorted(outcomes.items(), key=lambda item: (order.get(item[0], 2), -item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in ranked)


def rows(report: Report) -> list[list[str]]:
    """Returns the lines of one fault, one for each number of callers."""
    lines = []
    for callers in sorted({cell.callers for cell in report.cells}):
        cells = [cell for cell in report.cells if cell.callers == callers]
        total: Counter[str] = sum((cell.outcomes for cell in cells), Counter())
        latest = max(cells, key=lambda cell: cell.overrun)
        lines.append(
            [
                report.fault,
                str(callers),
                summary(total),
                overrun(latest),
                f"{max(cell.lag for cell in cells) * 1000:.0f}",
                "yes" if report.opened else "" if report.opened is None else "NO",
                f"{report.closed:.2f}",
                f"{report.recovered:.2f}",
            ]
        )
    return lines


def overrun(cell: Cell) -> str:
    """Returns by how much a cell was late, and which call it was."""
    if cell.overrun <= 0:
        return "0"
    return f"{cell.overrun * 1000:.0f} ({cell.call})"


TITLES = ["fault", "callers", "outcomes", "overrun ms", "lag ms", "opened", "close s", "recovery s"]


def markdown(lines: Iterable[Sequence[str]], titles: Sequence[str]) -> str:
    """Returns a table."""
    table = [titles, ["---"] * len(titles), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in table) + "\n"


def page(reports: Sequence[Report]) -> str:
    """Returns the page of the docs."""
    measured = f"Measured with Python {platform.python_version()}; {verdict(reports)}\n"
    table = markdown([line for report in reports for line in rows(report)], TITLES)
    calls = ", ".join(f"`{call.name}`" for call in CALLS)
    names = {report.fault for report in reports}
    about = [[fault.name, fault.about] for fault in faults() if fault.name in names]
    return "\n".join(
        [
            INTRODUCTION,
            measured,
            table,
            "## The faults\n",
            markdown(about, ["fault", "what happens"]),
            "## The calls\n",
            f"{calls}.\n",
        ]
    )


def late(reports: Iterable[Report]) -> list[str]:
    """Returns the cells that came too late."""
    return [
        f"{cell.fault}, {cell.call} x {cell.callers}: {cell.overrun * 1000:.0f} ms late (lag {cell.lag * 1000:.0f} ms)"
        for report in reports
        for cell in report.cells
        if cell.overrun * 1000 > LATE_MS
    ]


def verdict(reports: Sequence[Report]) -> str:
    """Returns everything in one sentence."""
    cells = [cell for report in reports for cell in report.cells]
    calls = sum(sum(cell.outcomes.values()) for cell in cells)
    worst = max(cell.overrun for cell in cells) * 1000
    defects = sum(len(report.all_defects()) for report in reports)
    return (
        f"{calls} calls in {len(cells)} cells: worst overrun {max(0.0, worst):.0f} ms, "
        f"{len(late(reports))} cells later than {LATE_MS:.0f} ms, {defects} defects."
    )
