"""A document that was checked and may be stored."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from knowledge_base.documents.blocks import ExtractedDocument
from knowledge_base.errors import InvalidInputError
from knowledge_base.facts import validation
from knowledge_base.facts.draft import checked_source
from knowledge_base.facts.validation import encoded_json
from knowledge_base.settings import Limits

PREFIX_CHARACTERS = 40
"""Characters of a made id that say what the document is."""

DIGEST_CHARACTERS = 20
"""Hexadecimal digits of a made id."""

TITLE_CHARACTERS = SOURCE_CHARACTERS = 256

UNREADABLE = re.compile(r"[^A-Za-z0-9]+")


class DocumentFile(NamedTuple):
    """The file that a document was read from, and how it was then."""

    tree: str
    """Name of the tree that it belongs to; "" for a file that was added by itself."""
    root: str
    path: str
    """Where it is below the root, with slashes."""
    size: int
    modified: float
    changed: float = 0.0
    """When the file or anything about it was last changed, in seconds since 1970; nobody can set it back."""
    inode: int = 0
    """Number of the file on its disk; another one when it was replaced."""


@dataclass(frozen=True, slots=True)
class DocumentLabels:
    """What a caller says about a document, checked and copied."""

    metadata: Mapping[str, Any]
    tags: Sequence[str]
    source: str | None
    principals: Sequence[str]

    def digest(self, cut: str) -> str:
        """Returns what changes with the labels, and with the way that documents are cut.

        Args:
            cut: What ``DocumentChunker.signature`` gave.
        """
        parts = [dict(self.metadata), list(self.tags), self.source, list(self.principals), cut]
        return hashlib.sha256(encoded_json(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class DocumentDraft:
    """One document that is to be stored."""

    namespace: str
    document_id: str
    labels: DocumentLabels
    extracted: ExtractedDocument
    title: str | None
    content_hash: str
    file: DocumentFile | None = None
    whoever_sees: bool = False
    """Whether it replaces the document of the same file of the same tree, even one of other principals."""


def checked_document_id(value: Any) -> str:
    """Returns a document's id.

    Args:
        value: What the caller passed.

    Raises:
        InvalidInputError: It does not match the pattern.
    """
    if not isinstance(value, str) or not validation.FACT_ID_PATTERN.fullmatch(value):
        raise InvalidInputError("document_id", f"must match {validation.FACT_ID_PATTERN.pattern}")
    return value


def checked_title(value: Any, limits: Limits) -> str | None:
    """Returns a title.

    Args:
        value: What the caller passed; None for what the document says itself.
        limits: Gives the limits.

    Raises:
        InvalidInputError: It is no short, printable string.
    """
    return None if value is None else validation.checked_label("title", value, limits.label_chars)


def checked_labels(metadata: Any, tags: Any, source: Any, principals: Any, limits: Limits) -> DocumentLabels:
    """Checks what a caller says about a document.

    Args:
        metadata: A JSON object, or None.
        tags: Labels.
        source: Where it comes from, or None.
        principals: Who may see it, or None for everybody in the namespace.
        limits: The limits.

    Raises:
        InvalidInputError: An argument is refused.
    """
    return DocumentLabels(
        validation.checked_metadata(metadata, limits),
        validation.checked_labels("tags", tags, limits.tags, limits.label_chars),
        checked_source(source, limits),
        validation.checked_principals(principals, limits),
    )


def made_id(readable: str, *parts: str) -> str:
    """Returns an id that is always the same for the same parts.

    Args:
        readable: What its beginning is made of, as far as ids allow.
        *parts: What it stands for.
    """
    digest = hashlib.sha256("\x00".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:DIGEST_CHARACTERS]
    prefix = UNREADABLE.sub("-", readable).strip("-")[-PREFIX_CHARACTERS:].strip("-")
    return f"{prefix}-{digest}" if prefix else digest


def short_title(title: str | None) -> str | None:
    """Returns a title that a document gives itself, as one line that is not too long; None for none.

    Args:
        title: What the document says.
    """
    text = " ".join((title or "").split())[:TITLE_CHARACTERS].strip()
    return text or None


def path_as_source(relative: str) -> str:
    """Returns a path as a source, which is a line of text and not too long.

    Args:
        relative: The path below its root.
    """
    text = "".join("\ufffd" if unicodedata.category(character) == "Cc" else character for character in relative)
    return text[-SOURCE_CHARACTERS:].strip() or "\ufffd"
