"""Words as full text queries: the filter at each word, and no more words than agreed."""

from __future__ import annotations

import pytest

from knowledge_base.index.text_query import TELLING_WORDS, Form, bm25_query, optional_pays, telling_stems

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


@pytest.mark.parametrize(
    ("form", "query"),
    [
        ("distributed", "(@p:{x} @stem:wing)|(@p:{x} @stem:wing)|(@p:{x} @stem:lift)"),
        ("optional", "@p:{x} ~@stem:wing ~@stem:wing ~@stem:lift"),
        ("joined", "@p:{x} @stem:(wing|wing|lift)"),
    ],
)
def test_each_form_has_each_word_as_often_as_it_counts(form: Form, query: str) -> None:
    assert bm25_query({"wing": 2, "lift": 1}, "@p:{x}", form) == query


@pytest.mark.parametrize("form", ["distributed", "optional", "joined"])
def test_no_words_are_no_query(form: Form) -> None:
    assert bm25_query({}, "@p:{x}", form) == ""


def test_rare_words_are_kept_rather_than_long_ones_when_it_is_known_which_are_rare() -> None:
    stems = ["abcdefgh", "xy", "abcdefg", "zz", "absent"]
    frequencies = {"abcdefgh": 900, "xy": 3, "abcdefg": 500, "zz": 40, "absent": 0}

    assert telling_stems(stems, 2, SCOPE, frequencies, 1_000) == {"xy": 1, "zz": 1}
    assert telling_stems(stems, 2, SCOPE) == {"abcdefgh": 1, "abcdefg": 1}


def test_repeated_word_weighs_as_often_as_it_counts() -> None:
    frequencies = {"often": 100, "once": 60, "never": 55}

    assert telling_stems(["once", "often", "never", "often"], 1, SCOPE, frequencies, 1_000) == {"often": 2}


def test_heaviest_words_are_enough() -> None:
    stems = [f"w{number}" for number in range(3 * TELLING_WORDS)]
    frequencies = {stem: 500 - place for place, stem in enumerate(stems)}

    kept = telling_stems(stems, 64, SCOPE, frequencies, 1_000)

    assert set(kept) == set(stems[-TELLING_WORDS:])
    assert len(telling_stems(stems, 64, SCOPE)) == 64


def test_optional_words_pay_where_few_passages_pass_for_the_places_of_the_words() -> None:
    assert optional_pays(100_000, 10_000)
    assert not optional_pays(100_000, 100_000)


def test_word_that_nobody_had_a_while_ago_is_asked_for_beside_the_heaviest() -> None:
    stems = [f"w{number}" for number in range(40)] + ["zebra"]
    frequencies = dict.fromkeys(stems[:-1], 5) | {"zebra": 0}

    telling = telling_stems(stems, 64, "", frequencies, 100)

    assert "zebra" in telling
    assert len(telling) == TELLING_WORDS + 1
