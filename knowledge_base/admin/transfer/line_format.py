"""What every format of transfer files does: entries to bytes, and bytes to entries, one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from knowledge_base.admin.transfer.bounded_json import UnreadableJsonError, bounded_json

FORMAT = "knowledge_base"
FORMAT_VERSION = 1

MOST_VALUES = 1_000_000
"""Values, those within others included, that the JSON of an entry may hold where nothing else is said."""


class BadEntryError(ValueError):
    """An entry of a file that cannot be read; the text says why."""


class Line(NamedTuple):
    """A line of a file."""

    number: int
    """From 1 on."""
    data: bytes | None
    """The line with its end; None when it is longer than may be read."""


class Record(NamedTuple):
    """The lines of one entry."""

    number: int
    """Of the first line."""
    data: bytes | None
    """All of them; None when they are longer than may be read."""


TICK = Line(0, b"")
RECORD_TICK = Record(0, b"")
"""Come after each piece of a file, whatever it is made of, so that reading can stop there; records pass them on."""


class TransferFormat(Protocol):
    """A format of transfer files."""

    preamble: bytes
    """What stands before the first entry."""

    def encoded(self, entry: Mapping[str, Any]) -> bytes:
        """Returns the lines of an entry, the header and the trailer included."""
        ...

    def is_trailer(self, line: bytes) -> bool:
        """Tells whether a line begins a trailer."""
        ...

    def records(self, lines: Iterable[Line], most: int) -> Iterator[Record]:
        """Yields what entries are made of, blank lines left out; of ``most`` bytes each."""
        ...

    def decoded(self, data: bytes, most: int = MOST_VALUES) -> dict[str, Any]:
        """Returns the entry of a record, which holds so many values at most; raises ``BadEntryError``."""
        ...


class StoredJson(str):
    """JSON that is written as it is."""


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
quoted = json.encoder.encode_basestring
"""Returns a string as JSON."""


def json_text(value: Any) -> str:
    """Returns compact JSON, which says the same each time.

    Args:
        value: Anything that JSON can say, or ``StoredJson``.

    Raises:
        ValueError: It holds a number that is not finite.
    """
    return value if type(value) is StoredJson else _encoder.encode(value)


def object_text(entry: Mapping[str, Any]) -> str:
    """Returns an entry as compact JSON.

    Args:
        entry: Plain names, and values of which some may be ``StoredJson``.

    Raises:
        ValueError: It holds a number that is not finite.
    """
    fields: list[str] = []
    for name, value in entry.items():
        # Most fields are short strings, for which the encoder takes ten times as long.
        kind = type(value)
        if kind is str:
            fields.append(f'"{name}":{quoted(value)}')
        elif kind is StoredJson or kind is int:
            fields.append(f'"{name}":{value}')
        else:
            fields.append(f'"{name}":{"null" if value is None else json_text(value)}')
    return "{" + ",".join(fields) + "}"


def json_value(text: str, most: int) -> Any:
    """Returns what JSON says.

    Args:
        text: The JSON.
        most: Values that it may hold.

    Raises:
        BadEntryError: It holds more, is no JSON, nested too deeply, or holds a number that is not finite.
    """
    try:
        return bounded_json(text, most)
    except UnreadableJsonError as error:
        raise BadEntryError(str(error)) from None


def json_entry(text: str, most: int) -> dict[str, Any]:
    """Returns the object that JSON says; see ``json_value`` for the errors.

    Args:
        text: The JSON.
        most: Values that it may hold.
    """
    value = json_value(text, most)
    if not isinstance(value, dict):
        raise BadEntryError("is no JSON object")
    return value


def utf8(data: bytes) -> str:
    """Returns text.

    Args:
        data: Its bytes.

    Raises:
        BadEntryError: They are no UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadEntryError("is no valid UTF-8") from None
