"""Runs the benchmarks that are named, or those that take a quarter of an hour together.

``python -m tests.benchmarks [speed local_search … | all] [--json FILE]``
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.benchmarks import (
    breaker,
    bulkheads,
    event_loop,
    filtered_recall,
    fusion,
    import_time,
    ingest,
    local_embedding,
    mixed_load,
    nearest,
    rebuild,
    search,
    transfer,
)
from tests.benchmarks.speed import local_search
from tests.benchmarks.speed import run as speed

BENCHMARKS: dict[str, Callable[[], None]] = {
    "import": import_time.main,
    "event_loop": event_loop.main,
    "speed": speed.main,
    "local_search": local_search.main,
    "local_embedding": local_embedding.main,
    "breaker": breaker.main,
    "bulkheads": bulkheads.main,
    "mixed_load": mixed_load.main,
    "search": search.main,
    "nearest": nearest.main,
    "filtered_recall": filtered_recall.main,
    "fusion": fusion.main,
    "rebuild": rebuild.main,
    "ingest": ingest.main,
    "transfer": transfer.main,
}


QUICK = ("import", "event_loop", "speed", "local_search", "local_embedding", "breaker", "bulkheads")
"""Those that are run when none is named."""


def main() -> None:
    named = [name for name in sys.argv[1:] if name in BENCHMARKS]
    for name in BENCHMARKS if "all" in sys.argv[1:] else named or QUICK:
        print(f"== {name}", flush=True)
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
