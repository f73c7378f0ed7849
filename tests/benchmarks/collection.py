"""The real passages and questions that the benchmarks store and ask: those of ``kb demo``."""

from __future__ import annotations

import json
from importlib import resources


def texts(name: str) -> list[str]:
    """Returns the texts of ``corpus`` or ``queries``."""
    folder = resources.files("knowledge_base.interfaces.cli") / "data" / "xquad_en"
    lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def percentile(values: list[float], share: float) -> float:
    """Returns a percentile by nearest rank."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))]
