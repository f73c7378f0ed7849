"""Shapes of documents."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from knowledge_base.types.common import BulkResult


class Document(TypedDict):
    """A stored document, without its text."""

    id: str
    title: str | None
    media_type: str
    metadata: dict[str, Any]
    tags: list[str]
    source: str | None
    namespace: str
    principals: list[str]
    version: int
    created_at: str
    updated_at: str
    indexed: bool
    passages: int
    pages: int | None
    """Pages of the file; None where its format has none."""
    characters: int
    content_hash: str
    """SHA-256 of the file's bytes, or of the text that was given."""
    path: str | None
    """Where the file was, below the root that was ingested; None of text that was given."""


class DocumentWithText(Document):
    """A stored document with its text as Markdown."""

    text: str


class DocumentResult(TypedDict):
    """What became of one document that was to be stored."""

    status: Literal["success", "unchanged"]
    document_id: str
    version: int
    passages: int
    embedded: int
    """Passages that got a new vector; the others kept theirs."""
    indexed: bool


class IngestResult(BulkResult):
    """What became of the files of a folder; ``duplicates`` counts those that were unchanged."""

    deleted: int
    """Documents that were deleted since their files are gone."""
    passages: int
    """Passages of what was stored."""
    embedded: int
    """Of these, those that got a new vector so far."""
