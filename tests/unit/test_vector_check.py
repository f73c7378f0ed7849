"""What a model may give as a vector, and what is never stored or searched with."""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np
import pytest

from knowledge_base.embedding.vector_check import checked_vector
from knowledge_base.errors import EmbeddingUnavailableError

LARGEST = 3.4028235e38


@pytest.mark.parametrize(
    "vector",
    [[1.0, 0.0], [1, 0], (True, False), array("d", [1.0, 0.0]), array("f", [1.0, 0.0]), [1.0, 1e-60]],
    ids=repr,
)
def test_numbers_become_floats_of_32_bits(vector: Any) -> None:
    packed = checked_vector(vector, 2)

    assert packed == array("f", [1.0, 0.0])
    assert packed.typecode == "f"


def test_numpy_vectors_are_numbers() -> None:
    for kind in (np.float64, np.float32, np.float16, np.int64):
        assert checked_vector(np.array([1, 0], dtype=kind), 2) == array("f", [1.0, 0.0])  # type: ignore[arg-type]


def test_vector_is_a_copy() -> None:
    given = array("f", [1.0, 2.0])

    packed = checked_vector(given, 2)
    given[0] = 9.0

    assert packed == array("f", [1.0, 2.0])


def test_numbers_are_rounded_to_what_the_index_keeps() -> None:
    assert checked_vector([0.1, 1 / 3], 2).tolist() == [array("f", [0.1])[0], array("f", [1 / 3])[0]]


@pytest.mark.parametrize("dimension", [None, 3])
def test_dimension_may_be_unknown(dimension: int | None) -> None:
    assert len(checked_vector([1.0, 2.0, 3.0], dimension)) == 3


@pytest.mark.parametrize("vector", [[1.0], [1.0, 1.0, 1.0], []])
def test_other_length_is_refused_with_the_setting_to_check(vector: list[float]) -> None:
    with pytest.raises(EmbeddingUnavailableError, match=rf"{len(vector)} dimensions instead of 2.*KB_EMBEDDING__DIM"):
        checked_vector(vector, 2)


def test_no_numbers_are_never_a_vector() -> None:
    with pytest.raises(EmbeddingUnavailableError, match="0 dimensions"):
        checked_vector([], None)


@pytest.mark.parametrize(
    "vector",
    [
        [0.0, 0.0],
        [0.0, -0.0],
        [1e-60, 1e-60],
        [math.nan, 1.0],
        [1.0, math.nan],
        [math.inf, 1.0],
        [-math.inf, math.nan],
        [1e39, 1.0],
        [LARGEST * 2, 1.0],
        [1.7e308, 1.7e308],
    ],
    ids=repr,
)
def test_zero_and_what_is_not_finite_in_32_bits_are_refused(vector: list[float]) -> None:
    with pytest.raises(EmbeddingUnavailableError, match="zero or not finite"):
        checked_vector(vector, 2)


@pytest.mark.parametrize(
    "vector",
    [
        "ab",
        ["1.0", "2.0"],
        [None, 1.0],
        [[1.0], [2.0]],
        [1 + 2j, 1.0],
        [10**400, 1.0],
        [b"1", 1.0],
        {"a": 1.0, "b": 2.0},
        b"\x00\x00",
        b"\x00\x00\x80\x3f\x00\x00\x80\x3f",
        None,
        1.0,
        object(),
        iter([1.0, 2.0]),
    ],
    ids=lambda vector: type(vector).__name__,
)
def test_what_is_not_made_of_numbers_is_refused(vector: Any) -> None:
    with pytest.raises(EmbeddingUnavailableError):
        checked_vector(vector, len(vector) if isinstance(vector, (bytes, str)) else 2)
