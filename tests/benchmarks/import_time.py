"""How long ``import knowledge_base`` takes, against its limit and against LlamaIndex's own import."""

from __future__ import annotations

import re
import subprocess
import sys
from statistics import median

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
    print(f"import knowledge_base: {own:.1f} ms, {own / LIMIT_MS:.3f} of the limit of {LIMIT_MS} ms")
    print(f"import llama_index.core: {peer:.1f} ms, {peer / own:.0f} times as long")
