"""The page on export and import says what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "transfer.md"


def test_samples_run_one_after_the_other(data_dir: Path, tmp_path: Path):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    opening = "import asyncio\nfrom knowledge_base import KnowledgeBase\nasync def main():\n"
    opening += "    async with KnowledgeBase() as kb:\n"
    program = opening + "".join(textwrap.indent(block, " " * 8) for block in blocks) + "asyncio.run(main())\n"

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "KB_DATA_DIR": str(data_dir), "PYTHONPATH": str(PAGE.parents[2])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "1 facts, 0 documents",
        "0 would be imported, 1 are there",
        "0 imported, 0 failed",
        "1 imported, 1 embedded",
    ]
