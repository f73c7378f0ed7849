"""What a reader is told beside the bytes."""

from __future__ import annotations

from typing import NamedTuple


class ReadRequest(NamedTuple):
    """What is known of a file before it is read.

    Attributes:
        name: Its name without folders; empty for a text that is no file.
        media_type: What the caller says it is, such as ``text/markdown``; None to find out.
        max_characters: How much text it may have.
    """

    name: str = ""
    media_type: str | None = None
    max_characters: int = 10_000_000
