"""Random queries and filters against the real server: never a crash, never a wrong answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge_base.errors import InvalidInputError
from tests.support.facts import found, ids
from tests.support.reference import matches
from tests.support.server import RedisServer

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

bounded = settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

WORDS = [
    "the",
    "is",
    "an",
    "parrot",
    "parrots",
    "walrus",
    "C++",
    "_",
    "a_b",
    "don't",
    "é",
    "e\u0301",
    "漢字",
    "🦜",
    "1.5",
]
SYNTAX = [*"|-~@*%(){}[]\"'`$:;,.<>=!?/\\+&^#_ \t\n", "=>", "@stem:", "@tags:{", "=>[KNN 3 @vector $v]", " | ", "%%"]

queries = st.one_of(
    st.lists(st.sampled_from(WORDS + SYNTAX), min_size=1, max_size=30).map("".join),
    st.lists(st.sampled_from(WORDS + SYNTAX), min_size=1, max_size=30).map(" ".join),
    st.text(min_size=1, max_size=60),
    st.text(alphabet=st.characters(codec="utf-8", categories=["P", "S", "Z", "Cf", "M", "N"]), min_size=1, max_size=40),
)

TAGS = [
    "a",
    "A",
    "a b",
    "a|b",
    "a,b",
    "a*",
    "*",
    "}",
    "{",
    "\\",
    "\\\\",
    '"',
    "-",
    "漢",
    "🦜",
    "$x",
    "@t:{a}",
    "a:b",
    "(a)",
]
SCALARS: list[Any] = [*TAGS, "", "1", 1, 2, -7, 1.5, True, False, None, 2**60]
FIELDS: dict[str, list[Any]] = {
    "tags": TAGS,
    "source": TAGS,
    "fact_id": ["f0", "f1", "f2", "f10", "f", "nobody"],
    "metadata.k": SCALARS,
    "metadata.deep.er": SCALARS,
}


def facts() -> list[dict[str, Any]]:
    """Facts over whose labels the filters range, chosen by arithmetic so that all combinations differ."""
    return [
        {
            "content": f"common words of number {n}",
            "fact_id": f"f{n}",
            "tags": sorted({TAGS[n % len(TAGS)], TAGS[(n * 7 + 3) % len(TAGS)]}) if n % 5 else [],
            "source": TAGS[(n * 3) % len(TAGS)] if n % 4 else None,
            "metadata": {
                "k": SCALARS[n % len(SCALARS)] if n % 3 else [SCALARS[n % len(SCALARS)], SCALARS[-1 - n % 7]],
                **({"deep": {"er": SCALARS[(n * 11) % len(SCALARS)]}} if n % 2 else {}),
            },
        }
        for n in range(40)
    ]


@st.composite
def clauses(draw: st.DrawFn) -> dict[str, Any]:
    """One field with one condition, empty lists and wrong types left out."""
    field = draw(st.sampled_from(sorted(FIELDS)))
    value = st.sampled_from(FIELDS[field])
    several = st.lists(value, min_size=1, max_size=4)
    return {
        field: draw(
            st.one_of(
                value,
                several,
                st.fixed_dictionaries({"eq": value}),
                st.fixed_dictionaries({"ne": value}),
                st.fixed_dictionaries({"in": several}),
                st.fixed_dictionaries({"nin": several}),
                st.fixed_dictionaries({"all": several}),
                st.fixed_dictionaries({"in": several, "ne": value}),
            )
        )
    }


good_filters = st.recursive(
    st.lists(clauses(), min_size=1, max_size=2).map(lambda parts: {k: v for part in parts for k, v in part.items()}),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=6,
)

anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10), st.binary(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
field_names = st.sampled_from(
    [*FIELDS, "created_at", "updated_at", "document_id", "and", "or", "not", "metadata.", "x"]
)
wild_filters = st.dictionaries(
    field_names,
    st.one_of(anything, st.dictionaries(st.sampled_from(["eq", "ne", "in", "nin", "all", "gt", "lte", "?"]), anything)),
    max_size=3,
)


@pytest.fixture
async def filled(stub_kb: KnowledgeBase) -> KnowledgeBase:
    stored = await stub_kb.store_facts(facts())
    assert stored["failed"] == []
    return stub_kb


@pytest.mark.parametrize("mode", ["text", "hybrid"])
@bounded
@given(query=queries, filters=st.one_of(st.none(), good_filters))
async def test_no_query_crashes_the_server_or_surprises_the_caller(
    filled: KnowledgeBase, redis_server: RedisServer, mode: Any, query: str, filters: Any
) -> None:
    process = redis_server.pid

    try:
        results = await filled.search(query, mode=mode, filters=filters)
    except InvalidInputError as refused:
        assert refused.field == "query"  # noqa: PT017
        assert not any(character.isalnum() for character in query)
    else:
        assert results["degraded"] == []
        assert results["complete"] is True

    assert (redis_server.alive, redis_server.pid) == (True, process)


@bounded
@given(filters=good_filters)
async def test_filter_gives_exactly_what_it_means(filled: KnowledgeBase, filters: dict[str, Any]) -> None:
    corpus = [{"id": fact["fact_id"], **fact} for fact in facts()]
    expected = {str(fact["id"]) for fact in corpus if matches(fact, filters)}

    assert await ids(filled, filters=filters) == expected
    assert set(await found(filled, "common words", top_k=100, mode="text", filters=filters)) == expected
    assert set(await found(filled, "common words", top_k=100, mode="vector", filters=filters)) == expected


@bounded
@given(filters=wild_filters)
async def test_any_filter_at_all_is_applied_or_refused(
    filled: KnowledgeBase, redis_server: RedisServer, filters: dict[str, Any]
) -> None:
    process = redis_server.pid

    try:
        facts_found = await filled.get_fact(filters=filters)
        await filled.search("common words", filters=filters)
    except InvalidInputError as refused:
        assert refused.field == "filters"  # noqa: PT017
    else:
        assert len(facts_found) <= 40

    assert (redis_server.alive, redis_server.pid) == (True, process)


@bounded
@given(content=st.text(min_size=1, max_size=300), tag=st.text(min_size=1, max_size=20))
async def test_any_text_is_kept_exactly_or_refused(stub_kb: KnowledgeBase, content: str, tag: str) -> None:
    try:
        stored = await stub_kb.store_fact(content, {tag: content}, tags=[tag], on_duplicate="update")
    except InvalidInputError as refused:
        assert refused.field in {"content", "metadata", "tags"}  # noqa: PT017
    else:
        fact = (await stub_kb.get_fact(stored["fact_id"]))[0]
        assert (fact["content"], fact["metadata"], fact["tags"]) == (content, {tag: content}, [tag.strip()])
        assert stored["fact_id"] in await ids(stub_kb, filters={"tags": tag.strip()})
