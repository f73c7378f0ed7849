"""What was measured, beside its limit."""

from __future__ import annotations

WIDTHS = (46, 44, 26)


class Verdicts:
    """Prints one line after the other, and knows which limits were missed."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def heading(self, text: str) -> None:
        """Prints what the next lines are about."""
        print(f"\n{text}", flush=True)

    def tell(self, name: str, measured: str) -> None:
        """Prints a figure that has no limit."""
        self._line(name, measured, "", "")

    def judge(self, name: str, measured: str, limit: str, holds: bool) -> None:
        """Prints a figure and whether its limit holds.

        Args:
            name: What was measured.
            measured: The figure.
            limit: The limit.
            holds: Whether the figure keeps to it.
        """
        self._line(name, measured, limit, "ok" if holds else "MISSED")
        if not holds:
            self.missed.append(f"{name}: {measured}, limit {limit}")

    def at_most(self, name: str, value: float, limit: float, unit: str, note: str = "") -> None:
        """Judges a figure that must not be larger than its limit.

        Args:
            name: What was measured.
            value: The figure.
            limit: The largest one allowed.
            unit: Written behind both.
            note: Written behind the figure, its share of the limit included.
        """
        share = f" ({value / limit:.2f} of the limit)"
        self.judge(name, f"{value:.4g}{unit}{share}{note}", f"<= {limit:g}{unit}", value <= limit)

    def at_least(self, name: str, value: float, limit: float, unit: str = "") -> None:
        """Judges a figure that must not be smaller than its limit.

        Args:
            name: What was measured.
            value: The figure.
            limit: The smallest one allowed.
            unit: Written behind both.
        """
        self.judge(name, f"{value:.4g}{unit}", f">= {limit:g}{unit}", value >= limit)

    def summary(self) -> str:
        """Returns the end of the report."""
        if not self.missed:
            return "\nevery limit holds"
        return "\n".join(["", *(f"LIMIT MISSED: {one}" for one in self.missed)])

    def _line(self, *columns: str) -> None:
        padded = [column.ljust(width) for column, width in zip(columns, WIDTHS, strict=False)]
        print("  " + " ".join([*padded, *columns[len(padded) :]]).rstrip(), flush=True)
