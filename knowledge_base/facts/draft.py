"""A fact that was checked and may be stored."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from knowledge_base.errors import InvalidInputError
from knowledge_base.facts import validation
from knowledge_base.settings import Limits
from knowledge_base.types import OnDuplicate

REVISION_LENGTH = 12
"""Hexadecimal digits that tell two contents of one fact apart."""


@dataclass(frozen=True, slots=True)
class FactDraft:
    """The checked arguments of one store, in copies of their own."""

    namespace: str
    fact_id: str
    content: str
    metadata: Mapping[str, Any]
    tags: Sequence[str]
    source: str | None
    principals: Sequence[str]
    expires_in: float | None
    on_duplicate: OnDuplicate


def content_digest(content: str, principals: Sequence[str]) -> str:
    """Returns what a content is found by when it is stored again; that of different principals never meets.

    Args:
        content: The content.
        principals: Who may see it, in order of name.
    """
    parts = [content, *principals]
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()


def revision(version: int, digest: str, passages: int) -> str:
    """Returns the name that the passages and sections of a content carry.

    It is made of the content, so that a late or repeated insert of it writes what is there already.

    Args:
        version: The fact's version that brings the content.
        digest: What ``content_digest`` gave.
        passages: How many passages the content has.
    """
    return f"{version}-{digest[:REVISION_LENGTH]}-{passages}"


def passage_count(revision: str) -> int:
    """Returns how many passages a revision has.

    Args:
        revision: What ``revision`` gave.
    """
    return int(revision.rpartition("-")[2])


def checked_source(value: Any, limits: Limits) -> str | None:
    """Returns a source.

    Args:
        value: What the caller passed; None for none.
        limits: Gives the limits.

    Raises:
        InvalidInputError: It is no short, printable string.
    """
    return None if value is None else validation.checked_label("source", value, limits.label_chars)


def draft_fact(
    content: Any,
    metadata: Any = None,
    *,
    namespace: str,
    limits: Limits,
    fact_id: Any = None,
    tags: Any = (),
    source: Any = None,
    principals: Any = None,
    expires_in: Any = None,
    on_duplicate: Any = "return",
) -> FactDraft:
    """Checks the arguments of one store.

    Args:
        content: The content.
        metadata: A JSON object, or None.
        namespace: Where to, checked already.
        limits: The limits.
        fact_id: The caller's id, or None for one of our own.
        tags: Labels.
        source: Where the fact comes from, or None.
        principals: Who may see it, or None for everybody in the namespace.
        expires_in: Seconds or a ``timedelta``, or None for never.
        on_duplicate: What to do when it is there already.

    Raises:
        InvalidInputError: An argument is refused.
    """
    validation.checked_choice("on_duplicate", on_duplicate, validation.ON_DUPLICATE)
    return FactDraft(
        namespace=namespace,
        fact_id=uuid.uuid4().hex if fact_id is None else validation.checked_fact_id(fact_id),
        content=validation.checked_text("content", content, limits.content_chars),
        metadata=validation.checked_metadata(metadata, limits),
        tags=validation.checked_labels("tags", tags, limits.tags, limits.label_chars),
        source=checked_source(source, limits),
        principals=validation.checked_principals(principals, limits),
        expires_in=validation.checked_expiry(expires_in),
        on_duplicate=on_duplicate,
    )


BULK_KEYS = frozenset(
    {"content", "metadata", "fact_id", "tags", "source", "principals", "expires_in", "on_duplicate", "namespace"}
)


def draft_item(item: Any, namespace: str, limits: Limits) -> FactDraft:
    """Checks one item of a bulk store.

    Args:
        item: A mapping with the arguments of ``store_fact`` as keys.
        namespace: Used where the item names none.
        limits: The limits.

    Raises:
        InvalidInputError: The item or an argument is refused.
    """
    if not isinstance(item, Mapping):
        raise InvalidInputError("facts", f"an item must be a mapping, not {type(item).__name__}")
    unknown = sorted(str(key)[:64] for key in item if key not in BULK_KEYS)
    if unknown:
        raise InvalidInputError("facts", f"unknown key {unknown[0]!r}; use {', '.join(sorted(BULK_KEYS))}")
    if "content" not in item:
        raise InvalidInputError("content", "is missing")
    own = item.get("namespace")
    arguments = {key: value for key, value in item.items() if key not in {"content", "namespace"}}
    return draft_fact(
        item["content"],
        namespace=namespace if own is None else validation.checked_namespace(own),
        limits=limits,
        **arguments,
    )
