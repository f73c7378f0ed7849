"""Comma-separated values, whatever they are separated by."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from knowledge_base.documents.blocks import ExtractedDocument
from knowledge_base.documents.encodings import decode_text
from knowledge_base.documents.readers.block_list import BlockList
from knowledge_base.documents.readers.request import ReadRequest
from knowledge_base.documents.unreadable import UnreadableFileError

_DELIMITERS = ",;\t|"
_SAMPLE_LINES = 20
_FIELD_CHARACTERS = 1_000_000


def read(data: bytes, request: ReadRequest) -> ExtractedDocument:
    """Reads a table from comma-, semicolon-, tab- or bar-separated values; the first line is its header.

    Args:
        data: The bytes of the file.
        request: What is known of it.

    Raises:
        UnreadableFileError: It is no text, has none, or its quotes do not fit.
    """
    text = decode_text(data)
    blocks = BlockList(request.max_characters)
    csv.field_size_limit(_FIELD_CHARACTERS)
    try:
        blocks.add_table(_rows(text, _delimiter(text)))
    except csv.Error:
        raise UnreadableFileError("is broken: it is no table of separated values; a quote may be left open") from None
    return blocks.document(title=None, media_type="text/csv")


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text.replace("\x00", ""), newline=""), delimiter=delimiter)


def _delimiter(text: str) -> str:
    """Returns the character that parts most lines into the same number of fields, above one."""
    end = 0
    for _ in range(_SAMPLE_LINES):
        end = text.find("\n", end) + 1
        if not end:
            break
    sample = text[: min(end or len(text), 100_000)]
    best, best_score = ",", 0
    for delimiter in _DELIMITERS:
        if delimiter not in sample:
            continue
        try:
            widths = [len(row) for row in _rows(sample, delimiter) if row]
        except csv.Error:
            continue
        usual = max(set(widths), key=widths.count) if widths else 0
        score = widths.count(usual) * 100 + usual if usual > 1 else 0
        if score > best_score:
            best, best_score = delimiter, score
    return best
