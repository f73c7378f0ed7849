"""What a reader makes of a file: blocks of text in reading order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

BlockKind = Literal["heading", "paragraph", "code", "table", "list"]


class Block(NamedTuple):
    """One piece of a document that belongs together.

    Attributes:
        kind: What it is. Tables have a row a line, as ``a | b | c``, the header first; lists have an item a line.
        text: Its text, never empty.
        level: Of headings, 1 to 6; else 0.
        page: The page that it begins on, from 1 on; None where the format has no pages.
    """

    kind: BlockKind
    text: str
    level: int = 0
    page: int | None = None


class ExtractedDocument(NamedTuple):
    """The text and the structure of a file.

    Attributes:
        title: What the file calls itself, if it says.
        media_type: Its format, such as ``text/markdown``.
        blocks: Its blocks in reading order.
        pages: How many pages it has; None where the format has none.
    """

    title: str | None
    media_type: str
    blocks: Sequence[Block]
    pages: int | None
