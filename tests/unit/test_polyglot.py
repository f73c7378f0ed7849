"""Stems of sections in their own language, and of queries in those of a namespace."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowledge_base.errors import InvalidInputError
from knowledge_base.index.analysis import Analyzer
from knowledge_base.index.polyglot import MARK, NO_WORDS, Polyglot, language_of

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
fuzzed = settings(max_examples=200, deadline=None, database=None)


@pytest.fixture(scope="module")
def polyglot() -> Polyglot:
    return Polyglot()


def test_section_is_stemmed_in_its_own_language_and_says_which(polyglot: Polyglot) -> None:
    german = polyglot.section("Die Häuser sind nicht groß.", "english")
    english = polyglot.section("The houses are not big.", "german")

    assert german == "die haus sind nicht gross _german"
    assert english == "the hous are not big"
    assert (language_of(german), language_of(english)) == ("german", "english")


def test_section_that_shows_no_language_is_in_the_likely_one(polyglot: Polyglot) -> None:
    assert polyglot.section("Häuser", "german") == "haus _german"
    assert polyglot.section("Häuser", "english") == "häuser"


def test_texts_that_belong_together_show_their_language_together(polyglot: Polyglot) -> None:
    texts = ["Zimmer 12", "Der Schlüssel und die Karte", "Häuser", "wo ist die Brücke"] * 100

    assert polyglot.likely(texts, "english") == "german"
    assert polyglot.likely(["Zimmer 12", "Häuser"], "english") == "english"
    assert polyglot.likely(texts[1:2], "english") == polyglot.likely([], "english") == "english"
    assert Polyglot("french").likely(texts, "english") == "french"


@pytest.mark.parametrize("told", ["german", "finnish", "english"])
def test_told_language_is_that_of_everything(told: str) -> None:
    section = Polyglot(told).section("The houses and the cities of the world are what they are.", "french")

    assert language_of(section) == told
    assert [stem for stem in section.split() if not stem.startswith(MARK)] == Analyzer(told).stems(
        "The houses and the cities of the world are what they are."
    )


def test_unknown_language_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="german"):
        Polyglot("klingon")


@given(text=any_text)
@settings(fuzzed)
def test_no_text_says_another_language_than_its_own(text: str) -> None:
    for told in ("english", "german"):
        assert language_of(Polyglot(told).section(text + " _french", "english")) == told


@given(text=any_text)
@settings(fuzzed)
def test_query_in_one_language_is_what_its_analyzer_makes_of_it(text: str) -> None:
    analyzer = Analyzer()

    words = Polyglot().query(text, ["english"])

    assert words.asked(None) == words.asked({}) == words.stems == analyzer.query_stems(text)
    assert words.shared(text) == len(set(analyzer.query_stems(text)))


def test_query_is_stemmed_in_each_language_its_own_first(polyglot: Polyglot) -> None:
    words = polyglot.query("Wie heißen die Städte?", ["english", "german", "russian"])

    assert words.language == "german"
    assert words.forms == [["heiss", "heissen"], ["stadt", "städte"]]


@pytest.mark.parametrize(
    ("query", "languages", "stems"),
    [
        ("the man will die here", ["english", "german"], ["man", "die"]),
        ("Wo will die Frau hin?", ["english", "german"], ["frau"]),
        ("Was war das?", ["english", "german"], ["was", "war", "das"]),
        ("der die das", ["english"], ["der", "die", "das"]),
    ],
)
def test_stop_words_are_those_of_the_querys_language(
    polyglot: Polyglot, query: str, languages: list[str], stems: list[str]
) -> None:
    assert [forms[0] for forms in polyglot.query(query, languages).forms] == stems


def test_form_that_is_much_rarer_than_the_own_one_is_not_asked_for(polyglot: Polyglot) -> None:
    words = polyglot.query("les fichiers", ["french", "english"])
    own, other = words.forms[0]

    assert words.asked({own: 300, other: 6}) == [own]
    assert words.asked({own: 300, other: 75}) == [own, other]
    assert words.asked({other: 6}) == [own, other]
    assert words.asked({}) == [own, other]


def test_without_frequencies_a_clear_query_is_asked_for_in_its_own_language(polyglot: Polyglot) -> None:
    clear = polyglot.query("où sont les fichiers", ["french", "english"])
    unclear = polyglot.query("fichiers", ["french", "english"])

    assert (clear.is_clear, clear.asked(None)) == (True, ["fichi"])
    assert (unclear.is_clear, unclear.asked(None)) == (False, ["fichi", "fichier"])


def test_repeated_words_stay_repeated_in_each_language(polyglot: Polyglot) -> None:
    words = polyglot.query("Häuser, Häuser", ["german", "english"])

    assert words.stems == ["haus", "häuser", "haus", "häuser"]
    assert len(words.distinct) == 1


def test_text_shares_a_word_in_whichever_language(polyglot: Polyglot) -> None:
    words = polyglot.query("Häuser houses", ["english", "german"])

    assert words.shared("das Haus") == words.shared("a house") == words.shared("Haus Haus") == 1
    assert words.shared("a house, ein Haus") == 2
    assert words.shared("Hauses, Haus, Hausen") == 1
    assert words.shared("") == words.shared("Hütte") == 0


@pytest.mark.parametrize(("query", "text"), [("Ubung", "die Übungen"), ("ёлка", "ели, елки"), ("Äpfel", "Apfel")])
def test_word_is_shared_whatever_accent_it_begins_with(polyglot: Polyglot, query: str, text: str) -> None:
    assert polyglot.query(query, ["german", "russian", "dutch", "english"]).shared(text) == 1


@given(query=any_text, text=any_text)
@settings(fuzzed)
def test_words_are_shared_as_if_each_were_stemmed_in_each_language(query: str, text: str) -> None:
    languages = ["german", "spanish", "russian", "english", "dutch", "italian", "french", "portuguese"]
    words = Polyglot().query(query, languages)

    stems = {stem for language in languages for stem in Analyzer(language).stems(text)}
    assert words.shared(text) == sum(not word.isdisjoint(stems) for word in words.distinct)


@pytest.mark.parametrize(
    ("query", "languages", "language"),
    [
        ("the wing", ["english"], "english"),
        ("крыло самолёта", ["english"], None),
        ("крыло самолёта", ["english", "russian"], "russian"),
        ("翼の揚力", ["english", "german"], None),
        ("lift of the wing 翼", ["english"], "english"),
        ("σύνορα", ["greek"], "greek"),
        ("", ["english"], "english"),
    ],
)
def test_query_names_its_language_or_none_of_them(
    polyglot: Polyglot, query: str, languages: list[str], language: str | None
) -> None:
    assert polyglot.query(query, languages).language == language


def test_no_words_ask_for_nothing() -> None:
    assert (list(NO_WORDS.asked(None)), NO_WORDS.shared("wing"), NO_WORDS.language) == ([], 0, None)
