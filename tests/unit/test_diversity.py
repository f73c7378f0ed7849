"""Diversity: maximal marginal relevance by vectors, and by words where there are none."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge_base.retrieval.diversity import Spreadable, spread


def packed(*numbers: float) -> bytes:
    return array("f", numbers).tobytes()


def hit(score: float, vector: Sequence[float] | None = None, text: str = "") -> Spreadable:
    return Spreadable(score, text, None if vector is None else packed(*vector))


NORTH, NEARLY_NORTH, EAST = (1.0, 0.0), (0.99, 0.14), (0.0, 1.0)


def test_repetition_gives_way_to_something_else() -> None:
    hits = [hit(0.9, NORTH), hit(0.89, NEARLY_NORTH), hit(0.6, EAST)]

    assert spread(hits, 2, 0.5) == [0, 2]
    assert spread(hits, 3, 0.5) == [0, 2, 1]


def test_no_diversity_is_the_ranking() -> None:
    assert spread([hit(0.9, NORTH), hit(0.89, NORTH), hit(0.6, EAST)], 3, 0.0) == [0, 1, 2]


def test_full_diversity_looks_only_at_how_different_hits_are() -> None:
    hits = [hit(0.9, NORTH), hit(0.8, NORTH), hit(0.7, NEARLY_NORTH), hit(0.01, EAST)]

    assert spread(hits, 2, 1.0) == [0, 3]


def test_scores_count_as_shares_of_the_best() -> None:
    large = [hit(0.9, NORTH), hit(0.88, NEARLY_NORTH), hit(0.1, EAST)]
    small = [one._replace(score=one.score / 1_000) for one in large]

    assert spread(large, 3, 0.3) == spread(small, 3, 0.3) == [0, 1, 2]


def test_length_of_a_vector_says_nothing() -> None:
    assert spread([hit(0.9, (10.0, 0.0)), hit(0.89, (0.1, 0.0)), hit(0.6, (0.0, 0.1))], 2, 0.5) == [0, 2]


def test_without_vectors_words_tell() -> None:
    hits = [
        hit(0.9, text="Tea is served at four o'clock in the garden."),
        hit(0.89, text="TEA is served at four o'clock, in the garden!"),
        hit(0.7, text="The bus leaves hourly."),
    ]

    assert spread(hits, 2, 0.5) == [0, 2]


def test_what_has_no_vector_yet_is_compared_by_words() -> None:
    hits = [
        hit(0.9, NORTH, "Tea is served at four."),
        hit(0.89, None, "tea is served at four"),
        hit(0.6, EAST, "The bus leaves hourly."),
    ]

    assert spread(hits, 2, 0.5) == [0, 2]


def test_vector_of_another_length_is_none() -> None:
    hits = [
        hit(0.9, NORTH, "a b"),
        hit(0.85, NORTH, "c d"),
        hit(0.8, (1.0, 0.0, 0.0), "a b"),
        hit(0.7, (0.0, 0.0), "e f"),
    ]

    assert spread(hits, 4, 0.5) == [0, 3, 1, 2]


def test_unspaced_script_is_compared_by_characters() -> None:
    hits = [hit(0.9, text="図書館は八時に開く"), hit(0.89, text="図書館は八時に開く。"), hit(0.6, text="犬が好き")]

    assert spread(hits, 2, 0.5) == [0, 2]


def test_scores_of_zero_are_no_trouble() -> None:
    assert spread([hit(0.0, NORTH), hit(0.0, NORTH), hit(0.0, EAST)], 3, 0.5) == [0, 2, 1]
    assert spread([], 3, 0.5) == []


vectors = st.one_of(st.none(), st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3))


@given(
    st.lists(st.tuples(st.floats(0, 1), vectors, st.text(max_size=20)), max_size=12),
    st.integers(1, 15),
    st.floats(0, 1),
)
def test_best_is_first_and_nothing_twice(
    hits: list[tuple[float, list[float] | None, str]], most: int, diversity: float
) -> None:
    given_hits = sorted((hit(*one) for one in hits), key=lambda one: -one.score)

    places = spread(given_hits, most, diversity)

    assert places[:1] == ([0] if hits else [])
    assert len(places) == len(set(places)) == min(most, len(hits))


@pytest.mark.parametrize("diversity", [0.2, 0.5, 0.8])
def test_choice_is_the_formula_s(diversity: float) -> None:
    numbers = [(score / 10, (score % 3, score % 4 - 1.0, 1.0)) for score in range(10, 0, -1)]
    hits = [hit(score, vector) for score, vector in numbers]

    def cosine(first: int, second: int) -> float:
        one, other = numbers[first][1], numbers[second][1]
        dot = sum(a * b for a, b in zip(one, other, strict=True))
        return max(0.0, dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other)))

    expected = [0]
    while len(expected) < 6:
        left = [place for place in range(10) if place not in expected]
        gain = {
            place: (1 - diversity) * numbers[place][0] - diversity * max(cosine(place, one) for one in expected)
            for place in left
        }
        expected.append(max(left, key=lambda place: round(gain[place], 6)))

    assert spread(hits, 6, diversity) == expected
