"""How well something matches, with numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from knowledge_base.retrieval.match import FULL_MATCH, full_match, meaning_matches, word_matches


def test_full_match_grows_with_the_words_and_the_logarithm_of_the_base() -> None:
    assert full_match(1, 1) == pytest.approx(FULL_MATCH * math.log(2))
    assert full_match(3, 999) == pytest.approx(3 * FULL_MATCH * math.log(1_000))
    assert full_match(0, 0) == full_match(1, 1)


@pytest.mark.parametrize(("bm25", "match"), [(0.0, 0.0), (4.0, 0.25**1.5), (16.0, 1.0), (40.0, 1.0), (-1.0, 0.0)])
def test_words_match_between_zero_and_one(bm25: float, match: float) -> None:
    assert word_matches([bm25], 16.0) == pytest.approx([match])


@pytest.mark.parametrize(
    ("cosine", "background", "match"),
    [(0.25, 0.0, 0.25), (1.0000002, 0.0, 1.0), (-0.3, 0.0, 0.0), (0.4, 0.4, 0.0), (0.7, 0.4, 0.5), (1.0, 0.4, 1.0)],
)
def test_meaning_matches_as_far_as_it_is_more_alike_than_unrelated_texts(
    cosine: float, background: float, match: float
) -> None:
    assert meaning_matches([cosine], background) == pytest.approx([match])
