"""The tables and the plot of ``docs/explanation/performance.md``, from the figures of a run.

``python -m tests.benchmarks.speed.page FIGURES.json``
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.speed.figures import Ratio
from tests.benchmarks.speed.plot import plot, searched

DOCS = Path(__file__).parents[3] / "docs" / "explanation"
BEGIN, END = "<!-- figures of a run: begin -->", "<!-- figures of a run: end -->"
MANY = 100


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; all columns but the first are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ratios(found: Mapping[str, Any]) -> str:
    """Every ratio beside its target."""
    rows = []
    for part in found.values():
        if isinstance(part, Mapping):
            for ratio in (Ratio(**fields) for fields in part["ratios"]):
                verdict = {None: "", True: "yes", False: "**no**"}[ratio.is_met]
                rows.append([ratio.name, number(ratio.value), ratio.target, verdict])
    return table(["ratio", "measured", "target", "met"], rows)


def searches(rows: Sequence[Mapping[str, Any]]) -> str:
    """Throughput and latency of each way to search, by callers and passages."""
    recalls = {(row["way"], row["passages"]): row["recall"] for row in rows if "recall" in row}
    shown = []
    for row in searched(rows):
        recall = recalls.get((row["way"], row["passages"]))
        shown.append(
            [
                *(row["way"], f"{row['passages']:,}".replace(",", " "), str(row["callers"])),
                *(number(row[name]) for name in ("per_second", "p50_ms", "p95_ms", "stall_p999_ms")),
                "" if recall is None else f"{recall:.3f}",
            ]
        )
    head = ["way", "passages", "callers", "a second", "p50 ms", "p95 ms", "loop late p99.9 ms", "recall@10"]
    return table(head, shown)


def facts(rows: Sequence[Mapping[str, Any]]) -> str:
    """Reading and storing facts."""
    shown = [
        [row["way"], str(row.get("callers", 1)), number(row["per_second"]), number(row.get("p95_ms"))]
        for row in rows
        if "per_second" in row and "passages" not in row
    ]
    return table(["way", "callers", "a second", "p95 ms"], shown)


def growth(rows: Sequence[Mapping[str, Any]]) -> str:
    """What one caller waits for as the base grows: the server, and the rest."""
    shown = [
        [row["alone"], f"{row['passages']:,}".replace(",", " "), number(row["server_ms"]), number(row["client_ms"])]
        for row in rows
        if "alone" in row
    ]
    return table(["way", "passages", "server ms", "client ms"], shown)


def memory(rows: Sequence[Mapping[str, Any]]) -> str:
    """Bytes of the server for each passage."""
    shown = [
        [
            {"own": "a fact of this package", "peer": "a node of RedisVectorStore"}[row["memory_of"]],
            f"{row['passages']:,}".replace(",", " "),
            f"{row['bytes_each']:.0f}",
        ]
        for row in rows
        if "memory_of" in row
    ]
    return table(["what", "passages", "bytes each"], shown)


def number(value: float | None) -> str:
    """A figure with three digits that count."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def figures_text(found: Mapping[str, Any]) -> str:
    """What stands between the marks of the page."""
    rows = found["speed"]["rows"]
    parts = {
        "Targets": ratios(found),
        "Searches": f"![Searches a second and p95, {MANY} callers](performance.svg)\n\n{searches(rows)}",
        "Facts": facts(rows),
        "One caller, as the base grows": growth(rows),
        "Memory": memory(rows),
    }
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in parts.items())


def main() -> None:
    found = json.loads(Path(sys.argv[1]).read_text())
    page = DOCS / "performance.md"
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{figures_text(found)}\n{END}{after}")
    (DOCS / "performance.svg").write_text(plot(found["speed"]["rows"], MANY))
    print(f"wrote {page} and {DOCS / 'performance.svg'}")


if __name__ == "__main__":
    main()
