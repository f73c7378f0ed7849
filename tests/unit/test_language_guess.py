"""Which language a text is taken for."""

from __future__ import annotations

import threading

import pytest

from knowledge_base.index import language_guess
from knowledge_base.index.analysis import words_of
from knowledge_base.index.language_guess import ENGLISH, LEAD_OF_QUERY, LETTERS, LanguageGuesser, most_likely
from knowledge_base.index.stop_words import BY_LANGUAGE

# ruff: noqa: RUF001 - texts in several alphabets

TEXTS = {
    "english": "The museum is closed on Mondays, and the last tour of the day begins an hour before it closes.",
    "german": "Das Museum ist montags geschlossen, und die letzte Führung beginnt eine Stunde, bevor es schließt.",
    "french": "Le musée est fermé le lundi, et la dernière visite de la journée commence une heure avant la fermeture.",
    "spanish": "El museo está cerrado los lunes, y la última visita del día empieza una hora antes del cierre.",
    "italian": "Il museo è chiuso il lunedì, e l'ultima visita della giornata comincia un'ora prima della chiusura.",
    "portuguese": "O museu está fechado às segundas, e a última visita do dia começa uma hora antes do encerramento.",
    "dutch": "Het museum is op maandag gesloten, en de laatste rondleiding begint een uur voor het sluit.",
    "russian": "Музей закрыт по понедельникам, а последняя экскурсия начинается за час до закрытия.",
}


@pytest.fixture
def guesser() -> LanguageGuesser:
    return LanguageGuesser()


def guess(guesser: LanguageGuesser, text: str, likely: str = ENGLISH) -> str:
    return guesser.guess(words_of(text), likely)


def chosen(guesser: LanguageGuesser, query: str, likely: str, *others: str) -> str:
    return most_likely(guesser.scores(words_of(query), [likely, *others]), likely, LEAD_OF_QUERY)


@pytest.mark.parametrize("likely", LETTERS)
@pytest.mark.parametrize("language", TEXTS)
def test_sentence_shows_its_language_whatever_is_likely(guesser: LanguageGuesser, language: str, likely: str) -> None:
    assert guess(guesser, TEXTS[language], likely) == language


@pytest.mark.parametrize(
    "text",
    [
        "",
        "42",
        "Socket-Unit",
        "Der Spiegel, La Paz",
        "int sem_wait(sem_t * sem); errno -1; sem.h, sem_post, sem_open",
        "José Calderón, Sebastián Piñera, María Figueres",
        "日本語の文章です。",
    ],
)
@pytest.mark.parametrize("likely", ["english", "german"])
def test_text_that_shows_no_language_is_in_the_likely_one(guesser: LanguageGuesser, text: str, likely: str) -> None:
    assert guess(guesser, text, likely) == likely


def test_repeated_name_decides_nothing(guesser: LanguageGuesser) -> None:
    assert guess(guesser, "Los Angeles has the port. " + "Los Angeles, La Jolla. " * 200) == "english"


def test_few_foreign_words_do_not_make_a_text_foreign(guesser: LanguageGuesser) -> None:
    text = "The phrase 'der Weg ist das Ziel' is often quoted in books about what it means to be on the way to a goal."

    assert guess(guesser, text) == "english"


def test_long_text_is_looked_at_from_begin_to_end(guesser: LanguageGuesser) -> None:
    words = words_of("Copyright 2020. " * 2_000 + TEXTS["german"] * 200)

    assert guesser.guess(words, ENGLISH) == "german"


def test_query_needs_less_and_chooses_among_what_is_there(guesser: LanguageGuesser) -> None:
    query = "Türen öffnen"

    assert guess(guesser, query) == "english"
    assert chosen(guesser, query, "english", "german") == "german"
    assert chosen(guesser, query, "english", "french") == "english"


def test_language_that_cannot_be_told_is_taken_where_it_is_likely(guesser: LanguageGuesser) -> None:
    assert guess(guesser, "katu on kiinni", "finnish") == chosen(guesser, "katu on kiinni", "finnish", "german")
    assert guess(guesser, TEXTS["german"], "finnish") == "german"
    assert chosen(guesser, "katu on kiinni", "german", "finnish") == "german"


def test_threads_share_a_guesser_that_forgets(guesser: LanguageGuesser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_guess, "KNOWN_WORDS", 5)
    found: list[list[str]] = []

    def guess_all() -> None:
        found.append([guess(guesser, text) for _ in range(50) for text in TEXTS.values()])

    threads = [threading.Thread(target=guess_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [list(TEXTS) * 50] * 4


@pytest.mark.parametrize("language", BY_LANGUAGE)
def test_stop_words_are_written_as_words_are_split(language: str) -> None:
    for word in BY_LANGUAGE[language]:
        assert words_of(word) == [word]
