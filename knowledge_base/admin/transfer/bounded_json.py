"""JSON that somebody brings: counted before it is read, so that neither memory nor the event loop suffers."""

from __future__ import annotations

import json
from json import decoder, scanner
from typing import Any, NoReturn

from knowledge_base.connection.giving_way import giving_way

PIECE = 32_768
"""Characters that are counted without a pause."""

EASY = 10_000
"""Values that are read at once; the reader of the standard library lets nobody else go before its end."""


class UnreadableJsonError(ValueError):
    """JSON that is refused; the text says why."""


def bounded_json(text: str, most: int) -> Any:
    """Returns what JSON says; call it in a worker thread, where it lets others go first.

    Args:
        text: The JSON.
        most: Values that it may hold, those within others included.

    Raises:
        UnreadableJsonError: It holds more, is no JSON, nested too deeply, or holds a number that is not finite.
    """
    values = len(text) if len(text) <= EASY else _count(text, most)
    if values > most:
        raise UnreadableJsonError(f"holds more than {most} values")
    reader = _quick if values <= EASY else _PATIENT
    try:
        return reader.decode(text)
    except json.JSONDecodeError as error:
        raise UnreadableJsonError(f"is no valid JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise UnreadableJsonError("is nested too deeply") from None
    except UnreadableJsonError:
        raise
    except ValueError as error:
        # A number of thousands of digits, for one.
        raise UnreadableJsonError(f"is no JSON that can be read: {error}"[:200]) from None


def _count(text: str, most: int) -> int:
    """Returns how many values there may be: each follows a bracket, a brace or a comma outside of strings."""
    count, is_inside, rest = 1, 0, ""
    for begin in giving_way(range(0, len(text), PIECE)):
        piece = (rest + text[begin : begin + PIECE]).replace("\\\\", "").replace('\\"', "")
        rest = "\\" if piece.endswith("\\") else ""
        parts = piece.removesuffix("\\").split('"')
        outside = "".join(parts[is_inside::2])
        count += outside.count(",") + outside.count("[") + outside.count("{")
        is_inside = (is_inside + len(parts) - 1) % 2
        if count > most:
            break
    return count


def _refuse_constant(name: str) -> NoReturn:
    raise UnreadableJsonError(f"holds {name}, which is no JSON")


class _PatientReader(json.JSONDecoder):
    """Reads step by step, so that other threads have their turns; ten times as slow as the usual one."""

    def __init__(self) -> None:
        super().__init__(parse_constant=_refuse_constant)
        self.parse_object = decoder.JSONObject  # type: ignore[attr-defined]
        self.parse_array = decoder.JSONArray  # type: ignore[attr-defined]
        self.scan_once = scanner.py_make_scanner(self)  # type: ignore[attr-defined]


_quick = json.JSONDecoder(parse_constant=_refuse_constant)
_PATIENT = _PatientReader()
