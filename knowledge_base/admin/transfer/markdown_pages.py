"""Markdown: the content of each entry as text to be read, everything else in a comment before it."""

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
    object_text,
    utf8,
)

OPENING = b"<!-- kb {"
ENDING = b"<!-- kb end -->"
_ESCAPED = re.compile(r"^(\\*<!-- kb )", re.MULTILINE)
_UNESCAPED = re.compile(r"^\\(\\*<!-- kb )", re.MULTILINE)


class MarkdownPages:
    """A page of Markdown, section by section.

    A section is a comment with the fields as JSON, the content, and a comment that ends it; a line of the content that
    begins like such a comment has a backslash before it.
    """

    preamble = b"# Knowledge base\n\n"

    def encoded(self, entry: Mapping[str, Any]) -> bytes:
        """Returns the section of an entry.

        Args:
            entry: The entry, the header and the trailer included.
        """
        fields = dict(entry)
        content = _document_text(fields) if fields.get("kind") == "document" else fields.pop("content", None)
        # What would end the comment stands in strings only.
        opening = "<!-- kb " + object_text(fields).replace(">", "\\u003e") + " -->\n"
        if content is None:
            return f"{opening}\n".encode()
        return f"{opening}\n{_ESCAPED.sub(_with_backslash, content)}\n\n{ENDING.decode()}\n\n".encode()

    def is_trailer(self, line: bytes) -> bool:
        """Tells whether a line is a trailer.

        Args:
            line: The line.
        """
        return line.startswith(b'<!-- kb {"kind":"trailer"')

    def records(self, lines: Iterable[Line], most: int) -> Iterator[Record]:
        """Yields the sections; what stands between them is not read.

        Args:
            lines: All lines.
            most: Bytes that a section may have.
        """
        begun: Record | None = None
        collected: list[bytes] = []
        size = 0
        for line in lines:
            if line is TICK:
                yield RECORD_TICK
                continue
            begins = line.data is not None and line.data.startswith(OPENING)
            if begins:
                if begun is not None:
                    yield _joined(begun, collected)
                begun, collected, size = Record(line.number, b""), [], 0
            if begun is None:
                continue
            size += len(line.data or b"")
            if line.data is None or size > most:
                begun, collected = Record(begun.number, None), []
            elif begun.data is not None:
                collected.append(line.data)
            if line.data is not None and line.data.rstrip() == ENDING:
                yield _joined(begun, collected)
                begun = None
        if begun is not None:
            yield _joined(begun, collected)

    def decoded(self, data: bytes, most: int = MOST_VALUES) -> dict[str, Any]:
        """Returns the entry of a section.

        Args:
            data: Its lines.
            most: Values that its JSON may hold.

        Raises:
            BadEntryError: Its comment is no JSON object, or its end is missing.
        """
        opening, _, rest = utf8(data).partition("\n")
        opening = opening.rstrip()
        if not opening.endswith(" -->"):
            raise BadEntryError("does not end its comment with ' -->'")
        entry = json_entry(opening[len(OPENING) - 1 : -len(" -->")], most)
        if not rest.strip():
            return entry
        body = rest.rstrip()
        if not body.endswith("\n" + ENDING.decode()):
            raise BadEntryError(f"has text without {ENDING.decode()} after it")
        content = body.removesuffix(ENDING.decode()).removesuffix("\n").removesuffix("\n").removeprefix("\n")
        if entry.get("kind") != "document":
            # The text of a document is there to be read; its blocks are what is restored.
            entry["content"] = _UNESCAPED.sub(_without_backslash, content)
        return entry


def _document_text(fields: Mapping[str, Any]) -> str:
    blocks = fields["document"].get("blocks") or []
    return "\n\n".join(f"{'#' * block[2]} {block[1]}" if block[0] == "heading" else block[1] for block in blocks)


def _joined(begun: Record, collected: list[bytes]) -> Record:
    return Record(begun.number, None if begun.data is None else b"".join(collected))


def _with_backslash(match: re.Match[str]) -> str:
    return "\\" + match.group(1)


def _without_backslash(match: re.Match[str]) -> str:
    return match.group(1)
