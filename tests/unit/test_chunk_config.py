"""``RetrievalConfig``: defaults as promised, absurd values refused by name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from knowledge_base import InvalidInputError, RetrievalConfig


def test_defaults_are_as_promised() -> None:
    assert RetrievalConfig().model_dump() == {
        "similarity_threshold": 0.25,
        "max_chunks": 5,
        "token_budget": 4_000,
        "merge_neighbours": True,
    }


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("similarity_threshold", (0, 1, 0.5)),
        ("max_chunks", (1, 100)),
        ("token_budget", (1, 1_000_000)),
        ("merge_neighbours", (True, False)),
    ],
)
def test_values_within_bounds_are_taken(field: str, values: tuple[Any, ...]) -> None:
    assert [getattr(RetrievalConfig(**{field: value}), field) for value in values] == list(values)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("similarity_threshold", -0.01),
        ("similarity_threshold", 1.01),
        ("similarity_threshold", math.nan),
        ("similarity_threshold", None),
        ("max_chunks", 0),
        ("max_chunks", 101),
        ("max_chunks", 2.5),
        ("token_budget", 0),
        ("token_budget", 1_000_001),
        ("token_budget", "many"),
        ("merge_neighbours", "perhaps"),
        ("threshold", 0.5),
    ],
)
def test_absurd_values_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        RetrievalConfig(**{field: value})

    assert refused.value.field == field


def test_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RetrievalConfig().max_chunks = 3  # type: ignore[misc]
