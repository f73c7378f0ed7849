"""A fact as a transfer file tells it, checked."""

from __future__ import annotations

import base64
import binascii
import math
import uuid
from array import array
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from knowledge_base.errors import InvalidInputError
from knowledge_base.facts import validation
from knowledge_base.facts.draft import checked_source
from knowledge_base.facts.parts import FactParts
from knowledge_base.facts.restore import WholeFact
from knowledge_base.facts.validation import encoded_json
from knowledge_base.settings import Limits

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 1, 1, tzinfo=UTC)
"""Later times could not be told in every time zone."""

MOST_VERSION = 2**53
FLOAT_BYTES = 4
MOST_PASSAGES = 1_000_000

KEYS = frozenset(
    {
        *("kind", "namespace", "id", "fact_id", "content", "metadata", "tags", "source", "principals", "version"),
        *("created_at", "updated_at", "expires_at", "history", "passages", "indexed"),
    }
)
VERSION_KEYS = frozenset({"version", "content", "metadata", "tags", "source", "updated_at"})


class Passage(NamedTuple):
    """A passage with its vector."""

    text: str
    vector: bytes


class ImportedFact(NamedTuple):
    """A fact that may be restored, once it has its parts."""

    fact_id: str
    content: str
    metadata: Mapping[str, Any]
    tags: Sequence[str]
    source: str | None
    principals: Sequence[str]
    version: int
    created_at: int
    updated_at: int
    expires_at: int | None
    history: Sequence[str]
    passages: Sequence[Passage]
    """What it was embedded as; nothing when that is not known."""

    def whole(self, parts: FactParts, dimension: int | None) -> WholeFact:
        """Returns the fact with its parts; with its vectors, if they belong to these very passages.

        Args:
            parts: What its content is cut into now.
            dimension: Length of the vectors that may be used; None for none.
        """
        vectors: list[bytes] | None = None
        if dimension is not None and [passage.text for passage in self.passages] == list(parts.passages):
            vectors = [passage.vector for passage in self.passages]
            if any(len(vector) != FLOAT_BYTES * dimension for vector in vectors):
                vectors = None
        return WholeFact(*self[:-1], parts=parts, vectors=vectors)


def imported_fact(entry: Mapping[str, Any], limits: Limits, now: int) -> ImportedFact:
    """Checks an entry.

    Args:
        entry: What the file says.
        limits: The limits.
        now: Milliseconds since 1970; the time of a fact that tells none.

    Raises:
        InvalidInputError: A field is refused.
    """
    _refuse_unknown("entry", entry, KEYS)
    if "content" not in entry:
        raise InvalidInputError("content", "is missing")
    fact_id = entry.get("id", entry.get("fact_id"))
    created_at = _milliseconds("created_at", entry.get("created_at"), now)
    expires_at = entry.get("expires_at")
    return ImportedFact(
        fact_id=uuid.uuid4().hex if fact_id is None else validation.checked_fact_id(fact_id),
        content=validation.checked_text("content", entry["content"], limits.content_chars),
        metadata=validation.checked_metadata(entry.get("metadata"), limits),
        tags=validation.checked_labels("tags", entry.get("tags"), limits.tags, limits.label_chars),
        source=checked_source(entry.get("source"), limits),
        principals=validation.checked_principals(entry.get("principals"), limits),
        version=validation.checked_number("version", entry.get("version", 1), 1, MOST_VERSION),
        created_at=created_at,
        updated_at=_milliseconds("updated_at", entry.get("updated_at"), created_at),
        expires_at=None if expires_at is None else _milliseconds("expires_at", expires_at, 0),
        history=[_snapshot(version, limits) for version in _items("history", entry.get("history"), limits.history)],
        passages=[_passage(passage) for passage in _items("passages", entry.get("passages"), MOST_PASSAGES)],
    )


def _snapshot(version: Any, limits: Limits) -> str:
    if not isinstance(version, Mapping) or not {"version", "content", "updated_at"} <= version.keys():
        raise InvalidInputError("history", "an earlier version must have version, content and updated_at")
    _refuse_unknown("history", version, VERSION_KEYS)
    source = checked_source(version.get("source"), limits)
    number = validation.checked_number("history", version["version"], 1, MOST_VERSION)
    return encoded_json(
        {
            "version": str(number),
            "content": validation.checked_text("history", version["content"], limits.content_chars),
            "metadata": encoded_json(validation.checked_metadata(version.get("metadata"), limits)),
            "tags": encoded_json(
                validation.checked_labels("tags", version.get("tags"), limits.tags, limits.label_chars)
            ),
            "source": source or "",
            "updated_at": str(_milliseconds("history", version["updated_at"], 0)),
        }
    )


def _passage(passage: Any) -> Passage:
    if not isinstance(passage, Mapping) or not isinstance(passage.get("text"), str):
        raise InvalidInputError("passages", "a passage must have text and vector")
    try:
        vector = base64.b64decode(passage.get("vector"), validate=True)  # type: ignore[arg-type]
        numbers = array("f", vector)
    except (TypeError, ValueError, binascii.Error):
        raise InvalidInputError("passages", "a vector must be float32 numbers in base64") from None
    if not math.isfinite(sum(numbers)) or not any(numbers):
        raise InvalidInputError("passages", "a vector must have finite numbers that are not all 0")
    return Passage(passage["text"], vector)


def _items(field: str, value: Any, most: int) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidInputError(field, "must be a list")
    # Of too many earlier versions the latest are kept.
    return value[:most]


def _refuse_unknown(field: str, entry: Mapping[str, Any], known: frozenset[str]) -> None:
    for key in entry:
        if key not in known:
            raise InvalidInputError(field, f"unknown key {key[:64]!r}")


def _milliseconds(field: str, value: Any, default: int) -> int:
    if value is None:
        return default
    try:
        instant = datetime.fromisoformat(value)
        if not EPOCH <= instant < LATEST:
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise InvalidInputError(
            field, "must be a time in ISO 8601 with its offset from UTC, of the years 1970 to 9998 in UTC"
        ) from None
    return (instant - EPOCH) // timedelta(milliseconds=1)
