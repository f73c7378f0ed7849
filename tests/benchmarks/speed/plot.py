"""A plot as SVG, written by hand: bars of throughput and of p95 for each way to search, by passages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

LEFT, BAR, GAP, WIDTH = 230, 16, 26, 360
COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2")
PANELS = (("per_second", "searches a second"), ("p95_ms", "p95 in ms"))


def searched(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the rows about searches, of those that were measured twice the first.

    Args:
        rows: The rows of a run.
    """
    found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in rows:
        if "per_second" in row and "passages" in row and not row.get("steady"):
            found.setdefault((row["way"], row["passages"], row["callers"]), row)
    return list(found.values())


def plot(rows: Sequence[Mapping[str, Any]], callers: int) -> str:
    """Returns the plot.

    Args:
        rows: The rows of a run.
        callers: The number of callers to show.
    """
    shown = [row for row in searched(rows) if row["callers"] == callers]
    sizes = sorted({row["passages"] for row in shown})
    ways = list(dict.fromkeys(row["way"] for row in shown))
    group = BAR * len(sizes) + GAP
    height = 60 + group * len(ways)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + len(PANELS) * (WIDTH + 80)}" height="{height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for place, size in enumerate(sizes):
        x = LEFT + place * 130
        label = f"{size:,} passages".replace(",", " ")
        parts.append(f'<rect x="{x}" y="8" width="12" height="12" fill="{COLOURS[place % len(COLOURS)]}"/>')
        parts.append(f'<text x="{x + 18}" y="18">{label}</text>')
    for at, way in enumerate(ways):
        y = 60 + at * group + BAR * len(sizes) / 2
        parts.append(f'<text x="{LEFT - 10}" y="{y:.0f}" text-anchor="end">{escape(way)}</text>')
    for panel, (figure, title) in enumerate(PANELS):
        x = LEFT + panel * (WIDTH + 80)
        most = max((row[figure] for row in shown), default=1.0)
        parts.append(f'<text x="{x}" y="44" font-weight="bold">{title}, {callers} callers</text>')
        for row in shown:
            y = 54 + ways.index(row["way"]) * group + sizes.index(row["passages"]) * BAR
            long = max(1.0, row[figure] / most * WIDTH)
            colour = COLOURS[sizes.index(row["passages"]) % len(COLOURS)]
            parts.append(f'<rect x="{x}" y="{y}" width="{long:.1f}" height="{BAR - 3}" fill="{colour}"/>')
            parts.append(f'<text x="{x + long + 4:.1f}" y="{y + 11}">{row[figure]:.0f}</text>')
    return "\n".join([*parts, "</svg>\n"])
