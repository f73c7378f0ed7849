"""Bad input is refused by name before anything changes; hostile queries get a correct answer or a clear refusal."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import InvalidInputError
from knowledge_base.settings import Limits
from tests.support.control import Control
from tests.support.facts import found
from tests.support.server import RedisServer

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

Call = Callable[["KnowledgeBase"], Any]
LIMITS = Limits(content_chars=1_000, metadata_bytes=200, tags=5, principals=5, query_chars=100, top_k=50, page=20)

cyclic: dict[str, Any] = {}
cyclic["self"] = cyclic
deep: Any = 1
for _ in range(100_000):
    deep = [deep]


def shown(value: Any) -> str:
    """A short form of anything, endless and bottomless values included."""
    return reprlib.repr(value)


class Text(str):
    """A subclass of str, which is a str."""

    __slots__ = ()


BAD_CONTENT = [
    "",
    " ",
    "\n\t ",
    "\u3000",
    None,
    7,
    b"bytes",
    ["list"],
    {"a": 1},
    "a\x00b",
    "\ud800",
    "a\udfffb",
    "x" * 1_001,
]
BAD_METADATA: list[Any] = [
    {"a": {1, 2}},
    {"a": object()},
    {"a": math.nan},
    {"a": [math.inf]},
    {"a": b"bytes"},
    {"a": timedelta(1)},
    {1: "a"},
    {"a": {None: 1}},
    {("a", "b"): 1},
    cyclic,
    {"a": deep},
    {"a": "x" * 300},
    {"ä" * 60: "ä" * 60},
    ["list"],
    "text",
    7,
    True,
]
BAD_LABELS: list[Any] = ["", "  ", None, 7, True, b"x", ["nested"], "a\x00", "a\nb", "\x1b[0m", "\ud800", "x" * 257]
BAD_LISTS: list[Any] = ["bare string", b"bytes", 7, {"a": 1}, True, [f"t{n}" for n in range(6)]]
BAD_SECONDS: list[Any] = [0, -1, math.nan, math.inf, -math.inf, "5", True, timedelta(0), timedelta(-1), [], 10**400]
BAD_TIMEOUTS: list[Any] = [0, -1, math.nan, math.inf, "5", True, []]
BAD_IDS: list[Any] = ["", " ", "a b", "a/b", "é", "a*", "a}", "a\n", "x" * 256, 7, b"f", ["f"], True]
BAD_COUNTS: list[Any] = [-1, 1.0, 1.5, "1", True, math.nan, [1]]
BAD_VERSIONS: list[Any] = [-1, 1.5, "1", True, math.nan]
BAD_QUERIES: list[Any] = ["", " ", "\n", 7, b"x", ["x"], "a\x00b", "\ud800", "x" * 101]

WRITES: list[tuple[str, Any, Call]] = [
    *[("content", bad, lambda kb, bad=bad: kb.store_fact(bad)) for bad in BAD_CONTENT],
    *[("content", bad, lambda kb, bad=bad: kb.update_fact("f", content=bad)) for bad in BAD_CONTENT if bad is not None],
    *[("metadata", bad, lambda kb, bad=bad: kb.store_fact("new", bad)) for bad in BAD_METADATA],
    *[("metadata", bad, lambda kb, bad=bad: kb.update_fact("f", metadata=bad)) for bad in BAD_METADATA],
    *[("tags", bad, lambda kb, bad=bad: kb.store_fact("new", tags=["good", bad])) for bad in BAD_LABELS],
    *[("tags", bad, lambda kb, bad=bad: kb.store_fact("new", tags=bad)) for bad in BAD_LISTS],
    *[("tags", bad, lambda kb, bad=bad: kb.update_fact("f", tags=bad)) for bad in BAD_LISTS],
    *[("source", bad, lambda kb, bad=bad: kb.store_fact("new", source=bad)) for bad in BAD_LABELS if bad is not None],
    *[("principals", bad, lambda kb, bad=bad: kb.store_fact("new", principals=[bad])) for bad in BAD_LABELS],
    *[("principals", bad, lambda kb, bad=bad: kb.store_fact("new", principals=bad)) for bad in BAD_LISTS],
    *[("expires_in", bad, lambda kb, bad=bad: kb.store_fact("new", expires_in=bad)) for bad in BAD_SECONDS],
    *[("fact_id", bad, lambda kb, bad=bad: kb.store_fact("new", fact_id=bad)) for bad in BAD_IDS],
    *[("fact_id", bad, lambda kb, bad=bad: kb.update_fact(bad, content="new")) for bad in [*BAD_IDS, None]],
    *[("fact_id", bad, lambda kb, bad=bad: kb.delete_fact(bad)) for bad in [*BAD_IDS, None]],
    *[
        ("on_duplicate", bad, lambda kb, bad=bad: kb.store_fact("new", on_duplicate=bad))
        for bad in ["", "replace", "Return", None, True]
    ],
    *[
        ("expected_version", bad, lambda kb, bad=bad: kb.update_fact("f", content="new", expected_version=bad))
        for bad in BAD_VERSIONS
    ],
    *[("expected_version", bad, lambda kb, bad=bad: kb.delete_fact("f", expected_version=bad)) for bad in BAD_VERSIONS],
    *[("timeout", bad, lambda kb, bad=bad: kb.store_fact("new", timeout=bad)) for bad in BAD_TIMEOUTS],
    *[("timeout", bad, lambda kb, bad=bad: kb.store_facts([{"content": "new"}], timeout=bad)) for bad in BAD_TIMEOUTS],
    *[("timeout", bad, lambda kb, bad=bad: kb.update_fact("f", content="new", timeout=bad)) for bad in BAD_TIMEOUTS],
    *[("timeout", bad, lambda kb, bad=bad: kb.delete_fact("f", timeout=bad)) for bad in BAD_TIMEOUTS],
    *[("timeout", bad, lambda kb, bad=bad: kb.delete_facts({"tags": "t"}, timeout=bad)) for bad in BAD_TIMEOUTS],
]

READS: list[tuple[str, Any, Call]] = [
    *[("query", bad, lambda kb, bad=bad: kb.search(bad)) for bad in [*BAD_QUERIES, None]],
    *[("query", bad, lambda kb, bad=bad: kb.search(bad, mode="text")) for bad in [*BAD_QUERIES, None]],
    *[("query", bad, lambda kb, bad=bad: kb.get_fact(query=bad, limit=5)) for bad in BAD_QUERIES],
    *[("top_k", bad, lambda kb, bad=bad: kb.search("x", bad)) for bad in [0, 51, None, *BAD_COUNTS]],
    *[("limit", bad, lambda kb, bad=bad: kb.get_fact(limit=bad)) for bad in [0, 21, None, *BAD_COUNTS]],
    *[("offset", bad, lambda kb, bad=bad: kb.get_fact(limit=5, offset=bad)) for bad in [10**9, None, *BAD_COUNTS]],
    *[("mode", bad, lambda kb, bad=bad: kb.search("x", mode=bad)) for bad in ["", "Hybrid", "bm25", None, 7]],
    *[("min_score", bad, lambda kb, bad=bad: kb.search("x", min_score=bad)) for bad in [math.nan, "0.5", True, []]],
    *[("fact_id", bad, lambda kb, bad=bad: kb.get_fact(bad, limit=5)) for bad in BAD_IDS],
    *[("fact_id", bad, lambda kb, bad=bad: kb.get_fact_history(bad)) for bad in [*BAD_IDS, None]],
    *[("principals", bad, lambda kb, bad=bad: kb.search("x", principals=bad)) for bad in BAD_LISTS],
    *[("principals", bad, lambda kb, bad=bad: kb.get_fact(principals=[bad], limit=5)) for bad in BAD_LABELS],
    *[("timeout", bad, lambda kb, bad=bad: kb.search("x", timeout=bad)) for bad in BAD_TIMEOUTS],
    *[("timeout", bad, lambda kb, bad=bad: kb.get_fact(timeout=bad, limit=5)) for bad in BAD_TIMEOUTS],
    *[("timeout", bad, lambda kb, bad=bad: kb.get_fact_history("f", timeout=bad)) for bad in BAD_TIMEOUTS],
    *[("timeout", bad, lambda kb, bad=bad: kb.get_stats(timeout=bad)) for bad in BAD_TIMEOUTS],
]


@pytest.fixture
async def small_kb(open_kb: Any) -> KnowledgeBase:
    """Holds one fact; its limits are low."""
    kb: KnowledgeBase = open_kb(limits=LIMITS)
    await kb.store_fact("kept as it is", {"n": 1}, tags=["t"], fact_id="f")
    return kb


@pytest.mark.parametrize("field", sorted({field for field, _, _ in WRITES}))
async def test_bad_argument_of_a_write_is_refused_and_changes_nothing(
    small_kb: KnowledgeBase, field: str, control: Control, namespace: str
) -> None:
    before = control.dump(namespace)

    for named, bad, call in WRITES:
        if named == field:
            with pytest.raises(InvalidInputError) as refused:
                pytest.fail(f"{field}={shown(bad)} was taken: {await call(small_kb)}")
            assert refused.value.field == field, f"{shown(bad)}: {refused.value}"
            assert len(str(refused.value)) < 300

    assert control.dump(namespace) == before


@pytest.mark.parametrize("field", sorted({field for field, _, _ in READS}))
async def test_bad_argument_of_a_read_is_refused(small_kb: KnowledgeBase, field: str) -> None:
    for named, bad, call in READS:
        if named == field:
            with pytest.raises(InvalidInputError) as refused:
                pytest.fail(f"{field}={shown(bad)} was taken: {await call(small_kb)}")
            assert refused.value.field == field, f"{shown(bad)}: {refused.value}"
            assert len(str(refused.value)) < 300


async def test_bad_argument_of_an_iteration_is_refused(small_kb: KnowledgeBase) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await anext(small_kb.iter_facts(principals="user:ann"))

    assert refused.value.field == "principals"


@pytest.mark.parametrize(
    ("call", "limit"),
    [
        (lambda kb: kb.store_fact("x" * 1_001), 1_000),
        (lambda kb: kb.store_fact("new", {"a": "x" * 300}), 200),
        (lambda kb: kb.store_fact("new", tags=[f"t{n}" for n in range(6)]), 5),
        (lambda kb: kb.store_fact("new", source="x" * 257), 256),
        (lambda kb: kb.search("x" * 101), 100),
        (lambda kb: kb.search("x", 51), 50),
        (lambda kb: kb.get_fact(limit=21), 20),
    ],
)
async def test_refusal_names_the_limit(small_kb: KnowledgeBase, call: Call, limit: int) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await call(small_kb)

    assert refused.value.limit == limit
    assert f"{limit}" in str(refused.value).replace(" ", "").replace(",", "").replace("_", "")


async def test_refusal_tells_nothing_of_the_content(small_kb: KnowledgeBase) -> None:
    for call in (
        lambda: small_kb.store_fact("the secret recipe\x00"),
        lambda: small_kb.store_fact("the secret recipe " * 100),
        lambda: small_kb.store_fact("new", {"secret": {1}}),
        lambda: small_kb.search("the secret recipe\x00"),
    ):
        with pytest.raises(InvalidInputError) as refused:
            await call()
        assert "secret" not in f"{refused.value!s}{refused.value!r}{refused.value.__cause__!r}"


async def test_input_at_its_limit_is_taken(small_kb: KnowledgeBase) -> None:
    content = await small_kb.store_fact("x" * 1_000)
    metadata = await small_kb.store_fact("m", {"a": "x" * 190})
    labels = await small_kb.store_fact("t", tags=["x" * 256, *"abcd"], source="y" * 256, principals=["z" * 256])
    text = await small_kb.store_fact(Text("a str subclass"))

    results = await small_kb.search("x" * 100, 50, min_score=0)
    facts = await small_kb.get_fact(limit=20, offset=0)

    assert {one["status"] for one in (content, metadata, labels, text)} == {"success"}
    assert results["hits"]
    assert len(facts) == 4


@pytest.mark.parametrize("odd", ["nul \x00 inside", "\ud800", "\x1f", "\uffff"], ids=ascii)
async def test_odd_text_in_metadata_is_kept_or_refused(small_kb: KnowledgeBase, odd: str) -> None:
    for metadata in ({"key": odd}, {odd: "value"}):
        try:
            stored = await small_kb.store_fact(f"new {metadata!r}".encode("ascii", "replace").decode(), metadata)
        except InvalidInputError as refused:
            assert refused.field == "metadata"  # noqa: PT017
        else:
            assert (await small_kb.get_fact(stored["fact_id"], limit=1))[0]["metadata"] == metadata


async def test_wrong_input_is_refused_before_the_server_is_asked(new_server: Any, open_kb: Any) -> None:
    kb = open_kb(redis_url=new_server().url)

    with pytest.raises(InvalidInputError):
        await kb.store_fact("")


OPERATORS = [
    *"|-~@*%(){}[]\"'`$:;,.<>=!?/\\+&^#_",
    *["||", "--", "~~", "@@", "**", "%%%", "()", "(", ")", "{}", "[]", "=>", "=>{$weight:0}", "''", '""', '"', "'"],
    *["@text:word", "@stem:(a|b)", "@tags:{x}", "@version:[0 inf]", "-word", "~word", "wor*", "*ord", "%word%"],
    *["w'or*'", '"exact words"', '"unbalanced', "word)", "(word", "a|b", "a |", "| a", "is | an | inverse", "-", "*"],
    *["@vector:[VECTOR_RANGE 1 $v]", "*=>[KNN 10 @vector $v]", "word=>[KNN 5 @vector $blob AS score]", "$query"],
    *["SELECT * FROM facts; DROP TABLE facts; --", "' OR '1'='1", "{{7*7}}", "${jndi:ldap://x}", "../../etc/passwd"],
    *["FT.DROPINDEX idx DD", "FLUSHALL", "\r\nFLUSHALL\r\n", "*1\r\n$8\r\nFLUSHALL\r\n", "\\", "\\\\", "\\|", "a\\"],
    *["the", "is an the", "There is an", "a", "and or not", "AND", "OR NOT", "nobody | is | the", "not"],
    *[
        "🦜",
        "🦜 🐧",
        "👩‍👩‍👧",
        "漢字",
        "日本語の文章",
        "العربية",
        "ß",
        "İstanbul",
        "e\u0301",
        "\u200b",
        "\ufeff",
        "\u202e",
    ],
    *[
        "_",
        "__",
        "_ _",
        "a_b",
        "a-b",
        "a.b",
        "a'b",
        "a\u2019b",
        "KB-4711",
        "C++",
        "C#",
        ".NET",
        "x@y.z",
        "http://x/?a=b&c",
    ],
    *["1", "1.5", "-1", "1e10", "inf", "nan", "0x1F", "1,000", "٣", "½", "word " * 2_000, "x" * 10_000, "| " * 5_000],
    *["🦜" * 5_000, "(" * 10_000, "\\" * 10_000, " ".join(f"w{n}" for n in range(1_500)), "\t\v\f word \x1c\x85"],
]


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
async def test_hostile_query_is_answered_or_refused(
    stub_kb: KnowledgeBase, mode: Any, redis_server: RedisServer
) -> None:
    await stub_kb.store_fact("The word is a parrot 🦜 of C++ and KB-4711, 漢字 too.", fact_id="f", tags=["x"])
    await stub_kb.store_fact("Hidden word.", fact_id="hidden", principals=["user:ann"])
    process = redis_server.pid

    for query in OPERATORS:
        try:
            results = await stub_kb.search(query, mode=mode, filters={"tags": "x"})
        except InvalidInputError as refused:
            assert refused.field == "query", query[:80]  # noqa: PT017
            continue
        assert results["degraded"] == [], query[:80]
        assert {hit["fact_id"] for hit in results["hits"]} <= {"f"}, query[:80]
        await stub_kb.get_fact(query=query)

    assert (redis_server.alive, redis_server.pid) == (True, process)
    assert await found(stub_kb, "parrot", mode=mode) == ["f"]


@pytest.mark.parametrize(
    "query", ["-parrot", "~parrot", "parrot*", "(parrot", '"parrot', "@x:parrot", "parrot|", "\\parrot"]
)
async def test_operator_characters_do_not_hide_the_word(stub_kb: KnowledgeBase, query: str) -> None:
    await stub_kb.store_fact("A parrot spoke.", fact_id="f")

    assert await found(stub_kb, query, mode="text") == ["f"]


@pytest.mark.parametrize("query", ["漢字", "C++", "KB-4711", "e\u0301clair", "İstanbul", "straße", "o'clock"])
async def test_words_of_any_script_are_found(stub_kb: KnowledgeBase, query: str) -> None:
    await stub_kb.store_fact(f"Something about {query} was said.", fact_id="f")
    await stub_kb.store_fact("Nothing of the kind.", fact_id="g")

    assert await found(stub_kb, query, mode="text") == ["f"]
