"""The pages about jobs and housekeeping: each snippet runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.control import Control

ROOT = Path(__file__).parents[2]
WITHIN = 120


def python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["docs/how-to/jobs.md", "docs/how-to/housekeeping.md"])
def test_snippets_run_one_after_the_other(
    page: str, tmp_path: Path, control: Control, redis_url: str, namespace: str
) -> None:
    # What other tests have damaged cannot be backed up.
    control.run("FLUSHALL")
    blocks = [
        block.replace('"default"', f'"{namespace}"').replace('"trial', f'"{namespace}-trial')
        for block in python_blocks(page)
    ]
    program = "\n".join(
        [
            "import asyncio",
            "from knowledge_base import KnowledgeBase",
            "async def main():",
            "    async with KnowledgeBase() as kb:",
            *(textwrap.indent(block, " " * 8) for block in blocks),
            "asyncio.run(main())",
        ]
    )

    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "KB_REDIS_URL": redis_url, "KB_NAMESPACE": namespace},
        timeout=WITHIN,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert run.stdout
