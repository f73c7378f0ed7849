"""Between the hash of a fact in Redis and what callers get."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from knowledge_base.clock import iso_time
from knowledge_base.types import Fact, FactVersion

LABELS = (
    "metadata",
    "tags",
    "source",
    "principals",
    "document",
    "version",
    "revision",
    "seq",
    "created_at",
    "updated_at",
    "expires_at",
    "indexed",
)
"""Every field of a fact but its content, which may be long."""

FIELDS = ("content", *LABELS)
METADATA = FIELDS.index("metadata")
VERSION = FIELDS.index("version")


class FactRecord(NamedTuple):
    """The stored fields of a fact, decoded."""

    fact_id: str
    content: str
    metadata: dict[str, Any]
    tags: list[str]
    source: str | None
    principals: list[str]
    document_id: str | None
    version: int
    revision: str
    seq: str
    created_at: int
    updated_at: int
    expires_at: int | None
    indexed: bool

    def is_visible(self, principals: Sequence[str], now: int) -> bool:
        """Tells whether a caller may see the fact at a time.

        Args:
            principals: Who is asking.
            now: Milliseconds since 1970.
        """
        if self.expires_at is not None and self.expires_at <= now:
            return False
        return not self.principals or any(principal in principals for principal in self.principals)

    def to_fact(self, namespace: str) -> Fact:
        """Returns what callers get.

        Args:
            namespace: Where the fact is.
        """
        return {
            "id": self.fact_id,
            "content": self.content,
            "metadata": self.metadata,
            "tags": self.tags,
            "source": self.source,
            "namespace": namespace,
            "principals": self.principals,
            "version": self.version,
            "created_at": iso_time(self.created_at),
            "updated_at": iso_time(self.updated_at),
            "expires_at": None if self.expires_at is None else iso_time(self.expires_at),
            "indexed": self.indexed,
        }

    def to_version(self) -> FactVersion:
        """Returns the current version as history shows it."""
        return {
            "version": self.version,
            "content": self.content,
            "metadata": self.metadata,
            "tags": self.tags,
            "source": self.source,
            "updated_at": iso_time(self.updated_at),
        }


def decode_record(fact_id: str, values: Sequence[str | None]) -> FactRecord | None:
    """Returns a fact, or None when there is none.

    Args:
        fact_id: Its id.
        values: The values of ``FIELDS``.
    """
    (
        content,
        metadata,
        tags,
        source,
        principals,
        document,
        version,
        revision,
        seq,
        created,
        updated,
        expires,
        indexed,
    ) = values
    if content is None:
        return None
    return FactRecord(
        fact_id,
        content,
        _decoded(metadata),
        _decoded(tags),
        source or None,
        _decoded(principals),
        document or None,
        int(version or 0),
        revision or "",
        seq or "",
        int(created or 0),
        int(updated or 0),
        int(expires) if expires else None,
        indexed == "1",
    )


def _decoded(text: str | None) -> Any:
    # Most facts have none of some of these.
    return [] if text == "[]" else {} if text == "{}" else json.loads(text or "null")


def decode_version(snapshot: str) -> FactVersion:
    """Returns an earlier version of a fact.

    Args:
        snapshot: An entry of its history.
    """
    stored = json.loads(snapshot)
    return {
        "version": int(stored["version"]),
        "content": stored["content"],
        "metadata": json.loads(stored["metadata"]),
        "tags": json.loads(stored["tags"]),
        "source": stored["source"] or None,
        "updated_at": iso_time(int(stored["updated_at"])),
    }
