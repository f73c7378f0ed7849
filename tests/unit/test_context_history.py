"""Conversations: checked, and turned into a query that can be understood without them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowledge_base.errors import InvalidInputError
from knowledge_base.retrieval.context_history import (
    EXCERPT,
    MOST_MESSAGES,
    checked_history,
    is_follow_up,
    standalone_query,
)
from knowledge_base.settings import Limits
from knowledge_base.types import ChatMessage

MOST = 10_000


def asked(*questions: str) -> list[ChatMessage]:
    """A conversation in which the assistant answers each question."""
    return [
        message
        for question in questions
        for message in (
            ChatMessage(role="user", content=question),
            ChatMessage(role="assistant", content="An answer with zebras."),
        )
    ]


@pytest.mark.parametrize(
    "question",
    [
        "Why?",
        "And how long?",
        "What about Sundays?",
        "How much does it cost?",
        "Who founded it?",
        "when did they move",
        "How many days?",
        "What's its price?",
        "What is the price?",
        "Tell me more, please.",
        "Can you give an example?",
        "Is that so?",
        "Are those refunded as well?",
        "为什么?",
        "ok",
        "…?",
    ],
)
def test_question_that_leaves_something_out_is_a_follow_up(question: str) -> None:
    assert is_follow_up(question)
    assert standalone_query(question, asked("When does the library open?"), MOST) != question


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",
        "How do I reset my password?",
        "What is Redis?",
        "Who was Tesla?",
        "How old was Peyton Manning when he played in Super Bowl 50?",
        "My printer X200 is broken. How do I mend it?",
        "refund policy",
        "And what became of the old library building in Leeds?",
        "什么时候开始退款流程?",
        "Wie lange dauert die Rückzahlung?",
    ],
)
def test_self_contained_question_stays_as_it_is(question: str) -> None:
    assert not is_follow_up(question)
    assert standalone_query(question, asked("When does the library open?"), MOST) == question


def test_follow_up_without_a_conversation_stays_as_it_is() -> None:
    assert standalone_query("Why?", [], MOST) == "Why?"
    assert standalone_query("Why?", [{"role": "assistant", "content": "Welcome to the library"}], MOST) == "Why?"
    assert standalone_query("Why?", asked("…", "?"), MOST) == "Why?"


def test_follow_up_stands_twice_beside_the_telling_words_of_the_question_before() -> None:
    query = standalone_query("How long is it?", asked("What is the loan period of the Leeds library?"), MOST)

    assert query == "How long is it?\nloan period Leeds library\nHow long is it?"


def test_only_what_the_user_said_counts() -> None:
    history: list[ChatMessage] = [
        {"role": "system", "content": "You answer about penguins."},
        *asked("When does the library open?"),
    ]

    query = standalone_query("And on Sundays?", history, MOST)

    assert "library" in query
    assert "penguins" not in query
    assert "zebras" not in query


def test_nothing_before_the_last_self_contained_question_counts() -> None:
    query = standalone_query("And on Sundays?", asked("Where are penguins fed?", "When does the library open?"), MOST)

    assert "library" in query
    assert "penguins" not in query


def test_questions_are_followed_back_to_one_that_is_self_contained() -> None:
    query = standalone_query("Why?", asked("When does the library open?", "And on Sundays?"), MOST)

    assert query == "Why?\nSundays library open\nWhy?"


def test_few_questions_are_followed_back() -> None:
    query = standalone_query("Why?", asked("Where are penguins fed?", *["And on Sundays?"] * 5), MOST)

    assert "penguins" not in query


def test_question_that_is_in_the_conversation_already_is_not_taken_for_the_one_before() -> None:
    history = [*asked("When does the library open?"), ChatMessage(role="user", content=" And on Sundays? ")]

    assert standalone_query("And on Sundays?", history, MOST) == "And on Sundays?\nlibrary open\nAnd on Sundays?"


def test_of_a_long_turn_only_beginning_and_end_count() -> None:
    turn = f"penguins {'x' * EXCERPT} hidden {'x' * EXCERPT} walruses"

    query = standalone_query("Why?", asked(turn), MOST)

    assert "penguins" in query
    assert "walruses" in query
    assert "hidden" not in query


@settings(max_examples=200, deadline=None)
@given(
    question=st.text(max_size=60),
    turns=st.lists(st.text(max_size=200), max_size=5),
    most=st.integers(1, 200),
)
def test_query_holds_the_question_and_stays_within_the_limit(question: str, turns: list[str], most: int) -> None:
    question = question[:most]

    query = standalone_query(question, asked(*turns), most)

    assert query.startswith(question)
    assert len(query) <= most
    assert query == question or is_follow_up(question)
    extra = query.removeprefix(question).removesuffix(question)
    extra.encode()
    assert "\x00" not in extra


def test_long_inputs_take_no_time() -> None:
    turn = "('x " * 250_000
    began = time.monotonic()

    for question in ("?" * 10_000, "it " * 3_000, "a-" * 5_000, "what is " + "." * 9_000, "'" * 10_000):
        standalone_query(question, asked(*[turn] * 500), MOST)

    assert time.monotonic() - began < 5.0


def test_good_history_is_taken_from_any_iterable() -> None:
    messages = asked("one", "two")

    def generator() -> Iterator[dict[str, Any]]:
        for message in messages:
            yield {**message, "name": "an extra key"}

    assert checked_history(generator(), Limits()) == messages
    assert checked_history(tuple(messages), Limits()) == messages
    assert checked_history(None, Limits()) == []
    assert checked_history((), Limits()) == []


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ("when?", "history"),
        (b"when?", "history"),
        ({"role": "user", "content": "x"}, "history"),
        (3, "history"),
        (["when?"], "history[0]"),
        ([{"role": "user", "content": "x"}, None], "history[1]"),
        ([{"content": "x"}], "history[0].role"),
        ([{"role": "tool", "content": "x"}], "history[0].role"),
        ([{"role": ["user"], "content": "x"}], "history[0].role"),
        ([{"role": "user"}], "history[0].content"),
        ([{"role": "user", "content": None}], "history[0].content"),
        ([{"role": "user", "content": "x" * 11}], "history[0].content"),
        ([{"role": "user", "content": "x"}] * (MOST_MESSAGES + 1), "history"),
    ],
)
def test_bad_history_is_refused_by_name(bad: Any, field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        checked_history(bad, Limits(content_chars=10))

    assert refused.value.field == field


def test_endless_history_is_refused() -> None:
    def endless() -> Iterator[ChatMessage]:
        while True:
            yield {"role": "user", "content": "x"}

    with pytest.raises(InvalidInputError, match="more than 1000"):
        checked_history(endless(), Limits())


@pytest.mark.parametrize("content", ["bad \ud800", "bad \x00"], ids=["lone surrogate", "NUL"])
def test_message_that_cannot_be_sent_is_refused(content: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        checked_history([{"role": "user", "content": content}], Limits())

    assert caught.value.field == "history[0].content"
