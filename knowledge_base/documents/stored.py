"""Between the record of a document in Redis and what callers get."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from knowledge_base.documents.draft import DocumentFile
from knowledge_base.facts.records import FIELDS as FACT_FIELDS
from knowledge_base.facts.records import FactRecord, decode_record
from knowledge_base.types import Document

OWN_FIELDS = ("title", "media_type", "pages", "characters", "passages", "content_hash", "made", "file")
FIELDS = (*FACT_FIELDS, *OWN_FIELDS)


class StoredDocument(NamedTuple):
    """The stored fields of a document, decoded."""

    record: FactRecord
    title: str | None
    media_type: str
    pages: int | None
    characters: int
    passages: int
    content_hash: str
    made: str
    """Tells whether the same content would be stored otherwise now: digest of its labels and of how it is cut."""
    file: DocumentFile | None

    @property
    def document_id(self) -> str:
        """Its id."""
        return self.record.fact_id

    def to_document(self, namespace: str) -> Document:
        """Returns what callers get.

        Args:
            namespace: Where it is.
        """
        fact = self.record.to_fact(namespace)
        return {
            "id": self.document_id,
            "title": self.title,
            "media_type": self.media_type,
            "metadata": fact["metadata"],
            "tags": fact["tags"],
            "source": fact["source"],
            "namespace": namespace,
            "principals": fact["principals"],
            "version": fact["version"],
            "created_at": fact["created_at"],
            "updated_at": fact["updated_at"],
            "indexed": fact["indexed"],
            "passages": self.passages,
            "pages": self.pages,
            "characters": self.characters,
            "content_hash": self.content_hash,
            "path": None if self.file is None else self.file.path,
        }


class DocumentState(NamedTuple):
    """What of a document is kept as it was, when it is restored."""

    version: int
    created_at: int
    updated_at: int


def decode_document(document_id: str, values: Sequence[str | None]) -> StoredDocument | None:
    """Returns a document; None when there is none, or a fact has the id.

    Args:
        document_id: Its id.
        values: The values of ``FIELDS``.
    """
    record = decode_record(document_id, values[: len(FACT_FIELDS)])
    if record is None or record.document_id is None:
        return None
    own: Mapping[str, Any] = dict(zip(OWN_FIELDS, values[len(FACT_FIELDS) :], strict=True))
    return StoredDocument(
        record=record,
        title=own["title"] or None,
        media_type=own["media_type"],
        pages=int(own["pages"]) if own["pages"] else None,
        characters=int(own["characters"]),
        passages=int(own["passages"]),
        content_hash=own["content_hash"],
        made=own["made"],
        file=DocumentFile(**json.loads(own["file"])) if own["file"] else None,
    )
