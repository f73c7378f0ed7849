"""What callers may pass: each refusal names the field, and the limit where there is one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from knowledge_base.errors import InvalidInputError
from knowledge_base.facts import validation
from knowledge_base.settings import Limits

LIMITS = Limits(content_chars=10, metadata_bytes=50, tags=2, principals=2, label_chars=5)


def refused(check: Callable[[], Any], field: str, limit: float | None = None) -> InvalidInputError:
    """Runs a check that must refuse, and looks at what it says."""
    with pytest.raises(InvalidInputError) as caught:
        check()
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
    assert caught.value.limit == limit
    return caught.value


@pytest.mark.parametrize("text", ["a", " a ", "a\nb\t", "é", "🙂" * 10, "x" * 10, "\x01a"])
def test_text_is_given_back_as_it_is(text: str) -> None:
    assert validation.checked_text("content", text, 10) == text


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u2003", "a\x00b", "a\ud800", "\udfff", None, 7, b"bytes", ["a"]])
def test_text_that_cannot_be_stored_is_refused(text: Any) -> None:
    refused(lambda: validation.checked_text("content", text, 10), "content")


def test_text_that_is_too_long_is_refused_with_the_limit_and_not_repeated() -> None:
    error = refused(lambda: validation.checked_text("content", "secret" * 100, 10), "content", 10)

    assert "600" in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize("name", ["a", "A-z_0.9:x", "n" * 128])
def test_namespace_is_given_back(name: str) -> None:
    assert validation.checked_namespace(name) == name


@pytest.mark.parametrize("name", ["", "n" * 129, "a b", "a\n", "{a}", "a*", "é", None, 7, b"a"])
def test_namespace_that_does_not_match_is_refused(name: Any) -> None:
    refused(lambda: validation.checked_namespace(name), "namespace")


@pytest.mark.parametrize("fact_id", ["a", "A-z_0.9:x", "i" * 255])
def test_fact_id_is_given_back(fact_id: str) -> None:
    assert validation.checked_fact_id(fact_id) == fact_id


@pytest.mark.parametrize("fact_id", ["", "i" * 256, "a b", "a\n", "a/b", "é", None, 7])
def test_fact_id_that_does_not_match_is_refused(fact_id: Any) -> None:
    refused(lambda: validation.checked_fact_id(fact_id), "fact_id")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (None, []),
        ([], []),
        (("b", "a"), ["b", "a"]),
        ([" b ", "a", "b"], ["b", "a"]),
        ({"b"}, ["b"]),
        ((x for x in "ab"), ["a", "b"]),
        (["a"] * 50, ["a"]),
        (["x" * 5], ["x" * 5]),
    ],
)
def test_labels_are_stripped_and_stand_once_in_order(values: Any, labels: list[str]) -> None:
    assert validation.checked_labels("tags", values, 2, 5) == labels


@pytest.mark.parametrize(
    "values", ["ab", b"ab", {"a": 1}, 7, [7], [None], [""], [" "], ["a\x00"], ["a\x1fb"], ["a\x85b"]]
)
def test_labels_that_are_none_are_refused(values: Any) -> None:
    refused(lambda: validation.checked_labels("tags", values, 2, 5), "tags")


def test_too_many_labels_are_refused_with_the_limit() -> None:
    refused(lambda: validation.checked_labels("tags", ["a", "b", "c"], 2, 5), "tags", 2)


def test_label_that_is_too_long_is_refused_with_the_limit() -> None:
    refused(lambda: validation.checked_labels("tags", ["x" * 6], 2, 5), "tags", 5)


def test_principals_are_in_order_of_name() -> None:
    assert validation.checked_principals(["b", "a", "b"], LIMITS) == ["a", "b"]
    assert validation.checked_principals(None, LIMITS) == []


@pytest.mark.parametrize("values", [["*"], ["a", " * "]])
def test_principal_that_means_everybody_is_refused(values: list[str]) -> None:
    assert "reserved" in str(refused(lambda: validation.checked_principals(values, LIMITS), "principals"))


def test_too_many_principals_are_refused_with_the_limit() -> None:
    refused(lambda: validation.checked_principals(["a", "b", "c"], LIMITS), "principals", 2)


@pytest.mark.parametrize(
    ("value", "copied"),
    [
        (None, {}),
        ({}, {}),
        ({"a": [1, 1.5, True, None, "é", {"b": []}]}, {"a": [1, 1.5, True, None, "é", {"b": []}]}),
        ({"a": (1, 2)}, {"a": [1, 2]}),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": MappingProxyType({"b": 1})}), {"a": {"b": 1}}),
        ({"n": 2**63 - 1, "m": -(2**63) + 1}, {"n": 2**63 - 1, "m": -(2**63) + 1}),
    ],
)
def test_metadata_is_copied_as_plain_json(value: Any, copied: dict[str, Any]) -> None:
    assert validation.checked_metadata(value, LIMITS) == copied
    assert isinstance(validation.checked_metadata(value, LIMITS), dict)


def test_copy_of_metadata_shares_nothing_with_the_callers() -> None:
    own: dict[str, Any] = {"a": {"b": [1]}}

    copied = validation.checked_metadata(own, LIMITS)
    own["a"]["b"].append(2)

    assert copied == {"a": {"b": [1]}}


class Text(str):
    """A string of the caller's own kind."""


def test_values_of_kinds_of_the_callers_own_become_plain() -> None:
    copied = validation.checked_metadata({"a": Text("x")}, LIMITS)

    assert type(copied["a"]) is str


@pytest.mark.parametrize(
    "value",
    [
        "text",
        [("a", 1)],
        7,
        {1: "a"},
        {"": 1},
        {None: 1},
        {"a": {1: 2}},
        {"a": ...},
        {"a": b"x"},
        {"a": {1, 2}},
        {"a": float("nan")},
        {"a": float("-inf")},
        {"a": 2**63},
        {"a": "x\x00"},
        {"a\x00": 1},
        {"a": "\ud800"},
        {"a\ud800": 1},
        {"a": [{"b": ["\x00"]}]},
    ],
    ids=repr,
)
def test_metadata_that_is_no_json_is_refused(value: Any) -> None:
    refused(lambda: validation.checked_metadata(value, LIMITS), "metadata")


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def test_metadata_may_be_so_deep_and_no_deeper() -> None:
    most = validation.MOST_DEPTH
    limits = Limits()

    assert validation.checked_metadata(nested(most), limits) == nested(most)
    refused(lambda: validation.checked_metadata(nested(most + 1), limits), "metadata", most)


def test_metadata_that_contains_itself_is_refused() -> None:
    value: dict[str, Any] = {}
    value["a"] = value

    refused(lambda: validation.checked_metadata(value, LIMITS), "metadata", validation.MOST_DEPTH)


def test_size_of_metadata_counts_bytes_of_its_json() -> None:
    fits = {"a": "x" * (50 - len('{"a":""}'))}

    assert validation.checked_metadata(fits, LIMITS) == fits
    refused(lambda: validation.checked_metadata({"a": fits["a"] + "x"}, LIMITS), "metadata", 50)
    refused(lambda: validation.checked_metadata({"a": fits["a"][:-1] + "é"}, LIMITS), "metadata", 50)


def test_json_is_compact_and_readable() -> None:
    assert validation.encoded_json({"a": ["é", 1]}) == '{"a":["é",1]}'


@pytest.mark.parametrize("value", [1, 5, 10])
def test_number_within_bounds_is_given_back(value: int) -> None:
    assert validation.checked_number("limit", value, 1, 10) == value


@pytest.mark.parametrize(("value", "limit"), [(0, 1), (-5, 1), (11, 10), (10**30, 10)])
def test_number_out_of_bounds_is_refused_with_the_bound(value: int, limit: int) -> None:
    refused(lambda: validation.checked_number("limit", value, 1, 10), "limit", limit)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, float("nan")])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    refused(lambda: validation.checked_number("limit", value, 1, 10), "limit")


@pytest.mark.parametrize(("value", "seconds"), [(1, 1.0), (0.5, 0.5), (60, 60.0), (timedelta(milliseconds=5), 0.005)])
def test_duration_is_given_in_seconds(value: Any, seconds: float) -> None:
    found = validation.checked_seconds("timeout", value, 60)

    assert found == seconds
    assert isinstance(found, float)


@pytest.mark.parametrize("value", [0, -1, 60.001, timedelta(0), timedelta(seconds=-1), timedelta.max, float("inf")])
def test_duration_out_of_bounds_is_refused_with_the_bound(value: Any) -> None:
    refused(lambda: validation.checked_seconds("timeout", value, 60), "timeout", 60)


@pytest.mark.parametrize("value", [True, "1", None, float("nan")])
def test_what_is_no_duration_is_refused(value: Any) -> None:
    refused(lambda: validation.checked_seconds("timeout", value, 60), "timeout")


def test_whole_number_too_large_for_a_duration_is_refused() -> None:
    refused(lambda: validation.checked_seconds("timeout", 10**400, 60), "timeout", 60)


@pytest.mark.parametrize(("value", "expiry"), [(None, None), (1, 1.0), (timedelta(days=3660), 3660 * 86_400.0)])
def test_expiry_may_be_ten_years_away(value: Any, expiry: float | None) -> None:
    assert validation.checked_expiry(value) == expiry


def test_expiry_beyond_ten_years_is_refused() -> None:
    refused(lambda: validation.checked_expiry(timedelta(days=3661)), "expires_in", validation.TEN_YEARS)


@pytest.mark.parametrize("value", [None, 0, 1, 0.5])
def test_score_is_from_zero_to_one(value: Any) -> None:
    assert validation.checked_score(value) == value


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), True, "1", 10**400])
def test_score_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        validation.checked_score(value)

    assert caught.value.field == "min_score"


def test_choice_must_be_one_of_those_there_are() -> None:
    validation.checked_choice("mode", "text", validation.MODES)

    assert validation.MODES == ("hybrid", "vector", "text")
    assert validation.ON_DUPLICATE == ("return", "update", "error")


@pytest.mark.parametrize("value", ["", "TEXT", None, 7, [], {}])
def test_what_is_no_choice_is_refused_with_those_there_are(value: Any) -> None:
    error = refused(lambda: validation.checked_choice("mode", value, validation.MODES), "mode")

    assert "hybrid, vector, text" in str(error)
