"""PDF files: the text of each page; the headings that the file's outline names."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from knowledge_base.documents.blocks import ExtractedDocument
from knowledge_base.documents.readers.block_list import BlockList, cleaned, on_one_line
from knowledge_base.documents.readers.request import ReadRequest
from knowledge_base.documents.unreadable import UnreadableFileError

if TYPE_CHECKING:
    from pypdf import PdfReader

MAX_PAGES = 20_000
_HYPHEN = re.compile(r"(\w)[-\u00ad]\n(?=[a-z\u00df-\u00ff])")
_SENTENCE_ENDS = (".", "!", "?", ":", "\u3002")
_SHORT_LINE = 0.75
_OUTLINE_DEPTH = 6
_OUTLINE_ENTRIES = 20_000


def read(data: bytes, request: ReadRequest) -> ExtractedDocument:
    """Reads the text of a PDF file, page by page.

    Args:
        data: The bytes of the file.
        request: What is known of it.

    Raises:
        UnreadableFileError: It is broken, encrypted, or its pages are pictures.
    """
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    # It logs each oddity of a file, with parts of the file.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    blocks = BlockList(request.max_characters)
    try:
        reader = PdfReader(io.BytesIO(data))
        _open_with_empty_password(reader)
        pages = _page_count(reader)
        headings = _outline(reader)
        for number in range(pages):
            _add_page(reader.pages[number].extract_text(), number + 1, headings.get(number, {}), blocks)
        title = reader.metadata.title if reader.metadata else None
    except UnreadableFileError:
        raise
    except (PyPdfError, ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, OSError) as error:
        if "decrypt" in str(error).lower():
            raise UnreadableFileError("is encrypted") from None
        raise UnreadableFileError("is broken: its PDF structure cannot be followed, perhaps it was cut off") from None
    if not len(blocks):
        raise UnreadableFileError("has no text: its pages are empty or pictures")
    return blocks.document(title=title if isinstance(title, str) else None, media_type="application/pdf", pages=pages)


def _open_with_empty_password(reader: PdfReader) -> None:
    # Many files are only protected against changes: anybody may read them.
    if reader.is_encrypted and not reader.decrypt(""):
        raise UnreadableFileError("is encrypted")


def _page_count(reader: PdfReader) -> int:
    pages = len(reader.pages)
    if pages > MAX_PAGES:
        raise UnreadableFileError(f"has more than {MAX_PAGES:,} pages", limit=MAX_PAGES)
    if not pages:
        raise UnreadableFileError("is broken: it has no pages")
    return pages


def _outline(reader: PdfReader) -> dict[int, dict[str, int]]:
    """Returns the titles of the outline with their levels, by page index."""
    found: dict[int, dict[str, int]] = {}
    try:
        waiting: list[tuple[int, Any]] = [(1, entry) for entry in reversed(reader.outline)]
        seen = 0
        while waiting and seen < _OUTLINE_ENTRIES:
            level, entry = waiting.pop()
            seen += 1
            if isinstance(entry, list):
                waiting.extend((level + 1, child) for child in reversed(entry))
                continue
            page = reader.get_destination_page_number(entry)
            if page is not None and page >= 0 and entry.title:
                found.setdefault(page, {})[_key(entry.title)] = min(level, _OUTLINE_DEPTH)
    except Exception:  # noqa: BLE001 - broken outlines fail in every way, and are a help only
        return {}
    return found


def _key(text: str) -> str:
    return "".join(character for character in cleaned(text).casefold() if character.isalnum())


def _add_page(text: str, page: int, headings: Mapping[str, int], blocks: BlockList) -> None:
    for group in re.split(r"\n\s*\n", cleaned(text)):
        lines = [line.strip() for line in group.split("\n") if line.strip()]
        if not lines:
            continue
        longest = max(len(line) for line in lines)
        paragraph: list[str] = []
        for line in lines:
            level = headings.get(_key(line)) if headings else None
            if level:
                _add_paragraph(paragraph, page, blocks)
                blocks.add("heading", line, level=level, page=page)
                paragraph = []
                continue
            paragraph.append(line)
            if line.endswith(_SENTENCE_ENDS) and len(line) < longest * _SHORT_LINE:
                _add_paragraph(paragraph, page, blocks)
                paragraph = []
        _add_paragraph(paragraph, page, blocks)


def _add_paragraph(lines: list[str], page: int, blocks: BlockList) -> None:
    blocks.add("paragraph", on_one_line(_HYPHEN.sub(r"\1", "\n".join(lines))), page=page)
