"""What callers may pass: each check names the field, what is wrong, and the limit."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, get_args

from knowledge_base.errors import InvalidInputError
from knowledge_base.keyspace import OPEN
from knowledge_base.settings import NAMESPACE_PATTERN, Limits
from knowledge_base.types import OnDuplicate, SearchMode

FACT_ID_PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,255}")
MOST_DEPTH = 32
MOST_INTEGER = 2**63
LEAST_INTEGER = -MOST_INTEGER
WALKED_BYTES = 65_536
"""Metadata of up to so many bytes is looked at as a whole, so that its other faults are told first."""

PLAIN_KINDS = frozenset({list, tuple, str, bool, int, float, type(None)})
TEN_YEARS = 10 * 366 * 86_400.0


def checked_text(field: str, value: Any, most: int) -> str:
    """Returns a text that is fit to be stored or searched for.

    Args:
        field: The argument's name.
        value: What the caller passed.
        most: Characters at most.

    Raises:
        InvalidInputError: It is no string, blank, too long, or has characters that cannot be stored.
    """
    if not isinstance(value, str):
        raise InvalidInputError(field, f"must be a string, not {type(value).__name__}")
    if len(value) > most:
        raise InvalidInputError(field, f"has {len(value)} characters, more than {most}", limit=most)
    if not value.strip():
        raise InvalidInputError(field, "must not be blank")
    refuse_unstorable(field, value)
    return value


def refuse_unstorable(field: str, value: str) -> None:
    """Refuses a text that has characters which cannot be stored, or sent to a model.

    Args:
        field: The argument's name.
        value: The text.

    Raises:
        InvalidInputError: It has NUL characters or lone surrogates.
    """
    if "\x00" in value:
        raise InvalidInputError(field, "must not contain NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(field, "must not contain lone surrogates") from None


def checked_namespace(value: Any) -> str:
    """Returns a namespace.

    Args:
        value: What the caller passed.

    Raises:
        InvalidInputError: It does not match the pattern.
    """
    if not isinstance(value, str) or not NAMESPACE_PATTERN.fullmatch(value):
        raise InvalidInputError("namespace", f"must match {NAMESPACE_PATTERN.pattern}")
    return value


def checked_fact_id(value: Any) -> str:
    """Returns a fact's id.

    Args:
        value: What the caller passed.

    Raises:
        InvalidInputError: It does not match the pattern.
    """
    if not isinstance(value, str) or not FACT_ID_PATTERN.fullmatch(value):
        raise InvalidInputError("fact_id", f"must match {FACT_ID_PATTERN.pattern}")
    return value


def checked_labels(field: str, values: Any, most: int, most_chars: int) -> list[str]:
    """Returns labels without repeats, in order.

    Args:
        field: The argument's name.
        values: What the caller passed; None for none.
        most: Labels at most.
        most_chars: Characters of one label at most.

    Raises:
        InvalidInputError: They are no list of short, printable strings.
    """
    if values is None:
        return []
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidInputError(field, "must be a list of strings")
    found: dict[str, None] = {}
    for value in values:
        found[checked_label(field, value, most_chars)] = None
        if len(found) > most:
            raise InvalidInputError(field, f"has more than {most} values", limit=most)
    return list(found)


def checked_label(field: str, value: Any, most_chars: int) -> str:
    """Returns a label, stripped.

    Args:
        field: The argument's name.
        value: What the caller passed.
        most_chars: Characters at most.

    Raises:
        InvalidInputError: It is no short, printable string.
    """
    label = checked_text(field, value, most_chars).strip()
    if any(unicodedata.category(character) == "Cc" for character in label):
        raise InvalidInputError(field, "must not contain control characters")
    return label


def checked_principals(values: Any, limits: Limits) -> list[str]:
    """Returns principals in order of name.

    Args:
        values: What the caller passed; None for none.
        limits: Gives the limits.

    Raises:
        InvalidInputError: They are no list of short, printable strings, or one is "*".
    """
    principals = checked_labels("principals", values, limits.principals, limits.label_chars)
    if OPEN in principals:
        raise InvalidInputError("principals", "'*' is reserved; leave principals out to open a fact to its namespace")
    return sorted(principals)


def checked_metadata(value: Any, limits: Limits) -> dict[str, Any]:
    """Returns a copy of metadata that is known to be JSON.

    Args:
        value: What the caller passed; None for none.
        limits: Gives the limits.

    Raises:
        InvalidInputError: It is no JSON object, too deep or too large.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInputError("metadata", f"must be a mapping, not {type(value).__name__}")
    copied = _MetadataCopier(limits.metadata_bytes).mapping(value, 1)
    size = len(encoded_json(copied).encode())
    if size > limits.metadata_bytes:
        raise InvalidInputError(
            "metadata", f"takes {size} bytes as JSON, more than {limits.metadata_bytes}", limit=limits.metadata_bytes
        )
    return copied


class _MetadataCopier:
    """Copies metadata, and counts the bytes that it takes at least: what cannot fit is refused before it costs.

    It has to be done on the event loop, since the caller's objects may change as soon as the loop has its turn. So
    exact types come first, and lists, of which alone metadata may hold tens of thousands of values, cost no call each.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = max(most, WALKED_BYTES)

    def mapping(self, values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        unstorable = False
        for key in values:
            if not isinstance(key, str) or not key:
                raise InvalidInputError("metadata", "keys must be strings that are not empty")
            # Two quotes, the colon, and at least one digit with its comma.
            self._take(len(key) + 5)
            unstorable = unstorable or not _is_plain(key)
        if unstorable:
            for key in values:
                refuse_unstorable("metadata", key)
        return {key: self._value(inner, depth + 1) for key, inner in values.items()}

    def _list(self, values: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
        if type(values) is list or type(values) is tuple:
            self._take(2 * len(values))
        else:
            values = list(self._counted(values))
        if depth == MOST_DEPTH and values:
            raise _too_deep()
        copied: list[Any] = []
        add = copied.append
        for value in values:
            kind = type(value)
            if kind is int and LEAST_INTEGER < value < MOST_INTEGER:
                add(value)
            elif kind is list or kind is tuple:
                add(self._list(value, depth + 1) if value else [])
            elif kind is str:
                self._take(len(value) + 1)
                add(value if _is_plain(value) else _storable(value))
            elif value is None or kind is bool or (kind is float and math.isfinite(value)):
                add(value)
            else:
                add(self._value(value, depth + 1))
        return copied

    def _counted(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._take(2)
            yield value

    def _value(self, value: Any, depth: int) -> Any:
        if depth > MOST_DEPTH:
            raise _too_deep()
        kind = type(value)
        if kind is dict or (kind not in PLAIN_KINDS and isinstance(value, Mapping)):
            return self.mapping(value, depth)
        if isinstance(value, list | tuple):
            return self._list(value, depth)
        if isinstance(value, str):
            self._take(len(value) + 1)
            return _storable(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int) and abs(value) < MOST_INTEGER:
            return int(value)
        if isinstance(value, float) and math.isfinite(value):
            return float(value)
        raise InvalidInputError("metadata", f"holds a value that is no JSON: {type(value).__name__}")

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise InvalidInputError("metadata", f"takes more than {self._most} bytes as JSON", limit=self._most)


def _too_deep() -> InvalidInputError:
    return InvalidInputError("metadata", f"is nested deeper than {MOST_DEPTH}", limit=MOST_DEPTH)


def _is_plain(text: str) -> bool:
    return text.isascii() and "\x00" not in text


def _storable(text: str) -> str:
    refuse_unstorable("metadata", text)
    return str(text)


def encoded_json(value: Any) -> str:
    """Returns compact JSON.

    Args:
        value: What ``checked_metadata`` gave, or labels.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def checked_number(field: str, value: Any, least: int, most: int) -> int:
    """Returns a whole number within bounds.

    Args:
        field: The argument's name.
        value: What the caller passed.
        least: The lower bound.
        most: The upper bound.

    Raises:
        InvalidInputError: It is no such number.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInputError(field, f"must be a whole number, not {type(value).__name__}")
    if not least <= value <= most:
        limit = most if value > most else least
        raise InvalidInputError(field, f"must be from {least} to {most}", limit=limit)
    return value


def checked_seconds(field: str, value: Any, most: float = 86_400.0) -> float:
    """Returns a duration in seconds.

    Args:
        field: The argument's name.
        value: Seconds, or a ``timedelta``.
        most: The upper bound in seconds.

    Raises:
        InvalidInputError: It is no duration above zero within the bound.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise InvalidInputError(field, "must be a number of seconds")
    if not 0 < value <= most:
        raise InvalidInputError(field, f"must be above 0 and at most {most:g} seconds", limit=most)
    return float(value)


def checked_score(value: Any) -> float | None:
    """Returns the least score of a hit.

    Args:
        value: From 0 to 1, or None for any.

    Raises:
        InvalidInputError: It is no such number.
    """
    return checked_share("min_score", value)


def checked_share(field: str, value: Any) -> float | None:
    """Returns a number from 0 to 1.

    Args:
        field: The argument's name.
        value: What the caller passed; None for none.

    Raises:
        InvalidInputError: It is no such number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidInputError(field, "must be a number from 0 to 1", limit=1)
    return float(value)


def checked_expiry(value: Any) -> float | None:
    """Returns after how many seconds a fact expires.

    Args:
        value: Seconds, a ``timedelta``, or None for never.

    Raises:
        InvalidInputError: It is no duration above zero, ten years at most.
    """
    return None if value is None else checked_seconds("expires_in", value, TEN_YEARS)


def checked_choice(field: str, value: Any, choices: Sequence[str]) -> None:
    """Refuses what is none of the choices.

    Args:
        field: The argument's name.
        value: What the caller passed.
        choices: What it may be.

    Raises:
        InvalidInputError: It is none of them.
    """
    if value not in choices:
        raise InvalidInputError(field, f"must be one of {', '.join(choices)}")


MODES: tuple[str, ...] = get_args(SearchMode)
ON_DUPLICATE: tuple[str, ...] = get_args(OnDuplicate)
