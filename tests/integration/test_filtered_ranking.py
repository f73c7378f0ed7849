"""A filter that everything passes changes no ranking and no score, whatever its shape and whatever the query's form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from knowledge_base.index import text_index
from knowledge_base.index.filters import FilterCompiler
from knowledge_base.index.self_test import SelfTest, _verdicts
from knowledge_base.index.text_index import TextIndex
from knowledge_base.index.text_query import TELLING_WORDS, Form, bm25_query, telling_stems
from tests.benchmarks.collection import texts
from tests.support.control import Control
from tests.support.facts import hit_ids

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

QUESTIONS = 60
DEPTH = 50
LONG_AGO, LATER = "2001-01-01T00:00:00+00:00", "2101-01-01T00:00:00+00:00"

PASSED_BY_ALL: list[Any] = [
    None,
    {"tags": "all"},
    {"tags": ["all", "none"]},
    {"tags": {"all": ["all", "too"]}},
    {"tags": {"nin": ["none", "nobody"]}},
    {"source": "web", "metadata.lang": "en"},
    {"metadata.lang": {"ne": "de"}},
    {"metadata.half": [0, 1]},
    {"created_at": {"gte": LONG_AGO, "lt": LATER}, "updated_at": {"gt": LONG_AGO}},
    {"not": {"tags": "none"}},
    {"not": {"or": [{"tags": "none"}, {"source": "book"}]}},
    {"or": [{"metadata.half": 0}, {"metadata.half": 1}]},
    {"or": [{"tags": "all"}, {"source": "web"}, {"created_at": {"gte": LONG_AGO}}]},
    {"and": [{"tags": "all"}, {"or": [{"metadata.half": 0}, {"not": {"metadata.half": 0}}]}]},
    {"or": [{"and": [{"tags": "all"}, {"metadata.half": 0}]}, {"and": [{"tags": "too"}, {"metadata.half": 1}]}]},
    {"tags": "all", "source": "web", "metadata.lang": ["en", "fr"], "created_at": {"lt": LATER}},
    MetadataFilters(
        filters=[
            MetadataFilter(key="metadata.half", value=0),
            MetadataFilter(key="metadata.half", operator=FilterOperator.NE, value=0),
        ],
        condition=FilterCondition.OR,
    ),
    MetadataFilters(filters=[MetadataFilter(key="tags", value="none")], condition=FilterCondition.NOT),
]

Ranked = list[tuple[float, list[str]]]


@pytest.fixture
async def passages(stub_kb: KnowledgeBase) -> KnowledgeBase:
    stored = await stub_kb.store_facts(
        {
            "content": text,
            "fact_id": f"p{number}",
            "tags": ["all", "too", f"t{number % 7}"],
            "source": "web",
            "metadata": {"lang": "en", "half": number % 2},
            "principals": ["user:ann"] if number % 3 else [],
        }
        for number, text in enumerate(texts("corpus"))
    )
    assert stored["failed"] == []
    return stub_kb


def in_order(scored: list[tuple[str, float]]) -> Ranked:
    """Best first; those with equal scores, whose order means nothing, together."""
    groups: dict[float, list[str]] = {}
    for name, score in scored:
        groups.setdefault(round(score, 9), []).append(name)
    # The last group may be cut off anywhere.
    return [(score, sorted(names)) for score, names in groups.items()][:-1]


@pytest.mark.parametrize("form", ["distributed", "optional", None])
async def test_filter_that_all_pass_changes_nothing(
    passages: KnowledgeBase, control: Control, monkeypatch: pytest.MonkeyPatch, form: Form | None
) -> None:
    services = await passages._services.start()
    generation = await services.generations.current(passages.settings.namespace)
    assert generation is not None
    if form is not None:

        async def chosen(*_: Any) -> Form:
            return form

        monkeypatch.setattr(TextIndex, "_form", chosen)
    compiler = FilterCompiler(100)
    questions = [await services.finder._words(generation, text) for text in texts("queries")[:QUESTIONS]]
    start = len(generation.section_prefix) + 1

    for words in questions:
        stems = telling_stems(words.stems, 64, "")
        plain = "|".join(stem for stem, count in stems.items() for _ in range(count))
        options = ["VERBATIM", "NOCONTENT", "WITHSCORES", "SCORER", "BM25STD", "LIMIT", 0, DEPTH, "DIALECT", 2]
        reply = control.run("FT.SEARCH", generation.text_index, f"@stem:({plain})", *options)
        keys, scores = reply[1::2], reply[2::2]
        expected = in_order([(key.decode()[start:], float(one)) for key, one in zip(keys, scores, strict=True)])
        for filters in PASSED_BY_ALL:
            scope = compiler.compile(filters, ["user:ann"])
            found = await services.texts.ranked(generation, stems, scope, DEPTH)
            assert in_order([(one.node_id, one.score) for one in found]) == expected, filters


async def test_form_of_other_libraries_would_lose_words(passages: KnowledgeBase, control: Control) -> None:
    """Why the form matters, as long as this server is not mended: then the test above may use it as well."""
    services = await passages._services.start()
    generation = await services.generations.current(passages.settings.namespace)
    assert generation is not None
    scope = FilterCompiler(100).compile({"tags": "all"}, ["user:ann"])
    differing = 0
    for text in texts("queries")[:QUESTIONS]:
        stems = telling_stems((await services.finder._words(generation, text)).stems, 64, "")
        joined, distributed = (
            control.run(
                *("FT.SEARCH", generation.text_index, bm25_query(stems, scope, form), "VERBATIM", "WITHSCORES"),
                *("NOCONTENT", "SCORER", "BM25STD", "LIMIT", 0, DEPTH, "DIALECT", 2),
            )
            for form in ("joined", "distributed")
        )
        differing += joined != distributed

    assert (differing == 0) is await SelfTest(services.generations._manager).finished()


async def test_self_test_leaves_nothing_behind(passages: KnowledgeBase, control: Control) -> None:
    _verdicts.clear()
    before = (set(control.run("KEYS", "*")), set(control.run("FT._LIST")))
    test = SelfTest((await passages._services.start()).generations._manager)

    await test.finished()

    assert len(_verdicts) == 1
    assert (set(control.run("KEYS", "*")), set(control.run("FT._LIST"))) == before


async def test_server_that_scores_right_is_asked_in_the_short_form(
    passages: KnowledgeBase, monkeypatch: pytest.MonkeyPatch, control: Control
) -> None:
    """There is no mended server to be had: the verdict is given, and what follows from it is looked at."""
    expected = await passages.search("Who won Super Bowl 50?", mode="text", filters={"tags": "all"})
    services = await passages._services.start()

    async def version(_: Any) -> str:
        # The real server's verdict, which other bases may have found, is another one's.
        return "mended"

    async def equal(_: Any) -> bool:
        return True

    monkeypatch.setattr("knowledge_base.index.self_test._version", version)
    monkeypatch.setattr("knowledge_base.index.self_test._scores_are_equal", equal)
    asked: list[str] = []

    def recorded(stems: Any, scope: str, form: Form) -> str:
        asked.append(form)
        return bm25_query(stems, scope)

    monkeypatch.setattr(text_index, "bm25_query", recorded)
    _verdicts.pop("mended", None)
    monkeypatch.setattr(services.texts, "_self_test", SelfTest(services.generations._manager))
    assert await services.texts._self_test.finished()
    found = await passages.search("Who won Super Bowl 50?", mode="text", filters={"tags": "all"})
    _verdicts.pop("mended", None)

    assert asked == ["joined"]
    assert hit_ids(found) == hit_ids(expected)


async def test_user_who_may_not_create_an_index_gets_the_safe_form(new_server: Any, open_kb: Any) -> None:
    rules = "~kb:* -@all +@read +@write +@connection +@scripting +info +ft.search +ft.info +ft._list"
    server = new_server(tcp=True, acl=(f"app on >secret resetchannels {rules}",)).start()
    owner = open_kb(redis_url=server.url)
    await owner.store_fact("the wing lifts", tags=["a"])
    kb = open_kb(redis_url=server.url_for("app", "secret"))
    _verdicts.clear()

    found = await kb.search("lifting wings " + " ".join(f"word{n}" for n in range(40)), filters={"tags": "a"})
    services = await kb._services.start()

    assert len(found["hits"]) == 1
    assert not await services.texts._self_test.finished()
    assert not _verdicts


async def test_heaviest_words_of_a_long_query_are_asked_for(passages: KnowledgeBase, control: Control) -> None:
    services = await passages._services.start()
    generation = await services.generations.current(passages.settings.namespace)
    assert generation is not None
    corpus = texts("corpus")
    query = " ".join(dict.fromkeys(" ".join(corpus[:4]).split()))
    stems = (await services.finder._words(generation, query)).stems
    assert len(set(stems)) > 2 * TELLING_WORDS

    telling = await services.texts.telling(generation, stems, 64, "@tags:{all}")

    frequencies = {
        stem: control.run("FT.SEARCH", generation.text_index, f"@stem:{stem}", "VERBATIM", "LIMIT", 0, 0)[0]
        for stem in set(stems)
    }
    kept = max(frequencies[stem] for stem, count in telling.items() if stems.count(stem) == 1)
    left = [stem for stem in set(stems) - telling.keys() if stems.count(stem) == 1]
    assert len(telling) == TELLING_WORDS
    assert min(frequencies[stem] for stem in left) >= kept
