"""Shapes of what comes of exports and imports."""

from __future__ import annotations

from typing import Literal, TypeAlias, TypedDict

from knowledge_base.types.common import BulkResult

ExportFormat: TypeAlias = Literal["jsonl", "csv", "markdown"]
"""How an export is written."""

OnConflict: TypeAlias = Literal["skip", "overwrite", "newer", "error"]
"""What an import does with a fact whose id is taken: leave the old one, replace it, let the one win that was changed
last, or report it."""


class ExportReport(TypedDict):
    """What an export has written."""

    path: str
    facts: int
    documents: int
    bytes: int
    """Size of the file."""
    checksum: str
    """SHA-256 of all lines before the trailer, in hexadecimal."""
    took_s: float


class ImportReport(BulkResult):
    """What became of the entries of a file; ``duplicates`` were there already, or stayed as they were."""

    replaced: int
    """Of those that succeeded, how many took the place of another version."""
    expired: int
    """Facts that had expired before they were imported, and were left out."""
    embedded: int
    """Facts whose vectors had to be made; those of the others came with them."""
    failures: int
    """All that failed; ``failed`` tells of the first 1 000."""
    stopped_by: str | None
    """Why it is not completed; the same call goes on."""
    dry_run: bool
