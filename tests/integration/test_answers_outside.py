"""Answers as users get them: the snippets of the page about them, and ``kb ask``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from tests.integration.test_examples import python_blocks
from tests.support.openai_process import EndpointProcess

PAGE = "docs/how-to/answers.md"


@pytest.fixture(scope="module")
def llm_endpoint() -> Iterator[EndpointProcess]:
    with EndpointProcess() as one:
        yield one


@pytest.fixture
def environment(llm_endpoint: EndpointProcess, redis_url: str, namespace: str) -> dict[str, str]:
    """A Redis and an LLM, by variables; the endpoint quotes the first passage unless told otherwise."""
    llm = {"KB_LLM__BASE_URL": llm_endpoint.base_url, "KB_LLM__MODEL": "any-model:7b"}
    return {**os.environ, "KB_REDIS_URL": redis_url, "KB_NAMESPACE": namespace, **llm}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, encoding="utf-8", timeout=120
    )


def kb(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    program = f"import sys; from knowledge_base.interfaces.cli import main; sys.exit(main({list(words)!r}))"
    return run(environment, "-c", program)


def test_snippets_of_the_page_run_one_after_the_other(environment: dict[str, str]):
    program = "\n".join(
        [
            "import asyncio",
            "from knowledge_base import KnowledgeBase",
            "async def main():",
            "    async with KnowledgeBase() as kb:",
            *(textwrap.indent(block, " " * 8) for block in python_blocks(PAGE)),
            "asyncio.run(main())",
        ]
    )

    done = run(environment, "-c", program)

    assert done.returncode == 0, done.stderr
    assert "[1] Handbook, Refunds: Refunds are paid within fourteen days." in done.stdout
    assert "Sources: ['Handbook, Gift cards']" in done.stdout


def test_command_answers_and_cites(environment: dict[str, str], llm_endpoint: EndpointProcess):
    kb(environment, "add", "Penguins swim fast.", "--source", "Birds")
    llm_endpoint.tell(answers=["They swim fast. [1]"] * 2)

    shown = kb(environment, "ask", "How fast do penguins swim?")
    as_json = kb(environment, "ask", "How fast do penguins swim?", "--json")

    assert shown.returncode == as_json.returncode == 0, shown.stderr + as_json.stderr
    assert shown.stdout.splitlines() == ["They swim fast. [1]", "[1] Birds  Penguins swim fast."]
    assert json.loads(as_json.stdout)["citations"][0]["source"] == "Birds"


def test_command_says_that_the_llm_is_away(environment: dict[str, str]):
    kb(environment, "add", "Penguins swim fast.")

    done = kb({**environment, "KB_LLM__BASE_URL": "http://127.0.0.1:9/v1"}, "ask", "How fast do penguins swim?")

    assert done.returncode == 3
    assert done.stdout == ""
    assert "the LLM failed" in done.stderr


def test_command_says_that_there_is_no_llm(environment: dict[str, str]):
    without = {name: value for name, value in environment.items() if not name.startswith("KB_LLM__")}

    done = kb(without, "ask", "How fast do penguins swim?")

    assert done.returncode == 2
    assert "KB_LLM__MODEL" in done.stderr
