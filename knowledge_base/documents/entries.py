"""Reading the record of a document that somebody brings: everything in it is checked before anything is written."""

from __future__ import annotations

import base64
import binascii
import math
from array import array
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from knowledge_base.connection.giving_way import giving_way
from knowledge_base.documents.blocks import Block, BlockKind, ExtractedDocument
from knowledge_base.documents.draft import DocumentDraft, DocumentFile, checked_document_id, checked_labels
from knowledge_base.documents.stored import DocumentState
from knowledge_base.errors import InvalidInputError
from knowledge_base.facts import validation
from knowledge_base.index.schema import Generation
from knowledge_base.settings import Limits

KEYS = frozenset(
    {
        *("id", "title", "media_type", "pages", "metadata", "tags", "source", "principals", "version"),
        *("created_at", "updated_at", "content_hash", "file", "blocks", "vectors"),
    }
)
BLOCK_KINDS = get_args(BlockKind)
LONGEST_NAME = 4_096
BYTES_PER_NUMBER = 4
DEEPEST_HEADING = 6
MOST_PAGES = 1_000_000
MOST_BYTES = 2**53
MOST_INODE = 2**64
MOST_SECONDS = 2**63
"""Times of files reach as far as file systems let them."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 1, 1, tzinfo=UTC)
"""Later times could not be told in every time zone."""


def entry_draft(entry: Mapping[str, Any], namespace: str, limits: Limits) -> tuple[DocumentDraft, DocumentState]:
    """Returns the document that an entry holds; takes a while for much text.

    Args:
        entry: What ``DocumentArchive.read`` gave.
        namespace: Where the document is to be restored.
        limits: The limits.

    Raises:
        InvalidInputError: The entry is damaged.
    """
    for name in entry:
        # A name that is spelt wrong must not make public what is for a few.
        if name not in KEYS:
            raise InvalidInputError("document", f"unknown key {str(name)[:64]!r}")
    if "principals" not in entry:
        raise InvalidInputError("principals", "is required; an empty list is for everybody in the namespace")
    title = entry.get("title")
    pages = entry.get("pages")
    draft = DocumentDraft(
        namespace=namespace,
        document_id=checked_document_id(entry.get("id")),
        labels=checked_labels(
            entry.get("metadata"), entry.get("tags"), entry.get("source"), entry.get("principals"), limits
        ),
        extracted=ExtractedDocument(
            title,
            _text("media_type", entry.get("media_type")),
            _blocks(entry.get("blocks"), limits),
            None if pages is None else validation.checked_number("pages", pages, 0, MOST_PAGES),
        ),
        title=None if title is None else _text("title", title),
        content_hash=_text("content_hash", entry.get("content_hash")),
        file=_file(entry.get("file")),
    )
    version = validation.checked_number("version", entry.get("version"), 1, 2**53)
    times = (_milliseconds("created_at", entry), _milliseconds("updated_at", entry))
    return draft, DocumentState(version, *times)


def entry_vectors(entry: Mapping[str, Any], generation: Generation) -> dict[str, bytes]:
    """Returns the vectors of an entry by the texts of their passages; none when another model made them.

    Args:
        entry: What ``DocumentArchive.read`` gave.
        generation: Where they are to go.

    Raises:
        InvalidInputError: They are damaged.
    """
    known = entry.get("vectors")
    if not isinstance(known, Mapping):
        return {}
    if (known.get("model"), known.get("dimension")) != (generation.model, generation.dimension):
        return {}
    rows = known.get("passages") or []
    if not isinstance(rows, list):
        raise InvalidInputError("vectors", "must have a list of passages")
    found: dict[str, bytes] = {}
    for row in giving_way(rows):
        try:
            text, encoded = row
            vector = None if encoded is None else base64.b64decode(encoded, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise InvalidInputError("vectors", "must be pairs of a text and a vector in base64") from None
        if vector is None:
            continue
        if not isinstance(text, str) or len(vector) != BYTES_PER_NUMBER * generation.dimension:
            raise InvalidInputError("vectors", f"one of them has not {generation.dimension} numbers")
        numbers = array("f", vector)
        if not math.isfinite(sum(numbers)) or not any(numbers):
            raise InvalidInputError("vectors", "must have finite numbers that are not all 0")
        found[text] = vector
    return found


def _blocks(value: Any, limits: Limits) -> list[Block]:
    if not isinstance(value, list) or not value:
        raise InvalidInputError("blocks", "must be a list that is not empty")
    blocks: list[Block] = []
    characters = 0
    for row in giving_way(value):
        if not isinstance(row, list) or len(row) != len(Block._fields):
            raise InvalidInputError("blocks", "each must be a list of kind, text, level and page")
        kind, text, level, page = row
        if kind not in BLOCK_KINDS or not isinstance(text, str):
            raise InvalidInputError("blocks", f"a kind must be one of {', '.join(BLOCK_KINDS)}, and a text a string")
        validation.checked_number("blocks.level", level, int(kind == "heading"), DEEPEST_HEADING)
        if page is not None:
            validation.checked_number("blocks.page", page, 1, MOST_PAGES)
        validation.refuse_unstorable("blocks", text)
        characters += len(text)
        if characters > limits.document_chars:
            problem = f"have more than {limits.document_chars} characters"
            raise InvalidInputError("blocks", problem, limit=limits.document_chars)
        blocks.append(Block(kind, text, level, page))
    return blocks


def _file(value: Any) -> DocumentFile | None:
    if value is None:
        return None
    names = set(DocumentFile._fields)
    if not isinstance(value, Mapping) or not names - set(DocumentFile._field_defaults) <= set(value) <= names:
        raise InvalidInputError("file", f"must have {', '.join(DocumentFile._fields)}")
    tree, root, path = texts = [value[name] for name in ("tree", "root", "path")]
    if not all(isinstance(text, str) and len(text) <= LONGEST_NAME for text in texts):
        raise InvalidInputError("file", f"its names must be strings of at most {LONGEST_NAME} characters")
    for text in texts:
        validation.refuse_unstorable("file", text)
    return DocumentFile(
        tree,
        root,
        path,
        validation.checked_number("file.size", value["size"], 0, MOST_BYTES),
        _seconds("file.modified", value["modified"]),
        _seconds("file.changed", value.get("changed", 0.0)),
        validation.checked_number("file.inode", value.get("inode", 0), 0, MOST_INODE),
    )


def _seconds(field: str, value: Any) -> float:
    # Compared as it is: not every whole number becomes a float. What is no number is not less than anything either.
    if isinstance(value, bool) or not isinstance(value, int | float) or not -MOST_SECONDS <= value <= MOST_SECONDS:
        raise InvalidInputError(field, "must be a finite number of seconds", limit=MOST_SECONDS)
    return float(value)


def _text(field: str, value: Any) -> str:
    return validation.checked_text(field, value, LONGEST_NAME)


def _milliseconds(field: str, entry: Mapping[str, Any]) -> int:
    value = entry.get(field)
    try:
        time = datetime.fromisoformat(value)  # type: ignore[arg-type]
        if not EPOCH <= time < LATEST:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InvalidInputError(
            field, "must be a time in ISO 8601 with its zone, of the years 1970 to 9998 in UTC"
        ) from None
    return (time - EPOCH) // timedelta(milliseconds=1)
