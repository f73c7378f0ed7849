"""How long ``import knowledge_base`` takes, against its limit and against LlamaIndex's own import."""

from __future__ import annotations

import re
import subprocess
import sys
from statistics import median

from tests.benchmarks.speed.figures import Figures, json_path

LIMIT_MS = 150
RUNS = 5


def import_ms(statement: str, module: str) -> float:
    """Returns the cumulative import time of a module in a fresh interpreter, in milliseconds."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement], capture_output=True, text=True, check=True
    )
    found = re.findall(rf"\|\s*(\d+) \| {re.escape(module)}$", run.stderr, re.MULTILINE)
    return int(found[-1]) / 1000


def main() -> None:
    own = median(import_ms("import knowledge_base", "knowledge_base") for _ in range(RUNS))
    peer = median(import_ms("import llama_index.core", "llama_index.core") for _ in range(RUNS))
    figures = Figures(json_path(), "import")
    figures.row(imported="knowledge_base", ms=own)
    figures.row(imported="llama_index.core", ms=peer)
    figures.ratio("import knowledge_base, ms", own, most=LIMIT_MS)
    figures.ratio("import knowledge_base / import llama_index.core", own / peer)
    figures.write()
