"""Metadata: what fits and is JSON is copied, and what does not is refused before it costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge_base.errors import InvalidInputError
from knowledge_base.facts import validation
from knowledge_base.facts.validation import checked_metadata, encoded_json
from knowledge_base.settings import Limits


def refused(value: Any, limits: Limits | None = None) -> InvalidInputError:
    """Checks metadata that must be refused, and returns the error."""
    with pytest.raises(InvalidInputError) as caught:
        checked_metadata(value, limits or Limits())
    assert caught.value.field == "metadata"
    return caught.value


class Items(list[Any]):
    """A list of the caller's own kind."""


class Endless(Mapping[str, Any]):
    """Metadata that never ends."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[str]:
        while True:
            self.read += 1
            yield str(self.read)

    def __getitem__(self, key: str) -> Any:
        return None

    def __len__(self) -> int:
        return 1


class EndlessItems(list[Any]):
    """A list that never ends."""

    read = 0

    def __iter__(self) -> Iterator[Any]:
        while True:
            self.read += 1
            yield None


@pytest.mark.parametrize(
    "values",
    [
        lambda number: [0] * number,
        lambda number: [[]] * number,
        lambda number: [[0]] * number,
        lambda number: ((0,),) * number,
        lambda number: [{}] * number,
        lambda number: [{"k": 0}] * number,
        lambda number: {f"{at:05d}": 0 for at in range(number)},
        lambda number: [""] * number,
        lambda number: ["a", 1.5, None, True, "é"] * number,
        lambda number: Items([0] * number),
        lambda number: MappingProxyType({f"{at:05d}": MappingProxyType({"k": [1]}) for at in range(number)}),
    ],
)
def test_whatever_it_holds_metadata_may_be_as_large_as_the_limit(values: Callable[[int], Any]) -> None:
    def size(number: int) -> int:
        return len(json.dumps({"n": values(number)}, default=dict, ensure_ascii=False, separators=(",", ":")).encode())

    most = Limits().metadata_bytes
    number = (most - size(100)) * 100 // (size(200) - size(100)) + 100 - 1
    metadata = {"n": values(number)}
    rest = most - size(number)
    if rest > len(',"pad":""'):
        metadata["pad"] = "x" * (rest - len(',"pad":""'))

    copied = checked_metadata(metadata, Limits())

    assert len(encoded_json(copied).encode()) in range(most - 20, most + 1)
    assert len(copied["n"]) == len(values(number))
    assert refused({"n": values(number * 2)}).limit == most


@pytest.mark.parametrize("kind", [Endless, EndlessItems])
def test_metadata_is_read_no_further_than_it_can_fit(kind: Callable[[], Any]) -> None:
    endless = kind()

    error = refused({"n": endless})

    assert error.limit == 65_536
    assert str(error) == "metadata: takes more than 65536 bytes as JSON"
    assert 5_000 < endless.read < 65_536


@pytest.mark.parametrize("value", ["é" * 65_536, ["é" * 65_536], {"é" * 65_536: 0}])
def test_text_that_cannot_fit_is_not_encoded(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    encoded: list[str] = []
    monkeypatch.setattr(validation, "refuse_unstorable", lambda field, text: encoded.append(text))

    assert refused({"n": value}).limit == 65_536

    assert encoded == []


def test_fault_is_told_before_the_size_where_the_limit_is_low() -> None:
    error = refused({"a": [0] * 100 + [{1}]}, Limits(metadata_bytes=50))

    assert "set" in str(error)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from(["a", "b", "é", "🙂"]), inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2).map(MappingProxyType)
    ),
    max_leaves=20,
)
FAULTS = [float("nan"), float("inf"), 2**63, -(2**63), b"x", {1}, ..., "\x00", "\ud800", {"": 1}, {1: 1}, {"\x00": 1}]


@given(VALUES)
def test_what_is_json_is_copied_as_json_has_it(value: Any) -> None:
    expected = json.loads(json.dumps(value, default=dict))

    copied = checked_metadata({"value": value}, Limits())

    assert copied == {"value": expected}
    assert json.dumps(copied["value"]) == json.dumps(expected)


@given(VALUES, st.sampled_from(FAULTS), st.booleans())
def test_one_fault_anywhere_is_enough(value: Any, fault: Any, first: bool) -> None:
    faulty = [fault, value] if first else [value, fault]

    assert refused({"a": {"b": faulty}}).limit is None
