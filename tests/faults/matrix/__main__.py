"""Prints the fault matrix: ``python -m tests.faults.matrix [--write] [--callers 1,10,100] [fault …]``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.faults.matrix.faults import Fault, faults
from tests.faults.matrix.report import PAGE, TITLES, late, page, rows, verdict
from tests.faults.matrix.run import Report, suffer

SHOWN = 10


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.matrix")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} as well")
    parser.add_argument("--callers", default="1,10,100", help="how many callers at the same time")
    parser.add_argument("faults", nargs="*", help="only these faults")
    return parser.parse_args()


def show(report: Report) -> None:
    for row in rows(report):
        named = [f"{title}: {value}" for title, value in zip(TITLES[2:], row[2:], strict=True) if value]
        print(f"{row[0]:24} x {row[1]:>3}  " + " · ".join(named))
    for defect, count in Counter(report.all_defects()).most_common(SHOWN):
        print(f"  DEFECT ({count} times) {defect}")
    sys.stdout.flush()


async def play(chosen: Sequence[Fault], levels: Sequence[int]) -> list[Report]:
    reports = []
    for fault in chosen:
        reports.append(await suffer(fault, levels))
        show(reports[-1])
    return reports


def main() -> int:
    wanted = arguments()
    for name in [name for name in os.environ if name.startswith("KB_")]:
        del os.environ[name]
    # What goes wrong is the point here; the table tells it.
    logging.disable(logging.CRITICAL)
    chosen = [fault for fault in faults() if not wanted.faults or fault.name in wanted.faults]
    if not chosen:
        print("no such fault; there are: " + ", ".join(fault.name for fault in faults()))
        return 2
    begun = time.monotonic()
    reports = asyncio.run(play(chosen, [int(number) for number in wanted.callers.split(",")]))
    for line in late(reports):
        print(f"LATE {line}")
    print(f"{verdict(reports)} Took {time.monotonic() - begun:.0f} s; load average {os.getloadavg()[0]:.1f}.")
    if wanted.write:
        PAGE.write_text(page(reports), encoding="utf-8")
    return 1 if late(reports) or any(report.all_defects() for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
