"""HTML pages, without the scripts, styles and navigation around what they say."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from knowledge_base.documents.blocks import ExtractedDocument
from knowledge_base.documents.encodings import decode_text
from knowledge_base.documents.readers.block_list import BlockList, on_one_line
from knowledge_base.documents.readers.request import ReadRequest
from knowledge_base.documents.unreadable import UnreadableFileError

_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset=[\"']?\s*([\w.:-]{2,40})", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"<\?xml[^>]{0,100}?encoding=[\"']([\w.:-]{2,40})")
_FEED_BYTES = 65_536
_MAX_DEPTH = 2_000
_SKIPPED = {
    "script", "style", "nav", "noscript", "template", "svg", "math", "iframe", "object", "button", "select", "option",
    "textarea", "canvas", "audio", "video",
}  # fmt: skip
_SKIPPED_ROLES = {"navigation", "search", "menu", "menubar"}
_PERMALINK = "\u00b6"
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BREAKING = {
    "p", "div", "section", "article", "main", "aside", "header", "footer", "address", "blockquote", "figure",
    "figcaption", "dl", "dt", "dd", "hr", "details", "summary", "body", "fieldset", "center",
}  # fmt: skip


def read(data: bytes, request: ReadRequest) -> ExtractedDocument:
    """Reads an HTML page: headings, paragraphs, lists, tables and preformatted text.

    Scripts, styles, navigation, controls of forms and what stands in for scripts are left out.

    Args:
        data: The bytes of the file.
        request: What is known of it.

    Raises:
        UnreadableFileError: It is no text, has none, or is nested too deeply.
    """
    blocks = BlockList(request.max_characters)
    title = add_page(data, blocks)
    return blocks.document(title=title or blocks.first_heading, media_type="text/html")


def add_page(data: bytes, blocks: BlockList) -> str | None:
    """Adds an HTML page to a document.

    Args:
        data: The bytes of the page.
        blocks: The document in the making.

    Returns:
        The page's title, if it has one.
    """
    from lxml import etree

    head = data[:4096]
    declared = _CHARSET.search(head) or _XML_ENCODING.search(head)
    text = decode_text(data, declared.group(1).decode("ascii") if declared else None)
    walk = _PageWalk(blocks)
    # The parser calls the walk and builds no tree: a page of any size needs little memory.
    parser = etree.HTMLParser(target=walk, encoding="utf-8", huge_tree=True, no_network=True)
    encoded = text.replace("\x00", "").encode("utf-8", "replace")
    try:
        for start in range(0, len(encoded), _FEED_BYTES):
            parser.feed(encoded[start : start + _FEED_BYTES])
        parser.close()
    except etree.LxmlError:
        raise UnreadableFileError("is broken: its HTML cannot be parsed") from None
    walk.close()
    return walk.title


class _PageWalk:
    """Turns the parser's events into blocks.

    Args:
        blocks: The document in the making.
    """

    def __init__(self, blocks: BlockList) -> None:
        self.title: str | None = None
        self._blocks = blocks
        self._depth = 0
        self._skipping = 0
        self._text: list[str] = []
        self._title_text: list[str] | None = None
        self._preformatted = 0
        self._lists: list[int | None] = []
        self._items: list[str] = []
        self._marker = ""
        self._tables = 0
        self._rows: list[list[str]] = []
        self._openers: dict[str, Callable[[str], None]] = {
            "ul": self._open_list, "ol": self._open_list, "li": self._open_item, "pre": self._open_pre,
            "table": self._open_table, "tr": self._open_row, "td": self._open_cell, "th": self._open_cell,
            "br": self._break_line,
        }  # fmt: skip
        self._closers: dict[str, Callable[[str], None]] = {
            "ul": self._close_list, "ol": self._close_list, "li": self._close_item, "pre": self._close_pre,
            "table": self._close_table, "td": self._close_cell, "th": self._close_cell, "tr": self._open_cell,
        }  # fmt: skip

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Notes that an element begins."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UnreadableFileError(f"is nested deeper than {_MAX_DEPTH:,} elements", limit=_MAX_DEPTH)
        if self._skipping or tag in _SKIPPED or attributes.get("role") in _SKIPPED_ROLES:
            self._skipping += 1
        elif tag == "title" and self.title is None:
            self._title_text = []
        elif tag in self._openers:
            self._openers[tag](tag)
        elif tag in _HEADINGS or tag in _BREAKING:
            self._flush()

    def end(self, tag: str) -> None:
        """Notes that an element ends."""
        self._depth -= 1
        if self._skipping:
            self._skipping -= 1
        elif tag == "title" and self._title_text is not None:
            self.title = on_one_line("".join(self._title_text)) or None
            self._title_text = None
        elif tag in self._closers:
            self._closers[tag](tag)
        elif tag in _HEADINGS:
            self._flush(level=_HEADINGS[tag])
        elif tag in _BREAKING:
            self._flush()

    def data(self, text: str) -> None:
        """Notes a piece of text."""
        if self._title_text is not None:
            self._title_text.append(text)
        elif not self._skipping:
            self._text.append(text)

    def comment(self, text: str) -> None:
        """Leaves comments out."""

    def pi(self, target: str, data: str | None = None) -> None:
        """Leaves processing instructions out."""

    def close(self) -> None:
        """Adds what is still open."""
        if self._tables:
            self._tables = 1
            self._close_table("table")
        self._flush()
        self._end_items()

    def _flush(self, level: int = 0) -> None:
        if self._preformatted or self._tables:
            # Inside a cell only spaces part what would be paragraphs.
            self._text.append("\n" if self._preformatted else " ")
            return
        text = _paragraph_text("".join(self._text))
        self._text = []
        if not text:
            return
        if self._lists:
            indent = "  " * (len(self._lists) - 1)
            self._items.append(f"{indent}{self._marker or '  '}{on_one_line(text)}")
            self._marker = ""
        elif level:
            self._blocks.add("heading", text.removesuffix(_PERMALINK), level=level)
        else:
            self._blocks.add("paragraph", text)

    def _break_line(self, tag: str) -> None:
        self._text.append("\n" if self._preformatted else "\x00")

    def _open_list(self, tag: str) -> None:
        self._flush()
        self._lists.append(1 if tag == "ol" else None)

    def _close_list(self, tag: str) -> None:
        self._flush()
        if self._lists:
            self._lists.pop()
        if not self._lists:
            self._end_items()

    def _open_item(self, tag: str) -> None:
        self._flush()
        number = self._lists[-1] if self._lists else None
        self._marker = "- " if number is None else f"{number}. "
        if self._lists and number is not None:
            self._lists[-1] = number + 1

    def _close_item(self, tag: str) -> None:
        self._flush()

    def _end_items(self) -> None:
        self._blocks.add("list", "\n".join(self._items))
        self._items = []

    def _open_pre(self, tag: str) -> None:
        self._flush()
        self._preformatted += 1

    def _close_pre(self, tag: str) -> None:
        if self._preformatted:
            self._preformatted -= 1
        if self._tables or self._preformatted:
            return
        self._end_items()
        self._blocks.add("code", "".join(self._text).replace("\x00", "\n"))
        self._text = []

    def _open_table(self, tag: str) -> None:
        self._flush()
        if not self._tables:
            self._end_items()
            self._rows = []
        self._tables += 1

    def _open_row(self, tag: str) -> None:
        if self._tables == 1:
            self._close_cell(tag)
            self._rows.append([])

    def _open_cell(self, tag: str) -> None:
        if self._tables == 1:
            self._drop_space()

    def _close_cell(self, tag: str) -> None:
        if self._tables != 1:
            self._text.append(" ")
            return
        if tag in ("td", "th"):
            if not self._rows:
                self._rows.append([])
            self._rows[-1].append(on_one_line("".join(self._text).replace("\x00", " ")))
            self._text = []
        else:
            self._drop_space()

    def _drop_space(self) -> None:
        # Text between cells is a caption, or nothing.
        text = on_one_line("".join(self._text).replace("\x00", " "))
        self._text = []
        if text:
            self._blocks.add("paragraph", text)

    def _close_table(self, tag: str) -> None:
        if self._tables == 1:
            self._drop_space()
            self._blocks.add_table(self._rows)
            self._rows = []
        self._tables = max(0, self._tables - 1)


def _paragraph_text(text: str) -> str:
    # A line break element is a NUL up to here, since line ends of the source are mere spaces.
    return "\n".join(line for line in (on_one_line(part) for part in text.split("\x00")) if line)
