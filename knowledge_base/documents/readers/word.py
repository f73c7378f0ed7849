"""Word documents (docx)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from knowledge_base.documents.blocks import BlockKind, ExtractedDocument
from knowledge_base.documents.formats import MEDIA_TYPES, WORD
from knowledge_base.documents.readers.block_list import BlockList
from knowledge_base.documents.readers.office_errors import office_file
from knowledge_base.documents.readers.request import ReadRequest

if TYPE_CHECKING:
    from docx.document import Document

_HEADING = re.compile(r"heading (\d)")
_CODE_STYLES = ("code", "source", "preformatted", "listing", "macro")


def read(data: bytes, request: ReadRequest) -> ExtractedDocument:
    """Reads a Word document: headings by their styles, paragraphs, lists, code and tables.

    Args:
        data: The bytes of the file.
        request: What is known of it.

    Raises:
        UnreadableFileError: It is broken or encrypted, explodes, or has no text.
    """
    import docx

    with office_file(data, "Word document"):
        document = docx.Document(io.BytesIO(data))
        blocks = BlockList(request.max_characters)
        title = _WordWalk(document, blocks).walk() or document.core_properties.title
        return blocks.document(title=title or blocks.first_heading, media_type=MEDIA_TYPES[WORD])


class _WordWalk:
    """Turns the body of a document into blocks.

    Args:
        document: The document.
        blocks: The document in the making.
    """

    def __init__(self, document: Document, blocks: BlockList) -> None:
        self._document = document
        self._blocks = blocks
        self._items: list[str] = []
        self._code: list[str] = []
        self._title: str | None = None
        # Looking a style up searches all of them each time.
        self._styles = {style.style_id: (style.name or "").lower() for style in document.styles}

    def walk(self) -> str | None:
        """Adds every paragraph and table; returns the text in the style ``Title``."""
        from docx.table import Table

        for content in self._document.iter_inner_content():
            if isinstance(content, Table):
                self._end_runs()
                self._blocks.add_table(_rows(content._tbl))
            else:
                self._add(content._p)
        self._end_runs()
        return self._title

    def _add(self, paragraph: Any) -> None:
        text = paragraph.text
        kind, level = self._kind(paragraph)
        if kind == "list":
            self._end_runs(code=True)
            self._items.append(f"- {text}")
            return
        if kind == "code":
            self._end_runs(items=True)
            self._code.append(text)
            return
        self._end_runs()
        self._blocks.add(kind, text, level=level)

    def _kind(self, paragraph: Any) -> tuple[BlockKind, int]:
        style = self._styles.get(paragraph.style, "") if paragraph.style else ""
        heading = _HEADING.match(style)
        if heading:
            return "heading", min(6, max(1, int(heading.group(1))))
        if style == "title":
            self._title = self._title or paragraph.text.strip() or None
            return "heading", 1
        if any(word in style for word in _CODE_STYLES):
            return "code", 0
        properties = paragraph.pPr
        if style.startswith("list") or (properties is not None and properties.numPr is not None):
            return "list", 0
        return "paragraph", 0

    def _end_runs(self, *, items: bool = False, code: bool = False) -> None:
        both = not items and not code
        if (items or both) and self._items:
            self._blocks.add("list", "\n".join(self._items))
            self._items = []
        if (code or both) and self._code:
            self._blocks.add("code", "\n".join(self._code))
            self._code = []


def _rows(table: Any) -> Iterator[list[str]]:
    from docx.oxml.ns import qn

    paragraph_tag = qn("w:p")
    for row in table.tr_lst:
        yield [" ".join(paragraph.text for paragraph in cell.iter(paragraph_tag)) for cell in row.tc_lst]
