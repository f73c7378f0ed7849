"""Spreadsheets (xlsx): a heading and a table per sheet."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime, time
from typing import Any

from knowledge_base.documents.blocks import ExtractedDocument
from knowledge_base.documents.formats import MEDIA_TYPES, WORKBOOK
from knowledge_base.documents.readers.block_list import BlockList
from knowledge_base.documents.readers.office_errors import office_file
from knowledge_base.documents.readers.request import ReadRequest


def read(data: bytes, request: ReadRequest) -> ExtractedDocument:
    """Reads a workbook: the last values of all cells, sheet by sheet.

    Args:
        data: The bytes of the file.
        request: What is known of it.

    Raises:
        UnreadableFileError: It is broken or encrypted, explodes, or has no text.
    """
    import openpyxl

    with office_file(data, "workbook"):
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        blocks = BlockList(request.max_characters)
        for sheet in book.worksheets:
            # What a file says about its size can be anything.
            sheet.reset_dimensions()
            if any(True for _ in _rows(sheet)):
                blocks.add("heading", sheet.title, level=1)
                blocks.add_table(_rows(sheet))
        return blocks.document(title=book.properties.title, media_type=MEDIA_TYPES[WORKBOOK])


def _rows(sheet: Any) -> Iterator[list[str]]:
    for row in sheet.iter_rows(values_only=True):
        if any(value is not None for value in row):
            yield [_cell_text(value) for value in row]


def _cell_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ")
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
