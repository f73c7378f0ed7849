"""Markdown, as CommonMark with tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from knowledge_base.documents.blocks import ExtractedDocument
from knowledge_base.documents.encodings import decode_text
from knowledge_base.documents.readers.block_list import BlockList, cleaned
from knowledge_base.documents.readers.request import ReadRequest
from knowledge_base.documents.unreadable import UnreadableFileError

if TYPE_CHECKING:
    from markdown_it.token import Token

_FRONT_MATTER = re.compile(r"\A---\n(.{0,20000}?)\n(?:---|\.\.\.)(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:\s*(.+)$", re.MULTILINE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,2000}>")
_INDENT = "  "
_MAX_DEPTH = 100
"""Lists and quotations in one another; a list takes two. The parser leaves out what is deeper, and says nothing."""


def read(data: bytes, request: ReadRequest) -> ExtractedDocument:
    """Reads Markdown; what is emphasised or linked keeps its text, front matter is a list and gives the title.

    Args:
        data: The bytes of the file.
        request: What is known of it.

    Raises:
        UnreadableFileError: It is no text, has none, or is nested too deeply.
    """
    text = cleaned(decode_text(data))
    title = None
    blocks = BlockList(request.max_characters)
    front = _FRONT_MATTER.match(text)
    if front:
        named = _FRONT_TITLE.search(front.group(1))
        title = named.group(1).strip().strip("\"'") if named else None
        blocks.add("list", front.group(1))
        text = text[front.end() :]
    _MarkdownWalk(blocks).walk(_tokens(text))
    return blocks.document(title=title or blocks.first_heading, media_type="text/markdown")


def _tokens(text: str) -> Sequence[Token]:
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark", {"maxNesting": _MAX_DEPTH}).enable("table").parse(text)
    if any(token.level >= _MAX_DEPTH - 1 for token in tokens):
        raise UnreadableFileError(
            f"is nested deeper than {_MAX_DEPTH // 2} lists or {_MAX_DEPTH} quotations", limit=_MAX_DEPTH
        )
    return tokens


class _MarkdownWalk:
    """Turns the parser's tokens into blocks.

    Args:
        blocks: The document in the making.
    """

    def __init__(self, blocks: BlockList) -> None:
        self._blocks = blocks
        self._heading = 0
        self._lists: list[int | None] = []
        self._items: list[str] = []
        self._begins_item = False
        self._rows: list[list[str]] = []
        self._in_table = False

    def walk(self, tokens: Sequence[Token]) -> None:
        """Adds what the tokens stand for, in order."""
        for token in tokens:
            handler = getattr(self, f"_on_{token.type}", None)
            if handler is not None:
                handler(token)

    def _on_heading_open(self, token: Token) -> None:
        self._heading = int(token.tag[1])

    def _on_heading_close(self, token: Token) -> None:
        self._heading = 0

    def _on_inline(self, token: Token) -> None:
        text = _inline_text(token)
        if self._in_table:
            self._rows[-1].append(text)
        elif self._lists:
            self._add_to_list(text)
        elif self._heading:
            self._blocks.add("heading", text, level=self._heading)
        else:
            self._blocks.add("paragraph", text)

    def _on_fence(self, token: Token) -> None:
        if self._lists:
            self._end_items()
        self._blocks.add("code", token.content)

    _on_code_block = _on_fence

    def _on_html_block(self, token: Token) -> None:
        text = _TAG.sub(" ", _without_comments(token.content))
        if self._lists:
            self._add_to_list(text)
        else:
            self._blocks.add("paragraph", text)

    def _on_bullet_list_open(self, token: Token) -> None:
        self._lists.append(None)

    def _on_ordered_list_open(self, token: Token) -> None:
        self._lists.append(int(token.attrGet("start") or 1))

    def _on_bullet_list_close(self, token: Token) -> None:
        self._lists.pop()
        if not self._lists:
            self._end_items()

    _on_ordered_list_close = _on_bullet_list_close

    def _on_list_item_open(self, token: Token) -> None:
        self._begins_item = True

    def _on_table_open(self, token: Token) -> None:
        if self._lists:
            self._end_items()
        self._in_table, self._rows = True, []

    def _on_tr_open(self, token: Token) -> None:
        self._rows.append([])

    def _on_table_close(self, token: Token) -> None:
        self._blocks.add_table(self._rows)
        self._in_table = False

    def _add_to_list(self, text: str) -> None:
        indent = _INDENT * (len(self._lists) - 1)
        number = self._lists[-1]
        if not self._begins_item:
            self._items.append(f"{indent}{_INDENT}{text}")
            return
        self._begins_item = False
        if number is None:
            self._items.append(f"{indent}- {text}")
        else:
            self._items.append(f"{indent}{number}. {text}")
            self._lists[-1] = number + 1

    def _end_items(self) -> None:
        self._blocks.add("list", "\n".join(self._items))
        self._items = []


def _without_comments(html: str) -> str:
    # A regular expression would search to the end for each comment that is never closed.
    kept = []
    start = 0
    while (opened := html.find("<!--", start)) >= 0 and (closed := html.find("-->", opened + 4)) >= 0:
        kept.append(html[start:opened])
        start = closed + 3
    return "".join(kept) + html[start:]


def _inline_text(token: Token) -> str:
    parts = []
    for child in token.children or ():
        if child.type in ("text", "code_inline", "image"):
            parts.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            parts.append("\n")
    return "".join(parts).strip()
