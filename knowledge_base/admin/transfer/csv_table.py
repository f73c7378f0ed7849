"""CSV: one entry a row, safe to be opened with a spreadsheet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from knowledge_base.admin.transfer.line_format import (
    MOST_VALUES,
    RECORD_TICK,
    TICK,
    BadEntryError,
    Line,
    Record,
    json_entry,
    json_text,
    json_value,
    utf8,
)

TEXTS = ("kind", "namespace", "id", "content", "source", "created_at", "updated_at", "expires_at")
"""Columns that hold text as it is."""

VALUES = ("metadata", "tags", "principals", "version", "history", "passages")
"""Columns that hold JSON."""

EMPTY = ("[]", "{}")
MORE = "more"
"""The column that holds everything else as one JSON object."""

COLUMNS = (*TEXTS[:4], "metadata", "tags", "source", "principals", "version", *TEXTS[5:], "history", "passages", MORE)
READ = frozenset({*COLUMNS, "fact_id"})

ACTIVE = "=+-@\t\r"
"""What a spreadsheet takes for the beginning of a formula, or drops before looking for one."""

_TO_QUOTE = re.compile(r'[",\r\n]')
_CELL = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^",]*))(,|\Z)')


class CsvTable:
    """A table with a column for each field.

    A cell that a spreadsheet would run begins with an apostrophe, as does one that began with it.
    """

    preamble = (",".join(COLUMNS) + "\n").encode()

    def __init__(self) -> None:
        self._columns: list[str] | None = None

    def encoded(self, entry: Mapping[str, Any]) -> bytes:
        """Returns the row of an entry.

        Args:
            entry: The entry, the header and the trailer included.
        """
        cells = {name: entry[name] for name in TEXTS if isinstance(entry.get(name), str)}
        cells |= {name: json_text(entry[name]) for name in VALUES if entry.get(name) and entry[name] not in EMPTY}
        rest = {name: value for name, value in entry.items() if name not in COLUMNS}
        if rest:
            cells[MORE] = json_text(rest)
        return (",".join(_quoted(_inert(cells.get(name, ""))) for name in COLUMNS) + "\n").encode()

    def is_trailer(self, line: bytes) -> bool:
        """Tells whether a line is the row of a trailer.

        Args:
            line: The line.
        """
        return line.startswith(b"trailer,")

    def records(self, lines: Iterable[Line], most: int) -> Iterator[Record]:
        """Yields the rows after that of the columns' names; a quoted cell may hold line breaks.

        Args:
            lines: All lines.
            most: Bytes that a row may have.
        """
        is_first = True
        for row in _rows(lines, most):
            if is_first and row.data is not None and row is not RECORD_TICK:
                self._columns = _column_names(row.data)
                is_first = False
            else:
                yield row

    def decoded(self, data: bytes, most: int = MOST_VALUES) -> dict[str, Any]:
        """Returns the entry of a row.

        Args:
            data: The row.
            most: Values that its JSON may hold.

        Raises:
            BadEntryError: It is no row, or one of its cells is no JSON where it must be.
        """
        assert self._columns is not None
        cells = _cells(utf8(data).rstrip("\r\n"))
        if len(cells) > len(self._columns):
            raise BadEntryError(f"has {len(cells)} cells, more than the {len(self._columns)} columns")
        entry: dict[str, Any] = {}
        for name, cell in zip(self._columns, cells, strict=False):
            text = _active(cell)
            if text and name == MORE:
                entry |= json_entry(text, most)
            elif text:
                entry[name] = json_value(text, most) if name in VALUES else text
        return entry


def _rows(lines: Iterable[Line], most: int) -> Iterator[Record]:
    pieces: list[bytes] | None = []
    first = size = 0
    for line in lines:
        if line is TICK:
            yield RECORD_TICK
            continue
        is_odd = line.data is not None and line.data.count(b'"') % 2 == 1
        if not first:
            if is_odd:
                first, pieces, size = line.number, [line.data or b""], len(line.data or b"")
            elif line.data is None or line.data.strip():
                yield Record(line.number, line.data)
            continue
        size += len(line.data or b"")
        if line.data is None or size > most:
            # Where the next row begins cannot be told without the quotes of this one: it ends with the next odd line.
            pieces = None
        elif pieces is not None:
            pieces.append(line.data)
        if is_odd:
            yield Record(first, None if pieces is None else b"".join(pieces))
            first = 0
    if first:
        yield Record(first, None if pieces is None else b"".join(pieces))


def _column_names(data: bytes) -> list[str]:
    names = [name.strip() for name in _cells(utf8(data.removeprefix(b"\xef\xbb\xbf")).rstrip("\r\n"))]
    unknown = [name for name in names if name not in READ]
    if unknown or not {"content", MORE} & set(names):
        problem = f"an unknown column {unknown[0][:64]!r}" if unknown else "no column 'content'"
        raise BadEntryError(f"has {problem}; its first row must name some of {', '.join(COLUMNS)}")
    if len(set(names)) < len(names):
        raise BadEntryError("names a column twice")
    return names


def _cells(row: str) -> list[str]:
    cells: list[str] = []
    place = 0
    while True:
        match = _CELL.match(row, place)
        if match is None:
            raise BadEntryError(f"is no row of CSV: a stray quote in cell {len(cells) + 1}")
        quoted, plain, comma = match.groups()
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        place = match.end()
        if not comma:
            return cells


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _TO_QUOTE.search(text) else text


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(tuple(ACTIVE + "'")) else text


def _active(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(tuple(ACTIVE + "'")) else text
