"""Runs every benchmark, or those that are named: ``python -m tests.benchmarks [import event_loop search breaker]``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.benchmarks import breaker, event_loop, import_time, search

BENCHMARKS: dict[str, Callable[[], None]] = {
    "import": import_time.main,
    "event_loop": event_loop.main,
    "search": search.main,
    "breaker": breaker.main,
}


def main() -> None:
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"== {name}")
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
