"""Folding: what repeats a passage of the same document is left out, and nothing else is."""

from __future__ import annotations

import pytest

from knowledge_base.keyspace import PartName
from knowledge_base.retrieval.folding import LEAST_WORDS, Folding

LONG = (
    "Guests may check in from three in the afternoon until ten in the evening at the desk beside the main entrance, "
    "where a night porter keeps the keys of everybody who has told the hotel before noon that a later arrival is "
    "likely, for instance because of a delayed train, and who has left a telephone number under which the porter can "
    "reach them on 3 occasions within 24 hours before the room is given away."
)


def name(position: int = 0, fact_id: str = "document") -> PartName:
    return PartName(fact_id, "1-x-9", position)


def is_folded(chosen: str, other: str, *, at: int = 5, fact_id: str = "document") -> bool:
    folding = Folding()
    folding.add(name(0), chosen)
    return folding.is_said(name(at, fact_id), other)


@pytest.mark.parametrize(
    "other",
    [
        "Opening hours: Monday to Friday, 8 to 12.",
        "OPENING HOURS\n\nMonday to Friday — 8 to 12",
        "  opening   hours monday to friday (8 to 12)  ",
        "Opening hours Monday to Friday ８ to 12",  # noqa: RUF001 - a digit of full width
    ],
)
def test_same_words_are_said_once(other: str) -> None:
    assert is_folded("Opening hours: Monday to Friday, 8 to 12.", other)


@pytest.mark.parametrize(
    ("chosen", "other"),
    [
        ("Opening hours: Monday to Friday.", "Opening hours: Monday to Thursday."),
        ("It costs 5 $.", "It costs 5 €."),
        ("We write it in C.", "We write it in C++."),
        ("Paid if x < 5.", "Paid if x > 5."),
        ("!!!", "???"),
        ("図書館は八時に開く", "図書館は九時に開く"),
    ],
)
def test_short_passages_that_say_something_else_stay(chosen: str, other: str) -> None:
    assert not is_folded(chosen, other)


def test_one_other_word_in_a_long_passage_is_no_news() -> None:
    assert is_folded(LONG, LONG.replace("delayed train", "cancelled train"))
    assert is_folded(LONG.replace("delayed train", "cancelled train"), LONG)


def test_other_number_in_a_long_passage_is_news() -> None:
    assert not is_folded(LONG, LONG.replace("24 hours", "48 hours"))


def test_part_of_a_chosen_passage_is_no_news_but_the_whole_of_a_chosen_part_is() -> None:
    half = " ".join(LONG.split()[: LEAST_WORDS + 5])

    assert is_folded(LONG, half)
    assert not is_folded(half, LONG)


def test_tenth_of_other_words_is_news() -> None:
    words = LONG.split()
    for place in range(0, len(words), 12):
        words[place] = "other"

    assert not is_folded(LONG, " ".join(words))


def test_document_of_its_own_is_folded_only_where_it_is_the_same() -> None:
    assert not is_folded(LONG, LONG.lower(), fact_id="another")
    assert is_folded(LONG, LONG.replace(" ", "\n"), fact_id="another")


@pytest.mark.parametrize("at", [-1, 1])
def test_what_neighbours_share_by_overlap_does_not_count(at: int) -> None:
    words = LONG.split()
    few = ["and", "this", "is", "new"]
    beside = words[-40:] + few if at == 1 else few + words[:40]
    folding = Folding()
    folding.add(name(3), LONG)

    assert not folding.is_said(name(3 + at), " ".join(beside))
    assert folding.is_said(name(7), " ".join(beside))


@pytest.mark.parametrize("at", [-1, 1])
def test_neighbour_that_repeats_is_folded_as_well(at: int) -> None:
    folding = Folding()
    folding.add(name(3), LONG)

    assert folding.is_said(name(3 + at), LONG.replace("delayed", "late"))
    assert folding.is_said(name(3 + at), LONG.upper())
