"""The documentation's examples run as they are, without configuration."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
Run = Callable[..., str]
NO_MODEL = {
    "KB_EMBEDDING__PROVIDER": "openai",
    "KB_EMBEDDING__BASE_URL": "http://127.0.0.1:9/v1",
    "KB_EMBEDDING__DIMENSION": "384",
}


@pytest.fixture
def run_python(data_dir: Path) -> Run:
    """Runs a program with the embedded server's data in a folder of its own, and returns what it prints."""

    def run(*arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "KB_DATA_DIR": str(data_dir), **environment},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def python_blocks(page: str) -> list[str]:
    return PYTHON_BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def test_readme_example_finds_what_it_stores(run_python: Run):
    printed = run_python("-c", python_blocks("README.md")[0])

    assert printed == "The espresso machine is descaled every Friday.\n"


def test_quickstart_page_example_finds_what_it_stores(run_python: Run):
    printed = run_python("-c", python_blocks("docs/quickstart.md")[0])

    assert printed == "The reading room closes at nine. ['library']\n"


@pytest.mark.parametrize(
    "page",
    [
        "docs/how-to/facts.md",
        "docs/how-to/documents.md",
        "docs/how-to/search.md",
        "docs/how-to/context.md",
        "docs/how-to/operate.md",
    ],
)
def test_how_to_snippets_run_one_after_the_other(page: str, run_python: Run):
    program = "\n".join(
        [
            "import asyncio",
            "from knowledge_base import KnowledgeBase",
            "async def main():",
            "    async with KnowledgeBase() as kb:",
            *(textwrap.indent(block, " " * 8) for block in python_blocks(page)),
            "asyncio.run(main())",
        ]
    )

    assert run_python("-c", program)


def test_quickstart_prints_the_same_each_time(run_python: Run):
    first = run_python(str(EXAMPLES / "quickstart.py"))
    second = run_python(str(EXAMPLES / "quickstart.py"))

    assert first == second
    assert first.splitlines() == [
        "stored: success, found by meaning: True",
        "stored again: duplicate",
        "found: Parcels wait at the front desk. (floor 0)",
        "versions: [2, 1]",
        "removed: 3",
    ]


def test_chat_context_cites_the_best_passage_first(run_python: Run):
    printed = run_python(str(EXAMPLES / "chat_context.py"))

    assert "[1] Refunds are paid within fourteen days" in printed
    assert "[1] Handbook, Refunds" in printed
    assert "Note:" not in printed


def test_chat_context_says_that_the_model_is_away(run_python: Run):
    printed = run_python(str(EXAMPLES / "chat_context.py"), **NO_MODEL)

    assert "[1] Refunds are paid within fourteen days" in printed
    assert "Note: found without: vector" in printed


def test_chat_context_goes_on_without_redis(run_python: Run):
    printed = run_python(str(EXAMPLES / "chat_context.py"), KB_REDIS_URL="redis://127.0.0.1:1/0")

    assert "How many days does it take until a refund is paid?" in printed
    assert "Note: answering without the handbook" in printed
