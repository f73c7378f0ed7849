"""What an endpoint's refusal means: whether and when to ask again, and what is told."""

from __future__ import annotations

import random
import time
from email.utils import formatdate
from typing import Any

import httpx
import openai
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from knowledge_base.embedding.refusals import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    LONGEST_RETRY_AFTER,
    is_about_the_texts,
    is_repeatable,
    pause_before_repeat,
    status_of,
    unavailable,
)

SECRET = "sk-hunter2"
NOW = 1_700_000_000.0
REQUEST = httpx.Request("POST", "http://nobody.invalid/v1/embeddings")


def refusal(status: int, **headers: str) -> openai.APIStatusError:
    written = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx.Response(status, headers=written, request=REQUEST)
    return openai.APIStatusError(SECRET, response=response, body=None)


class NumberedError(Exception):
    """As clients of other makers tell a status."""

    def __init__(self, status_code: Any) -> None:
        super().__init__(SECRET)
        self.status_code = status_code


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(time, "time", lambda: NOW)
    return NOW


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (refusal(429), 429),
        (NumberedError(503), 503),
        (httpx.HTTPStatusError("", request=REQUEST, response=httpx.Response(500)), 500),
        (NumberedError("503"), None),
        (NumberedError(None), None),
        (RuntimeError("429"), None),
    ],
    ids=repr,
)
def test_status_is_found_where_clients_keep_it(error: Exception, status: int | None) -> None:
    assert status_of(error) == status


@pytest.mark.parametrize(
    ("status", "repeatable", "about_the_texts"),
    [
        (400, False, True),
        (401, False, False),
        (403, False, False),
        (404, False, False),
        (408, True, False),
        (409, True, False),
        (413, False, True),
        (422, False, True),
        (429, True, False),
        (500, True, False),
        (502, True, False),
        (503, True, False),
        (504, True, False),
        (529, True, False),
    ],
)
def test_status_tells_whether_to_ask_again(status: int, repeatable: bool, about_the_texts: bool) -> None:
    assert is_repeatable(refusal(status)) is repeatable
    assert is_about_the_texts(refusal(status)) is about_the_texts


@pytest.mark.parametrize(
    ("error", "repeatable"),
    [
        (openai.APIConnectionError(request=REQUEST), True),
        (httpx.ConnectError(""), True),
        (httpx.ReadError(""), True),
        (httpx.RemoteProtocolError(""), True),
        (openai.APITimeoutError(request=REQUEST), False),
        (httpx.ReadTimeout(""), False),
        (RuntimeError(), False),
        (ValueError(), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_lost_connection_is_repeatable_and_a_spent_timeout_is_not(error: Exception, repeatable: bool) -> None:
    assert is_repeatable(error) is repeatable
    assert not is_about_the_texts(error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "2"}, 2.0),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": "0.25"}, 0.25),
        ({"retry_after": " 3 "}, 3.0),
        ({"retry_after_ms": "150"}, 0.15),
        ({"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        ({"retry_after": formatdate(NOW + 7, usegmt=True)}, 7.0),
        ({"retry_after": formatdate(NOW - 7, usegmt=True)}, 0.0),
        ({"retry_after": "Tuesday, 14-Nov-23 22:13:27 GMT"}, 7.0),
        ({"retry_after_ms": "-5"}, 0.0),
        ({"retry_after": "1" * 400}, LONGEST_RETRY_AFTER),
        ({"retry_after": "86400"}, LONGEST_RETRY_AFTER),
        ({"retry_after_ms": "inf"}, LONGEST_RETRY_AFTER),
        ({"retry_after_ms": "soon", "retry_after": "9"}, 9.0),
    ],
    ids=str,
)
def test_endpoint_says_when_to_come_back(now: float, headers: dict[str, str], seconds: float) -> None:
    assert pause_before_repeat(refusal(429, **headers), 0) == pytest.approx(seconds)


@given(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"])), st.sampled_from(["retry_after", "retry_after_ms"])
)
@example("nan", "retry_after_ms")
@example("-1", "retry_after")
@example("", "retry_after")
@example("Wed", "retry_after")
@example("Wed, 99 Xxx 9999 99:99:99 GMT", "retry_after")
@example("Fri, 31 Dec 9999 23:59:59 -2359", "retry_after")
@example("Mon, 01 Jan 0001 00:00:00 +2359", "retry_after")
@example("Mon, 01 Jan 0001 00:00:00", "retry_after")
@example("1e999", "retry_after")
@example("0x10", "retry_after")
def test_whatever_the_endpoint_writes_the_pause_is_bounded(written: str, header: str) -> None:
    pause = pause_before_repeat(refusal(429, **{header: written}), 0)

    assert 0.0 <= pause <= LONGEST_RETRY_AFTER


@pytest.mark.parametrize("error", [refusal(503), refusal(503, retry_after="soon"), RuntimeError()], ids=str)
def test_pause_doubles_up_to_a_bound_and_varies(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda least, most: most)
    longest = [pause_before_repeat(error, repeats) for repeats in range(21)]
    monkeypatch.setattr(random, "uniform", lambda least, most: least)
    shortest = [pause_before_repeat(error, repeats) for repeats in range(21)]

    assert longest[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert max(longest) == longest[-1] == LONGEST_PAUSE
    assert all(0 < less < more for less, more in zip(shortest, longest, strict=True))


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (400, "refused the request"),
        (401, "KB_EMBEDDING__API_KEY"),
        (403, "KB_EMBEDDING__API_KEY"),
        (404, "KB_EMBEDDING__MODEL"),
        (413, "KB_EMBEDDING__BATCH_SIZE"),
        (422, "refused the request"),
        (429, "KB_EMBEDDING__REQUESTS_PER_MINUTE"),
        (500, "retry in a moment"),
        (503, "retry in a moment"),
    ],
)
def test_refusal_is_told_with_what_to_do_and_not_a_word_of_its_own(status: int, says: str) -> None:
    told = str(unavailable(refusal(status)))

    assert f"answered {status}" in told
    assert says in told
    assert SECRET not in told


def test_failure_without_a_status_is_told_by_its_kind() -> None:
    told = str(unavailable(KeyError(SECRET)))

    assert "KeyError" in told
    assert SECRET not in told
