"""Filters: the query text that each becomes, escaped, limited, and refused where it cannot be."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from knowledge_base.clock import iso_time
from knowledge_base.errors import InvalidInputError
from knowledge_base.index.filters import FilterCompiler, metadata_labels, tag_clause, visibility_clause

W = "=>{$weight:0}"
OPEN_ONLY = f"@principals:{{\\*|\\*}}{W}"


@pytest.fixture
def compiler() -> FilterCompiler:
    return FilterCompiler(8)


def tag(field: str, *values: str) -> str:
    """A clause as it must look; values are escaped already."""
    return f"@{field}:{{{'|'.join(values if len(values) > 1 else values * 2)}}}{W}"


A_AND_W = f"({tag('tags', 'a')} {tag('source', 'w')})"
A_NOT_B = f"{tag('tags', 'a')} -{tag('tags', 'b')}"
NESTED = f"-((-({A_NOT_B}) -{tag('source', 'w')}) -{tag('tags', 'c')})"

EQUAL: list[tuple[dict[str, Any], str]] = [
    ({"tags": "a"}, tag("tags", "a")),
    ({"tags": ["a", "b"]}, tag("tags", "a", "b")),
    ({"tags": ("a", "b")}, tag("tags", "a", "b")),
    ({"tags": {"a"}}, tag("tags", "a")),
    ({"tags": {"eq": "a"}}, tag("tags", "a")),
    ({"tags": {"ne": "a"}}, "-" + tag("tags", "a")),
    ({"tags": {"in": ["a", "b"]}}, tag("tags", "a", "b")),
    ({"tags": {"nin": ["a", "b"]}}, "-" + tag("tags", "a", "b")),
    ({"tags": {"all": ["a", "b"]}}, f"{tag('tags', 'a')} {tag('tags', 'b')}"),
    ({"tags": {"eq": "a", "ne": "b"}}, f"{tag('tags', 'a')} -{tag('tags', 'b')}"),
    ({"tags": "  a "}, tag("tags", "a")),
    ({"source": "web"}, tag("source", "web")),
    ({"fact_id": "f1"}, tag("fact_id", "f1")),
    ({"document_id": "d1"}, tag("document", "d1")),
    ({"tags": "a", "source": "web"}, f"{tag('tags', 'a')} {tag('source', 'web')}"),
    ({"metadata.lang": "en"}, tag("meta", r"lang\=\"en\"")),
    ({"metadata.a.b": 1}, tag("meta", r"a\.b\=1")),
    ({"metadata.n": 1.0}, tag("meta", r"n\=1")),
    ({"metadata.n": -1.5}, tag("meta", r"n\=\-1\.5")),
    ({"metadata.n": True}, tag("meta", r"n\=true")),
    ({"metadata.n": None}, tag("meta", r"n\=null")),
    ({"metadata.n": [1, "1"]}, tag("meta", r"n\=1", r"n\=\"1\"")),
    ({"created_at": {"gt": 1}}, f"@created_at:[(1000 +inf]{W}"),
    ({"created_at": {"gte": 1}}, f"@created_at:[1000 +inf]{W}"),
    ({"created_at": {"lt": 1}}, f"@created_at:[-inf (1000]{W}"),
    ({"created_at": {"lte": 1}}, f"@created_at:[-inf 1000]{W}"),
    ({"updated_at": 1}, f"@updated_at:[1000 1000]{W}"),
    ({"updated_at": {"eq": 1.5}}, f"@updated_at:[1500 1500]{W}"),
    ({"updated_at": {"gte": -1}}, f"@updated_at:[-1000 +inf]{W}"),
    ({"created_at": {"gte": 1, "lt": 2}}, f"@created_at:[1000 +inf]{W} @created_at:[-inf (2000]{W}"),
    ({"created_at": {"gte": "1970-01-01T00:00:01Z"}}, f"@created_at:[1000 +inf]{W}"),
    ({"created_at": {"gte": "1970-01-01T02:00:01+02:00"}}, f"@created_at:[1000 +inf]{W}"),
    ({"created_at": {"gte": "1970-01-01T00:00:01"}}, f"@created_at:[1000 +inf]{W}"),
    ({"created_at": {"gte": "1970-01-02"}}, f"@created_at:[86400000 +inf]{W}"),
    ({"created_at": {"gte": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)}}, f"@created_at:[1000 +inf]{W}"),
    ({"created_at": {"gte": datetime(1970, 1, 1, 0, 0, 1)}}, f"@created_at:[1000 +inf]{W}"),
    (
        {"created_at": {"gte": datetime(1970, 1, 1, 2, 0, 1, tzinfo=timezone(timedelta(hours=2)))}},
        f"@created_at:[1000 +inf]{W}",
    ),
    ({"and": [{"tags": "a"}, {"tags": "b"}]}, f"{tag('tags', 'a')} {tag('tags', 'b')}"),
    ({"or": [{"tags": "a"}, {"tags": "b"}]}, f"(({tag('tags', 'a')})|({tag('tags', 'b')})){W}"),
    ({"or": [{"tags": "a", "source": "w"}, {"tags": "b"}]}, f"(({A_AND_W})|({tag('tags', 'b')})){W}"),
    ({"or": [{"tags": "a"}]}, tag("tags", "a")),
    ({"not": {"tags": "a"}}, f"-{tag('tags', 'a')}"),
    ({"not": {"tags": "a", "source": "w"}}, f"-{A_AND_W}"),
    ({"not": {"not": {"tags": "a"}}}, tag("tags", "a")),
    ({"not": {"tags": {"ne": "a"}}}, tag("tags", "a")),
    ({"not": {"or": [{"tags": "a"}, {"tags": "b"}]}}, f"-(({tag('tags', 'a')})|({tag('tags', 'b')})){W}"),
    # Alternatives with a negation inside are what is none of their opposites.
    ({"or": [{"tags": "a"}, {"tags": {"ne": "b"}}]}, f"-(-{tag('tags', 'a')} {tag('tags', 'b')})"),
    ({"or": [{"tags": "a", "not": {"tags": "b"}}, {"source": "w"}]}, f"-(-({A_NOT_B}) -{tag('source', 'w')})"),
    ({"or": [{"or": [{"tags": "a", "not": {"tags": "b"}}, {"source": "w"}]}, {"tags": "c"}]}, NESTED),
    (
        {"source": "w", "or": [{"not": {"tags": "a"}}, {"and": [{"tags": "b"}]}]},
        f"{tag('source', 'w')} -({tag('tags', 'a')} -{tag('tags', 'b')})",
    ),
]


@pytest.mark.parametrize(("filters", "text"), EQUAL, ids=lambda value: str(value)[:60])
def test_filter_becomes_query_text(compiler: FilterCompiler, filters: dict[str, Any], text: str) -> None:
    assert compiler.clause(filters) == text


@pytest.mark.parametrize("filters", [None, {}])
def test_no_filter_is_no_clause_but_visibility_stays(compiler: FilterCompiler, filters: Any) -> None:
    assert compiler.clause(filters) == ""
    assert compiler.compile(filters, None) == OPEN_ONLY


def test_visibility_stands_in_front_of_every_filter(compiler: FilterCompiler) -> None:
    assert compiler.compile({"tags": "a"}, None) == f"{OPEN_ONLY} {tag('tags', 'a')}"
    assert compiler.compile({"tags": "a"}, ["user:ann"]) == (
        f"{tag('principals', chr(92) + '*', chr(92).join(['user', ':ann']))} {tag('tags', 'a')}"
    )


@pytest.mark.parametrize("principals", [None, [], ()])
def test_caller_without_principals_sees_what_is_open(principals: Any) -> None:
    assert visibility_clause(principals) == OPEN_ONLY


def test_principal_cannot_break_out_of_its_clause() -> None:
    hostile = "x} | @principals:{*"

    assert visibility_clause([hostile]) == tag("principals", r"\*", r"x\}\ \|\ \@principals\:\{\*")


def test_single_value_is_repeated_so_that_its_weight_takes_effect() -> None:
    assert tag_clause("tags", ["a"]) == f"@tags:{{a|a}}{W}"
    assert tag_clause("tags", ["a", "b"]) == f"@tags:{{a|b}}{W}"


def test_every_clause_has_no_weight(compiler: FilterCompiler) -> None:
    for filters, text in EQUAL:
        assert compiler.clause(filters).count("@") + text.count("|(") == text.count(W)


@pytest.mark.parametrize("character", sorted(set(string.punctuation + " ") - {"_"}))
def test_punctuation_is_escaped(character: str) -> None:
    assert tag_clause("tags", [f"a{character}b"]) == tag("tags", f"a\\{character}b")


@pytest.mark.parametrize("character", ["_", "a", "Z", "0", "é", "語", "\u00a0", "🙂"])
def test_letters_and_what_is_not_ascii_stand_as_they_are(character: str) -> None:
    assert tag_clause("tags", [f"a{character}b"]) == tag("tags", f"a{character}b")


@given(value=st.text(st.characters(codec="ascii"), min_size=1))
@settings(max_examples=200, deadline=None, database=None)
def test_no_unescaped_character_means_anything(value: str) -> None:
    inner = tag_clause("tags", [value, "x"])[len("@tags:{") : -len(f"|x}}{W}")]

    kept: list[str] = []
    rest = iter(inner)
    for character in rest:
        if character == "\\":
            kept.append(next(rest))
        else:
            assert character.isalnum() or character == "_"
            kept.append(character)
    assert "".join(kept) == value


REFUSED: list[Any] = [
    "tags",
    ["tags"],
    7,
    {1: "a"},
    {"colour": "red"},
    {"": "red"},
    {"metadata": "x"},
    {"metadata.": "x"},
    {"principals": "user:ann"},
    {"tags": {}},
    {"tags": ""},
    {"tags": " "},
    {"tags": 7},
    {"tags": None},
    {"tags": []},
    {"tags": [[]]},
    {"tags": "a\x00b"},
    {"tags": "a\x1fb"},
    {"tags": "a\ud800"},
    {"tags": {"like": "a"}},
    {"tags": {7: "a"}},
    {"tags": {"in": "a"}},
    {"tags": {"in": []}},
    {"tags": {"all": {}}},
    {"tags": {"gt": "a"}},
    {"metadata.n": {"gte": 1}},
    {"metadata.n": {"x": 1}},
    {"metadata.n": [...]},
    {"metadata.n": float("nan")},
    {"metadata.n": float("inf")},
    {"metadata.n": "x" * 257},
    {"metadata.n": b"x"},
    {"created_at": "yesterday"},
    {"created_at": True},
    {"created_at": None},
    {"created_at": float("nan")},
    {"created_at": float("inf")},
    {"created_at": 1e13},
    {"created_at": {"ne": 1}},
    {"created_at": {"in": [1]}},
    {"created_at": [1, 2]},
    {"and": {"tags": "a"}},
    {"and": []},
    {"and": [{}]},
    {"or": "tags"},
    {"or": [{"tags": "a"}, "tags"]},
    {"not": {}},
    {"not": [{"tags": "a"}]},
    {"not": {"colour": "red"}},
]


@pytest.mark.parametrize("filters", REFUSED, ids=lambda value: repr(value)[:60])
def test_what_cannot_be_filtered_on_is_refused(compiler: FilterCompiler, filters: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        compiler.compile(filters, None)

    assert caught.value.field == "filters"


def test_refusal_does_not_repeat_long_input(compiler: FilterCompiler) -> None:
    with pytest.raises(InvalidInputError) as caught:
        compiler.clause({"x" * 10_000: 1})

    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("at_limit", "beyond"),
    [
        ({"tags": {"in": ["a"] * 7}}, {"tags": {"in": ["a"] * 8}}),
        ({f"metadata.{n}": n for n in range(8)}, {f"metadata.{n}": n for n in range(9)}),
        ({"or": [{"tags": "a"}] * 4}, {"or": [{"tags": "a"}] * 5}),
        ({"and": [{"tags": {"all": ["a"] * 6}}]}, {"and": [{"tags": {"all": ["a"] * 7}}]}),
    ],
)
def test_clauses_and_values_are_limited(compiler: FilterCompiler, at_limit: Any, beyond: Any) -> None:
    assert compiler.clause(at_limit)

    with pytest.raises(InvalidInputError) as caught:
        compiler.clause(beyond)

    assert (caught.value.field, caught.value.limit) == ("filters", 8)


def test_count_begins_anew_with_each_filter(compiler: FilterCompiler) -> None:
    for _ in range(20):
        assert compiler.clause({"tags": ["a"] * 7})


def nested(depth: int, wrap: Any) -> Any:
    filters: Any = {"tags": "a"}
    for _ in range(depth):
        filters = wrap(filters)
    return filters


@pytest.mark.parametrize("wrap", [lambda inner: {"not": inner}, lambda inner: {"and": [inner]}], ids=["not", "and"])
def test_endless_nesting_is_refused_clearly(wrap: Any) -> None:
    with pytest.raises(InvalidInputError):
        FilterCompiler(1_024).clause(nested(5_000, wrap))


def test_endless_nesting_of_llama_index_is_refused_clearly(compiler: FilterCompiler) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key="tags", value="a")])
    for _ in range(5_000):
        filters = MetadataFilters.model_construct(filters=[filters], condition=FilterCondition.AND)

    with pytest.raises(InvalidInputError):
        compiler.clause(filters)


@pytest.mark.parametrize("operator", ["eq", "gte", "lte"])
@given(milliseconds=st.integers(0, 4_000_000_000_000))
@example(milliseconds=262_143)
@example(milliseconds=524_403_117)
@settings(max_examples=200, deadline=None, database=None)
def test_time_that_a_fact_shows_is_the_time_that_is_looked_for(operator: str, milliseconds: int) -> None:
    text = FilterCompiler(8).clause({"created_at": {operator: iso_time(milliseconds)}})

    bounds = {"eq": "{0} {0}", "gte": "{0} +inf", "lte": "-inf {0}"}[operator].format(milliseconds)
    assert text == f"@created_at:[{bounds}]{W}"


@pytest.mark.parametrize(
    ("metadata", "labels"),
    [
        ({}, []),
        ({"lang": "en"}, ['lang="en"']),
        ({"a": {"b": {"c": 1}}}, ["a.b.c=1"]),
        ({"a": [1, "x", None]}, ["a=1", 'a="x"', "a=null"]),
        ({"a": (1, 1)}, ["a=1"]),
        ({"a": [[1], {"b": 2}, 3]}, ["a=3"]),
        ({"a": []}, []),
        ({"a": {}}, []),
        ({"a": 2.0, "b": 2}, ["a=2", "b=2"]),
        ({"a": True, "b": 1.5}, ["a=true", "b=1.5"]),
        ({"a": "x" * 256}, [f'a="{"x" * 256}"']),
        ({"a": "x" * 257, "b": 1}, ["b=1"]),
        ({"a": "\x1f\n é"}, ['a="\\u001f\\n \\u00e9"']),
        ({"a\x1f": 1}, ["a\\u001f=1"]),
    ],
)
def test_metadata_becomes_labels(metadata: dict[str, Any], labels: list[str]) -> None:
    assert metadata_labels(metadata) == labels


scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)


@given(value=scalars, key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10))
@settings(max_examples=200, deadline=None, database=None)
def test_filter_asks_for_the_label_that_is_stored(value: Any, key: str) -> None:
    (label,) = metadata_labels({key: value})

    assert FilterCompiler(8).clause({f"metadata.{key}": value}) == tag_clause("meta", [label])


# --- LlamaIndex -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "value", "same"),
    [
        (FilterOperator.EQ, "a", {"eq": "a"}),
        (FilterOperator.NE, "a", {"ne": "a"}),
        (FilterOperator.IN, ["a", "b"], {"in": ["a", "b"]}),
        (FilterOperator.ANY, ["a", "b"], {"in": ["a", "b"]}),
        (FilterOperator.NIN, ["a", "b"], {"nin": ["a", "b"]}),
        (FilterOperator.ALL, ["a", "b"], {"all": ["a", "b"]}),
        (FilterOperator.CONTAINS, "a", {"eq": "a"}),
    ],
)
def test_llama_index_operator_means_ours(
    compiler: FilterCompiler, operator: FilterOperator, value: Any, same: dict[str, Any]
) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key="tags", value=value, operator=operator)])

    assert compiler.clause(filters) == compiler.clause({"and": [{"tags": same}]})


@pytest.mark.parametrize(
    ("operator", "ours"),
    [(FilterOperator.GT, "gt"), (FilterOperator.GTE, "gte"), (FilterOperator.LT, "lt"), (FilterOperator.LTE, "lte")],
)
def test_llama_index_ranges_are_for_times(compiler: FilterCompiler, operator: FilterOperator, ours: str) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key="created_at", value=5, operator=operator)])

    assert compiler.clause(filters) == compiler.clause({"and": [{"created_at": {ours: 5}}]})


def test_llama_index_filters_nest(compiler: FilterCompiler) -> None:
    one, two = MetadataFilter(key="tags", value="a"), MetadataFilter(key="source", value="b")
    either = MetadataFilters(filters=[one, two], condition=FilterCondition.OR)
    neither = MetadataFilters(filters=[one, two], condition=FilterCondition.NOT)

    assert compiler.clause(MetadataFilters(filters=[one, either])) == compiler.clause(
        {"and": [{"tags": {"eq": "a"}}, {"or": [{"tags": {"eq": "a"}}, {"source": {"eq": "b"}}]}]}
    )
    assert compiler.clause(neither) == compiler.clause(
        {"not": {"or": [{"tags": {"eq": "a"}}, {"source": {"eq": "b"}}]}}
    )


def test_empty_llama_index_filters_are_none(compiler: FilterCompiler) -> None:
    assert compiler.clause(MetadataFilters(filters=[])) == ""


@pytest.mark.parametrize("operator", [FilterOperator.TEXT_MATCH, FilterOperator.IS_EMPTY])
def test_unknown_llama_index_operator_is_refused(compiler: FilterCompiler, operator: FilterOperator) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key="tags", value="a", operator=operator)])

    with pytest.raises(InvalidInputError, match="not supported"):
        compiler.clause(filters)


def test_llama_index_field_that_cannot_be_filtered_on_is_refused(compiler: FilterCompiler) -> None:
    with pytest.raises(InvalidInputError, match="colour"):
        compiler.clause(MetadataFilters(filters=[MetadataFilter(key="colour", value="red")]))
