"""The numbers that an answer cites."""

from __future__ import annotations

import pytest

from knowledge_base.answers.prompt import cited_numbers

KNOWN = range(1, 6)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Tea is at four. [1]", [1]),
        ("Both [3][1] are true [3].", [1, 3]),
        ("Both [1, 3] are true; so is [ 2 ].", [1, 2, 3]),
        ("These [2-4] are true.", [2, 3, 4]),
        ("These [2\u20134; 1] are true.", [1, 2, 3, 4]),
        ("Nothing says so.", []),
        ("[0] [6] [99] [-1] [x] [] [1.5]", []),
        ("In [2024] it was 5.", []),
        ("Backwards [4-2]", []),
        ("[0-9999]" * 20_000, [1, 2, 3, 4, 5]),
    ],
)
def test_numbers_in_brackets_are_citations(text: str, numbers: list[int]):
    assert cited_numbers(text, KNOWN) == numbers
