"""The last step of a context: what is written is counted as a whole."""

from __future__ import annotations

import pytest

from knowledge_base.errors import OperationTimeoutError
from knowledge_base.retrieval.context_builder import _written, empty_context
from tests.support.chunks import a_chunk

CHUNKS = [a_chunk("one"), a_chunk("two"), a_chunk("three")]


def dearer_together(text: str) -> int:
    """Counts a whole as more than its parts."""
    return int(len(text.split()) ** 2)


@pytest.mark.parametrize(("budget", "shown", "tokens"), [(36, 3, 36), (35, 2, 16), (15, 1, 4), (3, 0, 0)])
def test_last_passages_are_left_out_until_the_whole_text_fits(budget: int, shown: int, tokens: int) -> None:
    written = _written(CHUNKS, budget, dearer_together)

    assert list(written.chunks) == CHUNKS[:shown]
    assert written.tokens == tokens <= budget
    assert written.text.count("[") == shown


def test_empty_context_says_why() -> None:
    error = OperationTimeoutError("build_context", 0.5, "searching")

    assert empty_context("penguins", error) == {
        "text": "",
        "citations": [],
        "tokens": 0,
        "query": "penguins",
        "degraded": [],
        "complete": False,
        "reason": f"unavailable: {error}",
    }
