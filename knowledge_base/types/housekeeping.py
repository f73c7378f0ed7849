"""Shapes of housekeeping: duplicates, namespaces, backups."""

from __future__ import annotations

from typing import Literal, TypeAlias, TypedDict

PrunedBy: TypeAlias = Literal["updated_at", "created_at"]
"""Which time makes a fact old."""


class DuplicateFact(TypedDict):
    """A fact in a group of near duplicates."""

    id: str
    similarity: float
    """Cosine similarity to the first fact of the group; 1.0 for the first one itself."""
    version: int
    created_at: str
    updated_at: str


class DuplicateGroup(TypedDict):
    """Facts that say nearly the same."""

    similarity: float
    """The least similarity in it."""
    facts: list[DuplicateFact]
    """The one that was stored first, then the others, the most similar first."""


class DuplicateReport(TypedDict):
    """Which facts of a namespace are near duplicates."""

    namespace: str
    threshold: float
    facts: int
    """Facts that were compared."""
    not_compared: int
    """Facts that have no vectors yet."""
    duplicates: int
    """Facts in the groups beyond the first of each."""
    groups: list[DuplicateGroup]
    completed: bool
    """Whether all facts were looked at; False when the limit was reached before."""


class NamespaceStats(TypedDict):
    """What is in one namespace."""

    namespace: str
    facts: int
    documents: int
    passages: int
    pending: int
    embedding_model: str | None
    dimension: int | None
    state: Literal["live", "off"]
    """``off``: it is being dropped or renamed, or that was broken off; the same call finishes it."""


class NamespaceReport(TypedDict):
    """What became of a namespace that was copied, renamed or dropped."""

    namespace: str
    target: str | None
    """Where its facts are now; None when it was dropped."""
    facts: int
    documents: int
    keys: int
    """Keys that were removed."""
    took_s: float


class BackupCheck(TypedDict):
    """Whether a backup can be restored."""

    path: str
    ok: bool
    facts: int
    """Facts that were restored."""
    documents: int
    expired: int
    """Facts of the file that have expired since, and were not restored for that reason."""
    checksum: str
    """SHA-256 of the entries that were restored and written once more."""
    problems: list[str]
    """What is wrong, without content; nothing when all is well."""
    took_s: float
