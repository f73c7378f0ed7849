"""What an endpoint's refusal means: whether a repeat may help, when, and what to tell."""

from __future__ import annotations

import math
import random
import time
from email.utils import parsedate_to_datetime
from typing import Any

from knowledge_base.errors import EmbeddingUnavailableError

REPEATABLE = frozenset({408, 409, 425, 429})
ABOUT_THE_TEXTS = frozenset({400, 413, 422})
"""What endpoints answer to a batch that is too large, or that holds a text which they refuse."""

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 8.0
LONGEST_RETRY_AFTER = 3_600.0
LOST = ("APIConnectionError", "ConnectError", "ReadError", "WriteError", "RemoteProtocolError", "ConnectTimeout")
"""Errors of httpx, and of the client over it, which say that a connection could not be made or was lost."""

ADVICE = {
    401: "refused the key; check KB_EMBEDDING__API_KEY",
    403: "refused the key; check KB_EMBEDDING__API_KEY",
    404: "does not know the model or the path; check KB_EMBEDDING__MODEL and KB_EMBEDDING__BASE_URL",
    413: "finds the request too large; lower KB_EMBEDDING__BATCH_SIZE or KB_CHUNKING__PASSAGE_TOKENS",
    429: "limits the requests; set KB_EMBEDDING__REQUESTS_PER_MINUTE or KB_EMBEDDING__TOKENS_PER_MINUTE",
}


def status_of(error: BaseException) -> int | None:
    """Returns the HTTP status that an error of a client carries, or None.

    Args:
        error: What a model raised.
    """
    for holder in (error, getattr(error, "response", None)):
        status = getattr(holder, "status_code", None)
        if isinstance(status, int):
            return status
    return None


def is_repeatable(error: BaseException) -> bool:
    """Tells whether the same request may succeed in a moment.

    Args:
        error: What a model raised.
    """
    status = status_of(error)
    if status is not None:
        return status in REPEATABLE or status >= 500
    return type(error).__name__ in LOST


def is_about_the_texts(error: BaseException) -> bool:
    """Tells whether the endpoint is well and refuses what it was asked: so large a batch, or one of its texts.

    Args:
        error: What a model raised.
    """
    return status_of(error) in ABOUT_THE_TEXTS


def pause_before_repeat(error: BaseException, repeats: int) -> float:
    """Returns the seconds to wait: what the endpoint asks for, else an exponential backoff with jitter.

    Args:
        error: What a model raised.
        repeats: How often the request was repeated already.
    """
    asked = _retry_after(error)
    if asked is not None:
        return asked
    # Jitter, so that processes which were refused together do not come back together.
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**repeats) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def unavailable(error: BaseException) -> EmbeddingUnavailableError:
    """Returns what callers are told, without a word of what the endpoint or the model said.

    Args:
        error: What a model raised.
    """
    status = status_of(error)
    if status is None:
        return EmbeddingUnavailableError(
            f"the embedding model failed ({type(error).__name__}); check that it is reachable and configured"
        )
    advice = ADVICE.get(status, "failed; retry in a moment" if status >= 500 else "refused the request")
    return EmbeddingUnavailableError(f"the embedding endpoint answered {status}: it {advice}")


def _retry_after(error: BaseException) -> float | None:
    headers: Any = getattr(getattr(error, "response", None), "headers", None)
    if headers is None:
        return None
    milliseconds = _seconds(headers.get("retry-after-ms"))
    seconds = _seconds(headers.get("retry-after")) if milliseconds is None else milliseconds / 1000
    return None if seconds is None else min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def _seconds(written: str | None) -> float | None:
    if written is None:
        return None
    try:
        seconds = float(written)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(written).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return None if math.isnan(seconds) else seconds
