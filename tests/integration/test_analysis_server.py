"""What the analyzer writes as a stem is one word to the server, in documents and in queries.

Queries say VERBATIM: without it the server stems the stems again, and finds what was not asked for.
"""

# ruff: noqa: RUF001 - letters that look like others are what is tested
from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from knowledge_base.index.analysis import MAX_TOKEN_CHARS, Analyzer

TRAPS = [
    "inf nan -inf 1e5 1e+5 0x1f 007 ½ ² Ⅷ １２３ ٣٤ 1️⃣ 3.14 1,000",
    "as AS not and or limit return load weight slop inorder phonetic ismissing true false null none",
    "to be or not to be | ~ - * % $ @ : ; = > { } [ ] ( ) \" ' \\ _ __ a_b -a *b* %c% $d @e:f {g} [1 2] =>{$weight:0}",
    "don't can’t it's rock'n'roll O'Brien l'homme state-of-the-art U.S.A. C++ C# .NET user@example.org x=>y",
    "İstanbul ISPARTA ışık Straße STRASSE ẞ ǰ ΐ ŉ ﬃ ſ K Å Σίσυφος ς ᏣᎳᎩ ꮳꮃꭹ Ꙁ ꙁ Ǆ ǅ ǆ Ω ᾳ ᾼ Ა ა ⴀ Ⴀ",
    "中文分词 テスト・ケース ｶﾀｶﾅ ภาษาไทย ພາສາລາວ မြန်မာ ភាសាខ្មែរ 한국어 𠮷野家 〇 々",
    "हिन्दी العَرَبِيَّة עִבְרִית فارسی می‌خواهم বাংলা தமிழ் e\u0301 a\u0300\u0316 \u0301x",
    "👩‍👩‍👧 👍🏽 🇩🇪 ❤️ ©️ ™ ⓐ 𝔘𝔫𝔦 𝟘𝟙 \ue000 \ufffd \ufdfa \u200b\u2028\u0085\u00a0 \x01\x1f\x7f",
    "a" * 300 + " " + "é" * 300 + " " + "𝒶" * 300 + " " + "한" * 300 + " " + "\U00010400" * 300,
]

FUZZED = settings(max_examples=300, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])

letters = st.characters(categories=["L", "N", "M"])
plain = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
words = st.text(letters, min_size=1, max_size=12)
texts = st.one_of(
    st.text(plain, max_size=60),
    st.lists(words, max_size=8).map(" ".join),
    st.lists(st.one_of(words, st.text(plain, max_size=6), st.sampled_from(" ".join(TRAPS).split()))).map("".join),
)


@pytest.fixture(scope="module")
def index(redis_url: str) -> Iterator[tuple[redis.Redis, str]]:
    client = redis.Redis.from_url(redis_url, socket_timeout=10)
    name = f"analysis-{uuid.uuid4().hex}"
    schema = ["STOPWORDS", 0, "SCHEMA", "stem", "TEXT", "NOSTEM"]
    client.execute_command("FT.CREATE", name, "ON", "HASH", "PREFIX", 1, f"{name}:", *schema)
    yield client, name
    client.execute_command("FT.DROPINDEX", name, "DD")
    client.close()


def answers(client: redis.Redis, commands: list[tuple[Any, ...]]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    found: list[Any] = pipeline.execute()
    return found


@given(text=texts)
@settings(FUZZED)
@example(TRAPS[0])
@example(TRAPS[1])
@example(TRAPS[2])
@example(TRAPS[3])
@example(TRAPS[4])
@example(TRAPS[5])
@example(TRAPS[6])
@example(TRAPS[7])
@example(TRAPS[8])
def test_each_stem_of_a_stored_text_finds_it(index: tuple[redis.Redis, str], text: str) -> None:
    client, name = index
    stems = Analyzer().stems(text)
    distinct = sorted(set(stems))
    key = f"{name}:1"

    client.hset(key, "stem", " ".join(stems))
    queries = [f"@stem:{stem}" for stem in distinct]
    found = answers(client, [("FT.SEARCH", name, query, "VERBATIM", "NOCONTENT", "DIALECT", 2) for query in queries])
    understood = answers(client, [("FT.EXPLAIN", name, query, "VERBATIM", "DIALECT", 2) for query in queries])

    missed = [stem for stem, hits in zip(distinct, found, strict=True) if hits[1:] != [key.encode()]]
    changed = [stem for stem, how in zip(distinct, understood, strict=True) if how != f"@stem:{stem}\n".encode()]
    assert missed == []
    assert changed == []


@given(text=texts)
@settings(FUZZED)
def test_union_of_query_stems_is_understood(index: tuple[redis.Redis, str], text: str) -> None:
    client, name = index
    analyzer = Analyzer()
    stems = analyzer.query_stems(text)
    key = f"{name}:1"

    client.hset(key, "stem", " ".join(analyzer.stems(text)))
    query = "|".join(f"(@stem:{stem})" for stem in stems) or "*"
    hits = client.execute_command("FT.SEARCH", name, query, "VERBATIM", "NOCONTENT", "SCORER", "BM25STD", "DIALECT", 2)

    assert hits[1:] == [key.encode()]


def test_server_counts_as_many_words_as_there_are_stems(index: tuple[redis.Redis, str]) -> None:
    client, name = index
    distinct = sorted({stem for text in TRAPS for stem in Analyzer().stems(text)})
    own = f"{name}-terms"
    client.execute_command("FT.CREATE", own, "PREFIX", 1, f"{own}:", "STOPWORDS", 0, "SCHEMA", "stem", "TEXT", "NOSTEM")

    client.hset(f"{own}:1", "stem", " ".join(distinct))
    info = client.execute_command("FT.INFO", own)
    client.execute_command("FT.DROPINDEX", own, "DD")

    facts = dict(zip(info[::2], info[1::2], strict=True))
    assert int(facts[b"num_terms"]) == len(distinct)
    assert max(map(len, distinct)) == MAX_TOKEN_CHARS
