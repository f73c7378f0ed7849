"""JSON Lines: one object a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from knowledge_base.admin.transfer.line_format import (
    MOST_VALUES,
    RECORD_TICK,
    TICK,
    Line,
    Record,
    json_entry,
    object_text,
    utf8,
)


class JsonLines:
    """The default format: whatever is stored, one JSON object a line."""

    preamble = b""

    def encoded(self, entry: Mapping[str, Any]) -> bytes:
        """Returns the line of an entry.

        Args:
            entry: The entry, the header and the trailer included.
        """
        return (object_text(entry) + "\n").encode()

    def is_trailer(self, line: bytes) -> bool:
        """Tells whether a line is a trailer.

        Args:
            line: The line.
        """
        return line.startswith(b'{"kind":"trailer"')

    def records(self, lines: Iterable[Line], most: int) -> Iterator[Record]:
        """Yields the lines that are not blank.

        Args:
            lines: All lines.
            most: Bytes that an entry may have; the lines have no more already.
        """
        for line in lines:
            if line is TICK:
                yield RECORD_TICK
            elif line.data is None or line.data.strip():
                yield Record(line.number, line.data)

    def decoded(self, data: bytes, most: int = MOST_VALUES) -> dict[str, Any]:
        """Returns the entry of a record.

        Args:
            data: Its line.
            most: Values that its JSON may hold.

        Raises:
            BadEntryError: It is no JSON object.
        """
        return json_entry(utf8(data), most)
