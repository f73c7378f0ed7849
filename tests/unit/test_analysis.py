"""What the analyzer takes for words, and what it makes of them."""

from __future__ import annotations

import threading
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowledge_base.errors import InvalidInputError
from knowledge_base.index.analysis import MAX_TOKEN_BYTES, MAX_TOKEN_CHARS, Analyzer

# ruff: noqa: RUF001 - letters that look like others are what is tested

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
fuzzed = settings(max_examples=300, deadline=None, database=None)


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    return Analyzer()


@pytest.mark.parametrize(
    ("text", "stems"),
    [
        ("Running runners ran", ["run", "runner", "ran"]),
        ("a b a", ["a", "b", "a"]),
        ("snake_case and kebab-case", ["snake", "case", "and", "kebab", "case"]),
        ("It's Newton's; they'll don't can't", ["it", "newton", "they", "dont", "cant"]),
        ("it’s O’Brien", ["it", "o", "brien"]),
        ("don't dont DON’T", ["dont", "dont", "dont"]),
        ("007 1e5 inf nan x²", ["007", "1e5", "inf", "nan", "x2"]),
        ("Straße STRASSE", ["strass", "strass"]),
        ("İstanbul ISTANBUL", ["istanbul", "istanbul"]),
        ("cafe\u0301 café", ["café", "café"]),
        ("ﬁne ＡＢＣ", ["fine", "abc"]),
        ("co\u00adoperate", ["cooper"]),
        ("हिन्दी", ["हिन्दी"]),
        ("می\u200cخواهم", ["میخواهم"]),
        ("中文分词 語", ["中文", "文分", "分词", "語"]),
        ("한국어를 배운다, 책", ["한국", "국어", "어를", "배운", "운다", "책"]),
        ("テスト・ケース", ["テス", "スト", "ケー", "ース"]),
        ("1️⃣ 👩‍👩‍👧 ™ …", ["1", "tm"]),
        ("\u0301\ufe0f _ ' '' - @ |", []),
        ("", []),
    ],
)
def test_text_becomes_stems(analyzer: Analyzer, text: str, stems: list[str]) -> None:
    assert analyzer.stems(text) == stems


def test_stop_words_are_indexed_but_not_asked_for(analyzer: Analyzer) -> None:
    assert analyzer.stems("What is the lift of a wing?") == ["what", "is", "the", "lift", "of", "a", "wing"]
    assert analyzer.query_stems("What is the lift of a wing?") == ["lift", "wing"]


@pytest.mark.parametrize("text", ["To be, or not to be?", "Who are The Who?", "it's what it's"])
def test_query_of_stop_words_alone_keeps_them(analyzer: Analyzer, text: str) -> None:
    assert analyzer.query_stems(text) == analyzer.stems(text) != []


@pytest.mark.parametrize("text", ["isn't won't couldn’t", "they're we've I'm", "dont cant"])
def test_contractions_of_stop_words_are_not_asked_for(analyzer: Analyzer, text: str) -> None:
    assert analyzer.query_stems(f"{text} wing") == ["wing"]


def test_repeated_words_stay_repeated(analyzer: Analyzer) -> None:
    assert analyzer.query_stems("wing of a wing") == ["wing", "wing"]


@pytest.mark.parametrize("letter", ["a", "é", "𝒶", "ա", "\U00010428"])
def test_long_word_is_cut(analyzer: Analyzer, letter: str) -> None:
    (stem,) = analyzer.stems(letter * 300)

    assert len(stem) <= MAX_TOKEN_CHARS
    assert len(stem.encode()) <= MAX_TOKEN_BYTES


@given(text=any_text)
@settings(fuzzed)
def test_stem_is_short_folded_and_without_punctuation(text: str) -> None:
    for stem in Analyzer().stems(text):
        assert 0 < len(stem) <= MAX_TOKEN_CHARS
        assert len(stem.encode()) <= MAX_TOKEN_BYTES
        assert all(letter.isalnum() or unicodedata.category(letter) in ("Mn", "Mc") for letter in stem)
        assert stem[0].isalnum()
        assert stem == stem.lower()


@given(text=any_text)
@settings(fuzzed)
def test_case_and_composition_make_no_difference(text: str) -> None:
    analyzer = Analyzer()

    assert analyzer.stems(unicodedata.normalize("NFD", text)) == analyzer.stems(text)
    assert analyzer.stems(text.casefold()) == analyzer.stems(text)


@given(text=any_text)
@settings(fuzzed)
def test_query_asks_only_for_what_is_indexed(text: str) -> None:
    analyzer = Analyzer()

    assert set(analyzer.query_stems(text)) <= set(analyzer.stems(text))
    assert bool(analyzer.query_stems(text)) == bool(analyzer.stems(text))


@pytest.mark.parametrize("text", ["a" + "\u0300\u0316" * 500_000, "n't's" * 200_000, "é" * 1_000_000, "'" * 1_000_000])
def test_hostile_text_of_a_million_characters_is_done(analyzer: Analyzer, text: str) -> None:
    assert len(analyzer.stems(text)) <= 200_000


def test_threads_share_an_analyzer(analyzer: Analyzer) -> None:
    text = "connections connected flying wings generally " * 200
    expected = analyzer.stems(text)
    found: list[list[str]] = []

    threads = [threading.Thread(target=lambda: found.extend(analyzer.stems(text) for _ in range(20))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [expected] * 160


def test_other_languages_have_their_own_stems_and_no_english_stop_words() -> None:
    german = Analyzer("german")

    assert german.stems("Häuser Haus") == ["haus", "haus"]
    assert german.query_stems("the Haus") == ["the", "haus"]


def test_unknown_language_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="english") as caught:
        Analyzer("klingon")

    assert caught.value.field == "language"
