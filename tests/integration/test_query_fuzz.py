"""Random words, filters and callers against the real server: no crash, no refused query, no hit outside the filter.

``FUZZ_EXAMPLES=5000`` tries so many instead of some hundred, others each time.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from knowledge_base.index import vector_index
from knowledge_base.index.filters import FilterCompiler
from knowledge_base.index.schema import Generation
from knowledge_base.index.scope_size import COMPARE, WALK
from knowledge_base.index.text_index import TextIndex
from knowledge_base.index.text_query import Form
from knowledge_base.keyspace import PartName
from tests.integration.test_fuzz import FIELDS, SCALARS, TAGS, clauses, queries
from tests.support.control import Control
from tests.support.facts import hit_ids
from tests.support.many_facts import populate
from tests.support.reference import is_visible, matches
from tests.support.server import RedisServer

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
bounded = settings(
    max_examples=EXAMPLES,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

pytestmark = pytest.mark.timeout(180 + EXAMPLES / 5)

FACTS = 60
DAY = 86_400_000
BEGAN = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)
NAMES = ["user:ann", "user:bob", "group:ops", "**", "a|b", "}", "漢"]
COMMON = "common words"
STEMS = ["common", "word", "number", *(f"n{number % 7}" for number in range(7)), "absent", "is", "漢字"]


def created(number: int) -> int:
    return BEGAN + number * DAY


def updated(number: int) -> int:
    return created(number) + (number % 4) * DAY // 3


def fact(number: int) -> dict[str, Any]:
    """A fact, chosen by arithmetic so that all combinations of labels differ."""
    return {
        "content": f"{COMMON} of number {number} " + " ".join(f"n{number % 7}" for _ in range(number % 4)),
        "tags": sorted({TAGS[number % len(TAGS)], TAGS[(number * 7 + 3) % len(TAGS)]}) if number % 5 else [],
        "source": TAGS[(number * 3) % len(TAGS)] if number % 4 else None,
        "metadata": {
            "k": SCALARS[number % len(SCALARS)] if number % 3 else [SCALARS[number % len(SCALARS)], SCALARS[-1]],
            **({"deep": {"er": SCALARS[(number * 11) % len(SCALARS)]}} if number % 2 else {}),
        },
        "principals": sorted({NAMES[number % len(NAMES)], NAMES[number * 3 % len(NAMES)]}) if number % 3 else [],
        "created_at": created(number),
        "updated_at": updated(number),
    }


CORPUS = [
    {**fact(number), "id": f"f{number}", "created_at": created(number) / 1000, "updated_at": updated(number) / 1000}
    for number in range(FACTS)
]

moments = st.one_of(
    st.integers(0, FACTS).map(lambda number: created(number) / 1000),
    st.integers(0, FACTS).map(lambda number: datetime.fromtimestamp(updated(number) / 1000, UTC)),
    st.integers(-DAY, FACTS * DAY).map(lambda ms: datetime.fromtimestamp((BEGAN + ms) / 1000, UTC).isoformat()),
)
times = st.dictionaries(
    st.sampled_from(["created_at", "updated_at"]),
    st.dictionaries(st.sampled_from(["eq", "gt", "gte", "lt", "lte"]), moments, min_size=1, max_size=2),
    min_size=1,
)
leaves = st.lists(st.one_of(clauses(), times), min_size=1, max_size=3).map(
    lambda parts: {key: value for part in parts for key, value in part.items()}
)
mappings = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
        st.tuples(inner, st.fixed_dictionaries({"not": inner})).map(lambda two: {**two[0], **two[1]}),
    ),
    max_leaves=6,
)
callers = st.lists(st.sampled_from([*NAMES, "user:nobody", "🦜"]), max_size=3)

LLAMA_OPERATORS = {"eq": "==", "ne": "!=", "in": "in", "nin": "nin", "all": "all"}
LLAMA_ORDERS = {"eq": "==", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


@st.composite
def llama_leaves(draw: st.DrawFn) -> tuple[Any, dict[str, Any]]:
    """One of LlamaIndex's filters, and the mapping that means the same."""
    if draw(st.booleans()):
        field, operator = draw(st.sampled_from(["created_at", "updated_at"])), draw(st.sampled_from([*LLAMA_ORDERS]))
        second = (BEGAN + draw(st.integers(0, FACTS)) * DAY) // 1000
        return MetadataFilter(key=field, value=second, operator=FilterOperator(LLAMA_ORDERS[operator])), {
            field: {operator: second}
        }
    field, operator = draw(st.sampled_from(sorted(FIELDS))), draw(st.sampled_from([*LLAMA_OPERATORS]))
    # LlamaIndex takes no other types, and strings for numbers where it can.
    value = st.sampled_from([one for one in FIELDS[field] if isinstance(one, str)])
    wanted = draw(st.lists(value, min_size=1, max_size=3)) if operator in {"in", "nin", "all"} else draw(value)
    return MetadataFilter(key=field, value=wanted, operator=FilterOperator(LLAMA_OPERATORS[operator])), {
        field: {operator: wanted}
    }


def _combined(parts: list[tuple[Any, dict[str, Any]]], condition: str) -> tuple[Any, dict[str, Any]]:
    filters = MetadataFilters(filters=[part for part, _ in parts], condition=FilterCondition(condition))
    meanings = [meaning for _, meaning in parts]
    return filters, {"not": {"or": meanings}} if condition == "not" else {condition: meanings}


llama_filters = st.recursive(
    llama_leaves(),
    lambda inner: st.builds(_combined, st.lists(inner, min_size=1, max_size=3), st.sampled_from(["and", "or", "not"])),
    max_leaves=5,
).map(lambda one: one if isinstance(one[0], MetadataFilters) else _combined([one], "and"))

filters_and_meanings = st.one_of(
    st.just((None, {})),
    mappings.map(lambda mapping: (mapping, mapping)),
    mappings.map(lambda one: (one, one)),
    llama_filters,
)


def allowed(meaning: dict[str, Any], principals: list[str]) -> set[str]:
    return {one["id"] for one in CORPUS if is_visible(one, principals) and matches(one, meaning)}


def unfiltered(control: Control, generation: Generation, stems: dict[str, int]) -> dict[str, float]:
    words = "|".join(stem for stem, count in stems.items() for _ in range(count))
    options = ["VERBATIM", "NOCONTENT", "WITHSCORES", "SCORER", "BM25STD", "LIMIT", 0, 100, "DIALECT", 2]
    reply = control.run("FT.SEARCH", generation.text_index, f"@stem:({words})", *options)
    start = len(generation.section_prefix) + 1
    keys, scores = reply[1::2], reply[2::2]
    return {PartName.parse(key.decode()[start:]).fact_id: float(one) for key, one in zip(keys, scores, strict=True)}


def _field(name: str, number: int) -> Any:
    return fact(number)[name]


@pytest.fixture
async def filled(stub_kb: KnowledgeBase) -> KnowledgeBase:
    names = ("content", "tags", "source", "metadata", "principals", "created_at", "updated_at")
    fields: dict[str, Any] = {name: partial(_field, name) for name in names}
    await populate(stub_kb, FACTS, **fields)
    return stub_kb


@pytest.mark.parametrize(("mode", "attributes"), [("text", ""), ("hybrid", ""), ("vector", COMPARE), ("vector", WALK)])
@bounded
@given(query=queries.map(lambda query: query.replace("\0", "")), scope=filters_and_meanings, principals=callers)
async def test_no_hit_is_outside_of_the_filter(
    filled: KnowledgeBase,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    mode: Any,
    attributes: str,
    query: str,
    scope: Any,
    principals: list[str],
) -> None:
    monkeypatch.setattr(vector_index, "knn_attributes", lambda *_: attributes)
    process = redis_server.pid
    filters, meaning = scope
    expected = allowed(meaning, principals)

    # The first word is one that everything has.
    found = await filled.search(f"common {query}", 100, mode=mode, filters=filters, principals=principals)

    assert set(hit_ids(found)) == expected
    assert (found["degraded"], found["complete"]) == ([], True)
    assert (redis_server.alive, redis_server.pid) == (True, process)


@bounded
@given(
    stems=st.lists(st.sampled_from(STEMS), min_size=1, max_size=12),
    scope=filters_and_meanings,
    principals=callers,
)
async def test_every_form_of_a_query_gives_the_same_scores(
    filled: KnowledgeBase,
    control: Control,
    monkeypatch: pytest.MonkeyPatch,
    stems: list[str],
    scope: Any,
    principals: list[str],
) -> None:
    """What is right is what the server scores where there is no filter at all."""
    services = await filled._services.start()
    generation = await services.generations.current(filled.settings.namespace)
    assert generation is not None
    compiled = FilterCompiler(1_000).compile(scope[0], principals)
    counted = {stem: min(4, stems.count(stem)) for stem in stems}

    async def scores(form: Form) -> dict[str, float]:
        async def chosen(*_: Any) -> Form:
            return form

        monkeypatch.setattr(TextIndex, "_form", chosen)
        found = await services.texts.ranked(generation, counted, compiled, 100)
        assert all(score > 0 for score in found.scores)
        return {one.name.fact_id: one.score for one in found}

    distributed, optional = await scores("distributed"), await scores("optional")
    plain = unfiltered(control, generation, counted)

    inside = allowed(scope[1], principals)
    assert distributed == pytest.approx({fact_id: score for fact_id, score in plain.items() if fact_id in inside})
    assert optional == pytest.approx(distributed)
    # Not always right on this server, but never outside of the filter.
    assert set(await scores("joined")) == set(distributed)


NEGATED_AMONG_ALTERNATIVES: list[dict[str, Any]] = [
    {"or": [{"metadata.deep.er": "a"}, {"created_at": {"lt": created(14) / 1000}, "not": {"fact_id": "f0"}}]},
    {
        "not": {
            "or": [
                {"fact_id": {"all": ["f0", "f1"]}},
                {"created_at": {"gt": (BEGAN - 1) / 1000}, "fact_id": {"ne": "f0"}},
            ]
        }
    },
]


@pytest.mark.parametrize("mode", ["text", "vector"])
@pytest.mark.parametrize("filters", NEGATED_AMONG_ALTERNATIVES, ids=["loses", "lets through"])
async def test_negation_among_alternatives_means_what_it_says(
    filled: KnowledgeBase, filters: dict[str, Any], mode: Any
) -> None:
    """Asked as it stands, the server loses all that passes the one, and lets everything through the other."""
    found = await filled.search(COMMON, 100, mode=mode, filters=filters)
    listed = await filled.get_fact(filters=filters)

    assert set(hit_ids(found)) == {fact["id"] for fact in listed} == allowed(filters, [])


async def test_alternatives_add_nothing_to_the_score(filled: KnowledgeBase) -> None:
    """The server takes the weight from a label that stands among alternatives, where it skips ahead."""
    either = {"or": [{"fact_id": "f0"}, {"metadata.k": "A"}]}
    plain = {hit["fact_id"]: hit["scores"] for hit in (await filled.search(COMMON, 100, mode="text"))["hits"]}

    found = (await filled.search(COMMON, 100, mode="text", filters=either))["hits"]

    assert len(found) > 1
    assert {hit["fact_id"]: hit["scores"] for hit in found} == {
        hit["fact_id"]: pytest.approx(plain[hit["fact_id"]]) for hit in found
    }
