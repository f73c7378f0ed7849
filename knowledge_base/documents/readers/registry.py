"""Which reader reads which format."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from knowledge_base.documents.blocks import ExtractedDocument
from knowledge_base.documents.formats import (
    CSV,
    EPUB,
    HTML,
    JSON,
    JSONL,
    MAIL,
    MARKDOWN,
    PDF,
    SLIDES,
    SOURCE,
    TEXT,
    WORD,
    WORKBOOK,
    detect_format,
)  # fmt: skip
from knowledge_base.documents.readers.request import ReadRequest
from knowledge_base.documents.unreadable import UnreadableFileError

Reader = Callable[[bytes, ReadRequest], ExtractedDocument]

_READERS = {
    TEXT: ("plain_text", "read"),
    MARKDOWN: ("markdown", "read"),
    HTML: ("html_page", "read"),
    CSV: ("csv_rows", "read"),
    JSON: ("json_values", "read"),
    JSONL: ("json_values", "read_lines"),
    MAIL: ("mail", "read"),
    SOURCE: ("source_code", "read"),
    PDF: ("pdf", "read"),
    WORD: ("word", "read"),
    SLIDES: ("slides", "read"),
    WORKBOOK: ("workbook", "read"),
    EPUB: ("epub", "read"),
}


def read_document(data: bytes, request: ReadRequest) -> ExtractedDocument:
    """Reads a file of any known format.

    Args:
        data: The bytes of the file.
        request: What is known of it.

    Raises:
        UnreadableFileError: It cannot be read.
        ImportError: A library that reads this format is not installed.
    """
    module, function = _READERS[detect_format(request.name, data, request.media_type)]
    reader: Reader = getattr(import_module(f"knowledge_base.documents.readers.{module}"), function)
    try:
        return reader(data, request)
    except RecursionError:
        raise UnreadableFileError("is nested too deeply") from None
