"""Plain text, and the light markup that people underline their headings with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import dedent

from knowledge_base.documents.blocks import BlockKind, ExtractedDocument
from knowledge_base.documents.encodings import decode_text
from knowledge_base.documents.readers.block_list import BlockList, cleaned
from knowledge_base.documents.readers.request import ReadRequest

_UNDERLINE = re.compile(r"([=\-~^\"'#*+.:_`])\1{2,}$")
_ITEM = re.compile(r"\s{0,8}(?:[-*+\u2022\u2013]|\(?\d{1,3}[.)]|#\.)\s+\S")
_TITLE_CHARACTERS = 200


def read(data: bytes, request: ReadRequest) -> ExtractedDocument:
    """Reads plain text: paragraphs, lists, underlined headings and indented code after ``::``.

    Args:
        data: The bytes of the file.
        request: What is known of it.

    Raises:
        UnreadableFileError: It is no text, or has none.
    """
    blocks = BlockList(request.max_characters)
    add_plain_text(decode_text(data), blocks)
    return blocks.document(title=blocks.first_heading, media_type="text/plain")


def add_plain_text(text: str, blocks: BlockList, *, page: int | None = None) -> None:
    """Adds a plain text to a document.

    Args:
        text: The text.
        blocks: The document in the making.
        page: The page that it stands on.
    """
    marks: list[tuple[str, bool]] = []
    is_code = False
    for lines in _groups(cleaned(text)):
        if is_code and all(line[:1] in " \t" for line in lines):
            blocks.add("code", dedent("\n".join(lines)), page=page)
            continue
        lines = _take_headings(lines, marks, blocks, page)
        is_code = bool(lines) and _announces_code(lines[-1].strip())
        if lines and not (len(lines) == 1 and _is_underline(lines[0])):
            kind: BlockKind = "list" if _is_list(lines) else "paragraph"
            blocks.add(kind, dedent("\n".join(line.rstrip() for line in lines)), page=page)


def _groups(text: str) -> Iterator[list[str]]:
    lines: list[str] = []
    for line in text.split("\n"):
        if line.strip():
            lines.append(line)
        elif lines:
            yield lines
            lines = []
    if lines:
        yield lines


def _announces_code(line: str) -> bool:
    return line.startswith((".. code", ".. sourcecode")) or (line.endswith("::") and not line.startswith(".."))


def _is_list(lines: list[str]) -> bool:
    return bool(_ITEM.match(lines[0])) and (len(lines) == 1 or any(_ITEM.match(line) for line in lines[1:]))


def _take_headings(lines: list[str], marks: list[tuple[str, bool]], blocks: BlockList, page: int | None) -> list[str]:
    # As in reStructuredText, the kind of line that is seen first belongs to the highest heading.
    at = 0
    while len(lines) - at >= 2 and len(lines[at]) <= _TITLE_CHARACTERS:
        first, second, third = lines[at], lines[at + 1], lines[at + 2] if len(lines) - at > 2 else ""
        has_line_above = _is_underline(first) and third.rstrip() == first.rstrip()
        title, under = (second, third.rstrip()) if has_line_above else (first, second.rstrip())
        if _is_underline(title) or not _is_underline(under) or len(under) < len(title.strip()) - 2:
            break
        mark = (under[0], has_line_above)
        if mark not in marks:
            marks.append(mark)
        blocks.add("heading", title, level=min(6, marks.index(mark) + 1), page=page)
        at += 3 if has_line_above else 2
    return lines[at:]


def _is_underline(line: str) -> bool:
    return bool(_UNDERLINE.match(line.rstrip()))
