"""Filters: each means the same in every read path, and what cannot be filtered on is refused."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from knowledge_base.errors import InvalidInputError
from knowledge_base.settings import Limits
from tests.support.facts import found, ids

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

CORPUS: list[dict[str, Any]] = [
    {"fact_id": "a", "tags": ["red"], "source": "web", "metadata": {"lang": "en", "n": 1, "deep": {"er": {"k": "x"}}}},
    {"fact_id": "b", "tags": ["red", "blue"], "source": "book", "metadata": {"lang": "de", "n": 2, "ok": True}},
    {"fact_id": "c", "tags": ["blue"], "source": "web", "metadata": {"lang": ["en", "fr"], "ok": False, "part": 1.5}},
    {"fact_id": "d", "tags": ["green sea"], "metadata": {"lang": None, "n": 10, "deep": {"er": {"k": "y"}}}},
    {"fact_id": "e"},
]

MEANINGS: list[tuple[dict[str, Any], str]] = [
    ({"tags": "red"}, "ab"),
    ({"tags": ["red", "blue"]}, "abc"),
    ({"tags": {"in": ["red", "green sea"]}}, "abd"),
    ({"tags": {"all": ["red", "blue"]}}, "b"),
    ({"tags": {"ne": "red"}}, "cde"),
    ({"tags": {"nin": ["red", "blue"]}}, "de"),
    ({"tags": "green"}, ""),
    ({"tags": "Red"}, ""),
    ({"source": "web"}, "ac"),
    ({"source": ["web", "book"]}, "abc"),
    ({"source": {"ne": "web"}}, "bde"),
    ({"fact_id": "d"}, "d"),
    ({"fact_id": ["d", "e", "zz"]}, "de"),
    ({"document_id": "no-such-document"}, ""),
    ({"metadata.lang": "en"}, "ac"),
    ({"metadata.lang": ["de", "fr"]}, "bc"),
    ({"metadata.lang": {"all": ["en", "fr"]}}, "c"),
    ({"metadata.lang": None}, "d"),
    ({"metadata.n": 1}, "a"),
    ({"metadata.n": [1, 10]}, "ad"),
    ({"metadata.n": "1"}, ""),
    ({"metadata.n": True}, ""),
    ({"metadata.ok": True}, "b"),
    ({"metadata.ok": False}, "c"),
    ({"metadata.ok": "true"}, ""),
    ({"metadata.part": 1.5}, "c"),
    ({"metadata.deep.er.k": "x"}, "a"),
    ({"metadata.deep.er.k": {"in": ["x", "y"]}}, "ad"),
    ({"metadata.deep.k": "x"}, ""),
    ({"metadata.unheard": "x"}, ""),
    ({"tags": "red", "source": "web"}, "a"),
    ({"and": [{"tags": "blue"}, {"source": "web"}]}, "c"),
    ({"or": [{"tags": "green sea"}, {"source": "book"}]}, "bd"),
    ({"not": {"source": "web"}}, "bde"),
    ({"not": {"tags": "red", "source": "web"}}, "bcde"),
    ({"or": [{"and": [{"tags": "red"}, {"not": {"tags": "blue"}}]}, {"metadata.n": 10}]}, "ad"),
    ({"not": {"or": [{"tags": "red"}, {"tags": "blue"}]}}, "de"),
    ({"not": {"not": {"tags": "red"}}}, "ab"),
    ({"source": "web", "or": [{"metadata.n": 1}, {"metadata.n": 2}]}, "a"),
    ({"source": "web", "not": {"metadata.n": 1}}, "c"),
]


@pytest.fixture
async def filled(stub_kb: KnowledgeBase) -> KnowledgeBase:
    stored = await stub_kb.store_facts([{"content": f"common words of {item['fact_id']}", **item} for item in CORPUS])
    assert stored["succeeded"] == len(CORPUS)
    return stub_kb


@pytest.mark.parametrize(("filters", "expected"), MEANINGS, ids=lambda value: str(value) or "nothing")
async def test_filter_means_the_same_everywhere(filled: KnowledgeBase, filters: dict[str, Any], expected: str) -> None:
    listed = await ids(filled, filters=filters)
    by_words = await ids(filled, query="common", filters=filters)
    iterated = [fact["id"] async for fact in filled.iter_facts(filters=filters)]
    searched = {mode: await found(filled, "common words", mode=mode, filters=filters) for mode in ("text", "vector")}
    searched["hybrid"] = await found(filled, "common words", filters=filters)
    would_go = await filled.delete_facts(filters, dry_run=True)

    assert listed == set(expected)
    assert by_words == set(expected)
    assert sorted(iterated) == sorted(expected)
    assert {mode: sorted(hits) for mode, hits in searched.items()} == dict.fromkeys(searched, sorted(expected))
    assert would_go["succeeded"] == len(expected)


async def test_filter_works_with_limit_and_offset(filled: KnowledgeBase) -> None:
    pages = [
        [fact["id"] for fact in await filled.get_fact(filters={"tags": ["red", "blue"]}, limit=2, offset=offset)]
        for offset in (0, 2)
    ]

    assert pages == [["c", "b"], ["a"]]


async def test_filter_follows_an_update(filled: KnowledgeBase) -> None:
    await filled.update_fact("a", tags=["violet"], metadata={"lang": "it"})

    assert await ids(filled, filters={"tags": "red"}) == {"b"}
    assert await ids(filled, filters={"tags": "violet"}) == {"a"}
    for mode in ("hybrid", "vector", "text"):
        assert await found(filled, "common words", mode=mode, filters={"metadata.lang": "it"}) == ["a"]
        assert sorted(await found(filled, "common words", mode=mode, filters={"metadata.lang": "en"})) == ["c"]


def as_text(moment: datetime) -> str:
    return moment.isoformat()


def as_zulu(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def as_elsewhere(moment: datetime) -> datetime:
    return moment.astimezone(timezone(timedelta(hours=5, minutes=45)))


@pytest.mark.parametrize("form", [as_text, as_zulu, as_elsewhere, lambda moment: moment, datetime.timestamp])
@pytest.mark.parametrize("field", ["created_at", "updated_at"])
async def test_date_range_is_exact_at_its_ends(stub_kb: KnowledgeBase, field: str, form: Any) -> None:
    for number in range(5):
        await stub_kb.store_fact(f"words {number}", fact_id=str(number))
    facts = {fact["id"]: fact for fact in await stub_kb.get_fact()}
    one, three = (form(datetime.fromisoformat(str(facts[key][field]))) for key in ("1", "3"))  # type: ignore[literal-required]

    async def within(**bounds: Any) -> set[str]:
        listed = await ids(stub_kb, filters={field: bounds})
        assert set(await found(stub_kb, "words", filters={field: bounds})) == listed
        return listed

    assert await within(gte=one) == {"1", "2", "3", "4"}
    assert await within(gt=one) == {"2", "3", "4"}
    assert await within(lte=three) == {"0", "1", "2", "3"}
    assert await within(lt=three) == {"0", "1", "2"}
    assert await within(gte=one, lt=three) == {"1", "2"}
    assert await within(gt=three, lt=one) == set()


async def test_updated_at_follows_an_update(stub_kb: KnowledgeBase) -> None:
    for name in ("old", "new"):
        await stub_kb.store_fact(f"words {name}", fact_id=name)
    updated = await stub_kb.update_fact("old", metadata={"n": 1})

    assert await ids(stub_kb, filters={"updated_at": {"gte": updated["updated_at"]}}) == {"old"}
    assert await ids(stub_kb, filters={"created_at": {"gte": updated["updated_at"]}}) == set()


HOSTILE = [
    *["*", "**", "a*", "*a", "abc", "ab", "a", "A", "?", "%", "%a%", "a%", "}", "{", "{a}", "a}|{b", "|", "a|b", "b"],
    *["\\", "\\\\", "a\\", "\\*", "\\}", '"', "'", '"a"', "a b", "a  b", "a,b", ",", ";", "a;b", ":", "a:b", "-", "-a"],
    *["~a", "@a", "@tags:{a}", "$a", "=>{$weight:0}", "(a)", "[1 2]", "<=", "a=b", "!", "#", "&", "^", "`", ".", "/"],
    *["漢字", "🦜", "é", "e\u0301", "ß", "ss", "İ", "a\u00a0b", "null", "none", "true", "1", "0", "__missing__", "an"],
    *["x" * 255, "x" * 256, "SELECT 1; --", "kb:{a}:fact:b", "ns}", "a\u200bb"],
]


@pytest.mark.parametrize("place", ["tags", "source", "metadata.value"])
async def test_hostile_value_matches_itself_only(stub_kb: KnowledgeBase, place: str) -> None:
    def item(number: int, value: str) -> dict[str, Any]:
        labels: dict[str, dict[str, Any]] = {
            "tags": {"tags": [value]},
            "source": {"source": value},
            "metadata.value": {"metadata": {"value": value}},
        }
        return {"content": f"common {number}", "fact_id": str(number), **labels[place]}

    stored = await stub_kb.store_facts([item(number, value) for number, value in enumerate(HOSTILE)])
    assert stored["failed"] == []

    for number, value in enumerate(HOSTILE):
        assert await ids(stub_kb, filters={place: value}) == {str(number)}, value
        assert await found(stub_kb, "common", mode="text", filters={place: value}) == [str(number)], value
        assert await found(stub_kb, "common", mode="vector", filters={place: [value]}) == [str(number)], value


async def test_metadata_values_of_different_types_are_different(stub_kb: KnowledgeBase) -> None:
    values: list[Any] = ["1", 1, True, "true", "True", None, "None", "null", 1.5, "1.5", 0, False, "0", "", " ", " 1"]
    values += [-1, "-1", 2**53, 2**53 + 1, 2**63 - 1, -0.1, 1e-9, "y" * 255, "y" * 256]
    await stub_kb.store_facts(
        {"content": f"common {number}", "fact_id": str(number), "metadata": {"value": value}}
        for number, value in enumerate(values)
    )

    for number, value in enumerate(values):
        assert await ids(stub_kb, filters={"metadata.value": value}) == {str(number)}, value
        assert await found(stub_kb, "common", mode="vector", filters={"metadata.value": value}) == [str(number)], value


@pytest.mark.parametrize("key", ["größe", "with space", "a-b", "漢", "$set", "@x", "k|v", "k}", "_node_content", "id"])
async def test_any_metadata_key_can_be_filtered_on(stub_kb: KnowledgeBase, key: str) -> None:
    await stub_kb.store_fact("one", {key: "x"}, fact_id="one")
    await stub_kb.store_fact("two", {key: "y"}, fact_id="two")

    assert await ids(stub_kb, filters={f"metadata.{key}": "x"}) == {"one"}
    assert await found(stub_kb, "one two", mode="vector", filters={f"metadata.{key}": "y"}) == ["two"]


LLAMA_MEANINGS: list[tuple[MetadataFilters, str]] = [
    (MetadataFilters(filters=[MetadataFilter(key="tags", value="red")]), "ab"),
    (
        MetadataFilters(
            filters=[MetadataFilter(key="tags", value="red"), MetadataFilter(key="source", value="web")],
            condition=FilterCondition.OR,
        ),
        "abc",
    ),
    (
        MetadataFilters(
            filters=[MetadataFilter(key="tags", value="red"), MetadataFilter(key="source", value="web")],
            condition=FilterCondition.AND,
        ),
        "a",
    ),
    (
        MetadataFilters(filters=[MetadataFilter(key="source", value="web")], condition=FilterCondition.NOT),
        "bde",
    ),
    (
        MetadataFilters(
            filters=[MetadataFilter(key="metadata.lang", operator=FilterOperator.IN, value=["de", "fr"])],
        ),
        "bc",
    ),
    (MetadataFilters(filters=[MetadataFilter(key="source", operator=FilterOperator.NE, value="web")]), "bde"),
    (
        MetadataFilters(
            filters=[
                MetadataFilter(key="metadata.n", value=1),
                MetadataFilters(filters=[MetadataFilter(key="tags", value="green sea")]),
            ],
            condition=FilterCondition.OR,
        ),
        "ad",
    ),
]


@pytest.mark.parametrize(("filters", "expected"), LLAMA_MEANINGS)
async def test_llama_index_filters_mean_the_same(
    filled: KnowledgeBase, filters: MetadataFilters, expected: str
) -> None:
    assert await ids(filled, filters=filters) == set(expected)
    assert sorted(await found(filled, "common", filters=filters)) == sorted(expected)


REFUSED: list[Any] = [
    {"colour": "red"},
    {"content": "x"},
    {"metadata": "x"},
    {"metadata.": "x"},
    {"principals": "user:ann"},
    {"namespace": "other"},
    {"": "x"},
    {1: "x"},
    {"tags": {"like": "r%"}},
    {"tags": {"gt": "a"}},
    {"source": {"gte": "a", "lt": "b"}},
    {"metadata.n": {"gt": 3}},
    {"metadata.n": {"eq": {"a": 1}}},
    {"metadata.n": float("nan")},
    {"metadata.n": "y" * 3_000},
    {"tags": {}},
    {"tags": 7},
    {"source": [None, ...]},
    {"created_at": {"gte": "yesterday"}},
    {"created_at": {"gte": None}},
    {"created_at": {"gte": True}},
    {"created_at": {"gte": float("inf")}},
    {"created_at": {"all": ["2024-01-01"]}},
    {"and": {"tags": "red"}},
    {"or": "red"},
    {"or": [["tags", "red"]]},
    {"not": [{"tags": "red"}]},
    {"and": [{"colour": "red"}]},
    {"not": {"colour": "red"}},
    {"tags": "\x00"},
    {"source": "\ud800"},
    ["tags", "red"],
    "tags",
    7,
    MetadataFilters(filters=[MetadataFilter(key="colour", value="red")]),
    MetadataFilters(filters=[MetadataFilter(key="source", operator=FilterOperator.TEXT_MATCH, value="w")]),
    MetadataFilters(filters=[MetadataFilter(key="metadata.n", operator=FilterOperator.GT, value=1)]),
]


@pytest.mark.parametrize("filters", REFUSED, ids=repr)
async def test_filter_that_cannot_be_applied_is_refused_everywhere(filled: KnowledgeBase, filters: Any) -> None:
    async def iterate() -> list[Any]:
        return [fact async for fact in filled.iter_facts(filters=filters)]

    calls = [
        lambda: filled.get_fact(filters=filters),
        lambda: filled.get_fact(query="common", filters=filters),
        lambda: filled.search("common", filters=filters),
        lambda: filled.search("common", mode="vector", filters=filters),
        lambda: filled.search("common", mode="text", filters=filters),
        lambda: filled.delete_facts(filters),
        iterate,
    ]
    for call in calls:
        with pytest.raises(InvalidInputError) as refused:
            await call()
        assert refused.value.field == "filters"
    assert await ids(filled) == set("abcde")


async def test_filter_of_too_many_clauses_is_refused(open_kb: Any) -> None:
    kb = open_kb(limits=Limits(filter_clauses=4))
    await kb.store_fact("words", tags=["t3"])

    assert len(await kb.get_fact(filters={"tags": ["t1", "t3"]})) == 1
    for filters in ({"tags": [f"t{n}" for n in range(5)]}, {"or": [{"tags": f"t{n}"} for n in range(5)]}):
        with pytest.raises(InvalidInputError, match="filters"):
            await kb.get_fact(filters=filters)


async def test_filter_nested_without_end_is_refused(filled: KnowledgeBase) -> None:
    deep: dict[str, Any] = {"tags": "red"}
    for _ in range(5_000):
        deep = {"not": deep}
    endless: dict[str, Any] = {}
    endless["not"] = endless

    for filters in (deep, endless):
        with pytest.raises(InvalidInputError, match="filters"):
            await filled.search("common", filters=filters)


@pytest.mark.parametrize("filters", [{"tags": []}, {"source": {"in": []}}, {"or": []}, {"metadata.lang": []}], ids=str)
async def test_any_of_nothing_matches_nothing(filled: KnowledgeBase, filters: dict[str, Any]) -> None:
    listed: set[str] = set()

    with contextlib.suppress(InvalidInputError):
        listed = await ids(filled, filters=filters)

    assert listed == set()
