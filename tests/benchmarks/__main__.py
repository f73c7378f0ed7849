"""Runs every benchmark, or those that are named: ``python -m tests.benchmarks [import event_loop search …]``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.benchmarks import (
    breaker,
    bulkheads,
    event_loop,
    import_time,
    ingest,
    local_embedding,
    mixed_load,
    nearest,
    rebuild,
    search,
    transfer,
)

BENCHMARKS: dict[str, Callable[[], None]] = {
    "import": import_time.main,
    "event_loop": event_loop.main,
    "search": search.main,
    "local_embedding": local_embedding.main,
    "breaker": breaker.main,
    "bulkheads": bulkheads.main,
    "mixed_load": mixed_load.main,
    "nearest": nearest.main,
    "rebuild": rebuild.main,
    "ingest": ingest.main,
    "transfer": transfer.main,
}


def main() -> None:
    named = [name for name in sys.argv[1:] if name in BENCHMARKS]
    for name in named or BENCHMARKS:
        print(f"== {name}")
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
