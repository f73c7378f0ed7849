"""The conversation before a question, and a query that can be understood without it.

A question that leaves out what was said before finds little. Of the second questions of XQuAD's paragraphs, with what
they share with the first one replaced by a pronoun, 88 % find their paragraph among the first five; with the telling
words of the first one beside them, 99 %. A self-contained question loses by such words (91 % instead of 99 %, where
the one before was about something else), so it stays as it is. Some 4 % of them are taken for one that follows; so it
stands twice then, which gives it more weight than what was said before, and nearly nothing is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, get_args

from knowledge_base.errors import InvalidInputError
from knowledge_base.facts.validation import refuse_unstorable
from knowledge_base.index.analysis import UNSPACED_RUNS
from knowledge_base.index.stop_words import BY_LANGUAGE
from knowledge_base.settings import Limits
from knowledge_base.types import ChatMessage, Role

ROLES: tuple[str, ...] = get_args(Role)

MOST_MESSAGES = 1_000

MOST_TURNS = 3
"""Earlier questions that are looked at, while each is one that follows itself."""

EXCERPT = 300
"""Characters of the beginning and of the end of an earlier turn whose words are taken."""

FEW_WORDS = 2
"""A question with fewer words of its own follows what was said before."""

FEW_LEADING_WORDS = 4
"""So does one that begins like a continuation and has fewer words of its own."""

WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
ENDING = re.compile(r"['\u2019](?:s|re|ve|ll|d|m)$")
CONTINUATION = re.compile(r"\W*(?:and|but|or|so|then|also|what about|how about|what else|why not)\b", re.IGNORECASE)
DEFINITION = re.compile(r"\W*(?:what|who)(?:['\u2019]s|\s+(?:is|are|was|were))\s+(?:an?\s+)?[^\W_]+\W*", re.IGNORECASE)

_PRONOUNS = """
it its itself they them their theirs themselves he him his himself she her hers herself this these those ones
"""
PRONOUNS = frozenset(_PRONOUNS.split())

_OF_ANY_TALK = """
many much long often far old big large late soon early high tall fast
please tell explain elaborate give show example examples detail details else thanks thank ok okay yes mean continue
"""
UNTELLING = BY_LANGUAGE["english"] | frozenset(_OF_ANY_TALK.split())


def checked_history(values: Any, limits: Limits) -> list[ChatMessage]:
    """Returns the messages of a conversation.

    Args:
        values: What the caller passed; None for none.
        limits: Gives the limits.

    Raises:
        InvalidInputError: They are no list of messages, or too many, or one is too long.
    """
    if values is None:
        return []
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidInputError("history", "must be a list of messages")
    messages = list(islice(values, MOST_MESSAGES + 1))
    if len(messages) > MOST_MESSAGES:
        raise InvalidInputError("history", f"has more than {MOST_MESSAGES} messages", limit=MOST_MESSAGES)
    return [_checked_message(f"history[{place}]", value, limits) for place, value in enumerate(messages)]


def _checked_message(field: str, value: Any, limits: Limits) -> ChatMessage:
    if not isinstance(value, Mapping):
        raise InvalidInputError(field, f"must be a mapping with role and content, not {type(value).__name__}")
    role, content = value.get("role"), value.get("content")
    if role not in ROLES:
        raise InvalidInputError(f"{field}.role", f"must be one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise InvalidInputError(f"{field}.content", f"must be a string, not {type(content).__name__}")
    if len(content) > limits.content_chars:
        raise InvalidInputError(
            f"{field}.content",
            f"has {len(content)} characters, more than {limits.content_chars}",
            limit=limits.content_chars,
        )
    refuse_unstorable(f"{field}.content", content)
    return {"role": role, "content": content}


def standalone_query(question: str, history: Sequence[ChatMessage], most: int) -> str:
    """Returns what to search for: the question, with the telling words of those before it when it needs them.

    Args:
        question: What is asked now, checked already.
        history: The conversation before it, oldest first; only what the user said counts.
        most: Characters at most.
    """
    turns = [message["content"] for message in history if message["role"] == "user"]
    if turns and turns[-1].strip() == question.strip():
        # Many add the question to the conversation before they ask.
        turns.pop()
    if not turns or not is_follow_up(question):
        return question
    words: list[str] = []
    for turn in turns[: -MOST_TURNS - 1 : -1]:
        excerpt = turn if len(turn) <= 2 * EXCERPT else f"{turn[:EXCERPT]} {turn[-EXCERPT:]}"
        words += _telling(excerpt)
        if not is_follow_up(excerpt):
            break
    return _combined(question, " ".join(words), most) if words else question


def is_follow_up(question: str) -> bool:
    """Tells whether a question leaves out what was said before it.

    So does one that has next to no words of its own, one that begins like a continuation, and one with a pronoun that
    stands for nothing named before in the same question. Words are known in English; for other languages only very
    short questions count.

    Args:
        question: The question.
    """
    own = sum(map(_weight, _telling(question)))
    if own < FEW_WORDS:
        return not (own and DEFINITION.fullmatch(question))
    if own < FEW_LEADING_WORDS and CONTINUATION.match(question):
        return True
    return _has_open_pronoun(question)


def _has_open_pronoun(question: str) -> bool:
    for place, word in enumerate(WORD.findall(question)):
        if ENDING.sub("", word.lower()) in PRONOUNS:
            return True
        if place and word[0].isupper() and word not in {"I", "I'm", "I've"}:
            # A name, which any pronoun behind it may stand for.
            return False
    return False


def _telling(text: str) -> list[str]:
    return [word for word in WORD.findall(text) if _plain(word) not in UNTELLING]


def _plain(word: str) -> str:
    return ENDING.sub("", word.lower()).replace("'", "").replace("\u2019", "")


def _weight(word: str) -> int:
    # Where a script puts no space between words, a run of characters is several.
    return len(word) // 2 if UNSPACED_RUNS.search(word) else 1


def _combined(question: str, words: str, most: int) -> str:
    room = most - len(question) - 1
    if room <= 0:
        return question
    query = f"{question}\n{words[:room]}"
    return f"{query}\n{question}" if len(query) + 1 + len(question) <= most else query
