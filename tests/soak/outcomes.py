"""What became of each call."""

from __future__ import annotations

import re
import time
import traceback
from collections import Counter
from collections.abc import Awaitable
from typing import TypeVar

from knowledge_base import KnowledgeBaseError

Result = TypeVar("Result")
OK = "ok"
MOST_TRACEBACKS = 10
MOST_REASONS = 20
REASON_CHARACTERS = 110


class Outcomes:
    """Counts calls by operation and outcome; an error that is none of the package's own is kept with its traceback."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.reasons: Counter[str] = Counter()
        self.longest: dict[str, float] = {}
        self.untyped = 0
        self.tracebacks: list[str] = []

    async def of(self, operation: str, call: Awaitable[Result]) -> Result | None:
        """Awaits a call and returns its result, or None when it failed."""
        started = time.perf_counter()
        outcome = OK
        try:
            return await call
        except KnowledgeBaseError as error:
            outcome = type(error).__name__
            self.reasons[f"{outcome}: {_reason(error)}"] += 1
            return None
        except Exception as error:
            outcome = f"untyped {type(error).__name__}"
            self.untyped += 1
            if len(self.tracebacks) < MOST_TRACEBACKS:
                self.tracebacks.append(f"{operation}:\n{traceback.format_exc()}")
            return None
        finally:
            took = time.perf_counter() - started
            self.longest[operation] = max(self.longest.get(operation, 0.0), took)
            self.counts[operation, outcome] += 1

    def by_outcome(self) -> dict[str, int]:
        """How many calls ended in each way, most frequent first."""
        found: Counter[str] = Counter()
        for (_, outcome), count in self.counts.items():
            found[outcome] += count
        return dict(found.most_common())

    def why(self) -> str:
        """The most frequent reasons of failures, one a line."""
        return "\n".join(f"  {count} x {reason}" for reason, count in self.reasons.most_common(MOST_REASONS))

    def table(self) -> str:
        """One line an operation."""
        lines = []
        for operation in sorted({name for name, _ in self.counts}):
            ends = {outcome: count for (name, outcome), count in self.counts.items() if name == operation}
            parts = ", ".join(f"{outcome} {count}" for outcome, count in sorted(ends.items(), key=lambda one: -one[1]))
            lines.append(f"  {operation}: {parts}; longest {self.longest[operation]:.2f} s")
        return "\n".join(lines)


def _reason(error: KnowledgeBaseError) -> str:
    """An error's text without what differs from one to the next."""
    return re.sub(r"'[^']*'|\d[\d.]*", "…", str(error))[:REASON_CHARACTERS]
