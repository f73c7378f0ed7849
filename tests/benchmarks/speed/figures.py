"""What a run has measured, each beside its target, printed and written as JSON."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of two figures of one run, and what it shall be."""

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.least is None and self.most is None:
            return None
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    @property
    def target(self) -> str:
        """The target in words; empty without one."""
        bounds = [(self.least, "at least"), (self.most, "at most")]
        return ", ".join(f"{word} {bound:g}" for bound, word in bounds if bound is not None)

    def __str__(self) -> str:
        verdict = {None: "", True: f" ({self.target}: met)", False: f" ({self.target}: MISSED)"}[self.is_met]
        return f"{self.name}: {self.value:.3g}{verdict}"


class Figures:
    """Rows and ratios, printed as they come.

    Args:
        path: The JSON file; None for none. What other benchmarks have written there stays.
        part: The benchmark.
    """

    def __init__(self, path: Path | None, part: str) -> None:
        self._path = path
        self._part = part
        self.rows: list[dict[str, Any]] = []
        self.ratios: list[Ratio] = []

    def row(self, **values: Any) -> None:
        """Adds one measurement.

        Args:
            **values: What was measured, and its figures.
        """
        self.rows.append(values)
        print("  ".join(f"{name} {_short(value)}" for name, value in values.items()), flush=True)

    def ratio(self, name: str, value: float, *, least: float | None = None, most: float | None = None) -> None:
        """Adds a ratio.

        Args:
            name: What it is of what.
            value: The ratio.
            least: What it shall be at least.
            most: What it shall be at most.
        """
        self.ratios.append(Ratio(name, value, least, most))
        print(self.ratios[-1], flush=True)

    def write(self) -> None:
        """Writes the file."""
        if self._path is None:
            return
        written: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}
        written["python"] = platform.python_version()
        written[self._part] = {"rows": self.rows, "ratios": [asdict(ratio) for ratio in self.ratios]}
        self._path.write_text(json.dumps(written, indent=1) + "\n")

    def find(self, name: str, **wanted: Any) -> float:
        """Returns a figure of the row with some values.

        Args:
            name: The figure.
            **wanted: The values.

        Raises:
            LookupError: There is no such row.
        """
        for row in self.rows:
            if _matches(row, wanted):
                return float(row[name])
        raise LookupError(f"no row with {wanted}")


def json_path() -> Path | None:
    """The file that the command line names for the figures, if it names one."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--json", type=Path)
    found: Path | None = parser.parse_known_args(sys.argv[1:])[0].json
    return found


def _matches(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(row.get(name) == value for name, value in wanted.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
