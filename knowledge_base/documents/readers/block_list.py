"""Collects the blocks of one document, cleaned, cut where they are very long, and never more than allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from knowledge_base.documents.blocks import Block, BlockKind, ExtractedDocument
from knowledge_base.documents.unreadable import UnreadableFileError

BLOCK_CHARACTERS = 50_000
"""A paragraph, a list or a piece of code that is longer becomes several blocks."""

TABLE_CHARACTERS = 4_000
"""A table that is longer becomes several blocks, each with the header line first."""

CELL_CHARACTERS = 10_000

_UNWANTED = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\ud800-\udfff\ufeff\ufffe\uffff]")
_LINE_ENDS = re.compile("\r\n?|\x0c|\x85|\u2028|\u2029")
_SPACES = re.compile(r"\s+")


def cleaned(text: str) -> str:
    """Returns a text without control characters and lone surrogates, with line feeds as the only line ends.

    Args:
        text: What a reader found.
    """
    if "\r" in text or "\x0c" in text or not text.isascii():
        text = _LINE_ENDS.sub("\n", text)
    return _UNWANTED.sub("", text)


def on_one_line(text: str) -> str:
    """Returns a text with single spaces in place of line ends, tabs and runs of spaces.

    Args:
        text: The text.
    """
    return _SPACES.sub(" ", text).strip()


class BlockList:
    """The blocks of one document in the making.

    Args:
        max_characters: How much text it may have.
    """

    def __init__(self, max_characters: int) -> None:
        self._blocks: list[Block] = []
        self._characters = 0
        self._max_characters = max_characters

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def first_heading(self) -> str | None:
        """The first heading of the document, if it has one."""
        return next((block.text for block in self._blocks if block.kind == "heading"), None)

    def add(self, kind: BlockKind, text: str, *, level: int = 0, page: int | None = None) -> None:
        """Adds a block, unless it has no text.

        Args:
            kind: What it is.
            text: Its text.
            level: Of headings, 1 to 6.
            page: The page that it begins on.

        Raises:
            UnreadableFileError: The document has more text than allowed.
        """
        text = cleaned(text)
        if kind == "heading":
            text = on_one_line(text)[:CELL_CHARACTERS]
        elif kind == "code":
            text = text.strip("\n").rstrip()
        else:
            text = text.strip()
        if not text:
            return
        self._count(len(text))
        for piece in _cut(text) if len(text) > BLOCK_CHARACTERS else (text,):
            self._blocks.append(Block(kind, piece, level, page))

    def add_table(self, rows: Iterable[Sequence[str]], *, page: int | None = None) -> None:
        """Adds a table, in several blocks when it is long.

        Args:
            rows: The cells of each row, the header first; rows without any text are left out.
            page: The page that it begins on.

        Raises:
            UnreadableFileError: The document has more text than allowed.
        """
        header = ""
        lines: list[str] = []
        size = 0
        for cells in rows:
            line = _row(cells)
            if not line:
                continue
            self._count(len(line) + 1)
            if not header:
                header = line
            elif lines and size + len(line) > TABLE_CHARACTERS:
                self._blocks.append(Block("table", "\n".join([header, *lines]), 0, page))
                lines, size = [], 0
            if line is not header:
                lines.append(line)
                size += len(line) + 1
        if header:
            self._blocks.append(Block("table", "\n".join([header, *lines]), 0, page))

    def document(self, *, title: str | None, media_type: str, pages: int | None = None) -> ExtractedDocument:
        """Returns the finished document.

        Args:
            title: What the file calls itself, if it says.
            media_type: Its format.
            pages: How many pages it has, where the format has any.

        Raises:
            UnreadableFileError: It has no text at all.
        """
        if not self._blocks:
            raise UnreadableFileError("has no text")
        title = on_one_line(cleaned(title))[:CELL_CHARACTERS] if title else None
        return ExtractedDocument(title or None, media_type, self._blocks, pages)

    def _count(self, characters: int) -> None:
        self._characters += characters
        if self._characters > self._max_characters:
            raise UnreadableFileError(
                f"has more text than {self._max_characters:,} characters", limit=self._max_characters
            )


def _row(cells: Sequence[str]) -> str:
    texts = [on_one_line(cleaned(cell[:CELL_CHARACTERS])) if cell else "" for cell in cells]
    while texts and not texts[-1]:
        texts.pop()
    return " | ".join(texts)


def _cut(text: str) -> Iterable[str]:
    start = 0
    while len(text) - start > BLOCK_CHARACTERS:
        stop = start + BLOCK_CHARACTERS
        middle = start + BLOCK_CHARACTERS // 2
        at = text.rfind("\n", middle, stop) + 1 or text.rfind(" ", middle, stop) + 1 or stop
        piece = text[start:at].strip("\n ")
        if piece:
            yield piece
        start = at
    rest = text[start:].strip("\n ")
    if rest:
        yield rest
