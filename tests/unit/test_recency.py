"""Recency: bounded, monotone, half for each half-life, and in order where numbers end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge_base.retrieval.fusion import Ranked
from knowledge_base.retrieval.recency import FadedRanking, ages_of, faded, fading_order

DAY = 86_400.0
NOW = 1_800_000_000_000

scores = st.floats(0.0, 1.0)
ages = st.floats(0.0, 1e9)


def ranked(*scored: tuple[str, float]) -> list[Ranked]:
    return [Ranked(fact_id, "1", score, {}) for fact_id, score in scored]


def ids(ranking: FadedRanking) -> list[str]:
    return [item.fact_id for item in ranking.part(0, len(ranking))]


@pytest.mark.parametrize(("days", "left"), [(0, 0.8), (7, 0.4), (14, 0.2), (3.5, 0.8 * 2**-0.5)])
def test_each_half_life_halves_the_score(days: float, left: float) -> None:
    age = ages_of({"f": NOW - round(days * DAY * 1000)}, NOW, 7 * DAY)["f"]

    assert faded(0.8, age) == pytest.approx(left)


def test_what_comes_from_the_future_is_new() -> None:
    assert ages_of({"f": NOW + 5_000}, NOW, DAY) == {"f": 0.0}


@given(scores, ages, ages)
def test_score_stays_in_its_bounds_and_falls_with_age(score: float, first: float, second: float) -> None:
    younger, older = sorted((first, second))

    assert 0.0 <= faded(score, older) <= faded(score, younger) <= score


@given(scores, scores, ages)
def test_of_equal_age_the_better_one_stays_ahead(first: float, second: float, age: float) -> None:
    worse, better = sorted((first, second))

    assert faded(worse, age) <= faded(better, age)
    assert fading_order(worse, age) <= fading_order(better, age)


def test_newer_fact_passes_one_that_fits_a_little_better() -> None:
    ranking = FadedRanking(ranked(("old", 0.9), ("new", 0.6), ("gone", 0.5)), {"old": 1.0, "new": 0.0})

    assert ids(ranking) == ["new", "old"]
    assert [item.score for item in ranking.part(0, 2)] == [0.6, 0.45]


def test_order_is_by_age_also_where_every_score_has_faded_to_nothing() -> None:
    ranking = FadedRanking(
        ranked(("oldest", 0.9), ("older", 0.9), ("old", 0.9)), {"oldest": 3e4, "older": 2e4, "old": 1e4}
    )

    assert ids(ranking) == ["old", "older", "oldest"]
    assert {item.score for item in ranking.part(0, 3)} == {0.0}


def test_least_score_counts_after_fading() -> None:
    ranking = FadedRanking(ranked(("a", 0.9), ("b", 0.8), ("c", 0.7)), {"a": 0.0, "b": 2.0, "c": 0.0})

    assert ids(ranking.at_least(0.7)) == ["a", "c"]
    assert ids(ranking.at_least(0.2)) == ["a", "c", "b"]
    assert ids(ranking.at_least(1.0)) == []
