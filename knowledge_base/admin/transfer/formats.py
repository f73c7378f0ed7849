"""The formats by name, and which one a file is in."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from knowledge_base.admin.transfer.csv_table import CsvTable
from knowledge_base.admin.transfer.json_lines import JsonLines
from knowledge_base.admin.transfer.line_format import TransferFormat
from knowledge_base.admin.transfer.markdown_pages import MarkdownPages

FormatName: TypeAlias = Literal["jsonl", "csv", "markdown"]
FORMATS: tuple[str, ...] = get_args(FormatName)

_MAKERS: dict[str, type[JsonLines] | type[CsvTable] | type[MarkdownPages]] = {
    "jsonl": JsonLines,
    "csv": CsvTable,
    "markdown": MarkdownPages,
}

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def format_named(name: str) -> TransferFormat:
    """Returns a format.

    Args:
        name: One of ``FORMATS``.
    """
    return _MAKERS[name]()


def format_of(beginning: bytes) -> TransferFormat:
    """Returns the format of a file; its name says nothing about it.

    Args:
        beginning: Its first bytes, unpacked.
    """
    first = beginning.removeprefix(BYTE_ORDER_MARK).lstrip()[:1]
    if first == b"{":
        return JsonLines()
    return MarkdownPages() if first in {b"#", b"<"} else CsvTable()
