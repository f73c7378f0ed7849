"""Words as full text queries: the filter at each word, and no more words than agreed."""

from __future__ import annotations

import pytest

from knowledge_base.index.text_query import bm25_query, telling_stems

SCOPE = "@p:{x}"


@pytest.mark.parametrize(
    ("stems", "most", "kept"),
    [
        ([], 3, {}),
        (["wing", "lift"], 3, {"wing": 1, "lift": 1}),
        (["wing", "lift", "wing"], 2, {"wing": 2, "lift": 1}),
        (["a", "bb", "ccc", "a"], 2, {"a": 2, "ccc": 1}),
        (["bb", "aa", "cc"], 2, {"aa": 1, "bb": 1}),
        (["long", "x", "longer"], 1, {"longer": 1}),
    ],
)
def test_most_telling_stems_are_kept(stems: list[str], most: int, kept: dict[str, int]) -> None:
    assert telling_stems(stems, most, SCOPE) == kept


def test_word_that_is_repeated_without_end_counts_a_few_times() -> None:
    assert telling_stems(["ab"] * 3_000 + ["cd"], 64, SCOPE) == {"ab": 4, "cd": 1}
    assert sum(telling_stems([str(number % 64) for number in range(640)], 64, SCOPE).values()) == 128


def test_long_filter_leaves_room_for_fewer_words() -> None:
    words = [f"w{number}" for number in range(64)]

    kept = telling_stems(words, 64, "x" * 25_000)

    assert len(bm25_query(kept, "x" * 25_000)) < 600_000
    assert len(telling_stems(words, 64, "x" * 1_000_000)) == 1


def test_stems_stay_in_order_when_all_are_kept() -> None:
    assert list(telling_stems(["c", "a", "b", "a"], 3, SCOPE)) == ["c", "a", "b"]


def test_filter_stands_at_each_word_and_repeated_words_are_repeated() -> None:
    assert bm25_query({"wing": 2, "lift": 1}, "@p:{x}") == "(@p:{x} @stem:wing)|(@p:{x} @stem:wing)|(@p:{x} @stem:lift)"


def test_no_words_are_no_query() -> None:
    assert bm25_query({}, "@p:{x}") == ""
