"""Shapes of what is said of the base itself."""

from __future__ import annotations

from typing import Literal, TypeAlias, TypedDict

from knowledge_base.types.facts import ParkedFact

FindingKind: TypeAlias = Literal[
    "missing_parts",
    "wrong_labels",
    "wrong_vectors",
    "missing_vectors",
    "forgotten",
    "unlisted",
    "damaged_records",
    "stray_parts",
    "stale_parts",
    "orphaned_generations",
    "stray_history",
    "stray_entries",
    "stray_pending",
    "wrong_counts",
    "missing_index",
    "wrong_index",
    "incomplete_index",
    "foreign_types",
    "unknown_keys",
    "parked",
]
"""What an integrity check can find."""


class IntegrityExample(TypedDict, total=False):
    """One thing that an integrity check found."""

    kind: FindingKind
    id: str
    """The fact or document, where it is one."""
    key: str
    """The key in Redis or the name of the index, where it is one."""
    detail: str
    """What is wrong with it, where the kind does not say it all."""


class IntegrityReport(TypedDict):
    """What does not agree in a namespace, what waits there, and what was given up."""

    namespace: str
    facts: int
    documents: int
    pending: int
    parked: list[ParkedFact]
    """Those that were given up before the check; a repair has made them pending again."""
    findings: dict[FindingKind, int]
    """How many of each kind were found, the repaired ones included; kinds of which there are none are left out."""
    examples: list[IntegrityExample]
    """Some of each kind."""
    repaired: int
    """How many of all that was found are mended."""
    ok: bool
    """Whether nothing was found, or all of it is mended."""


class RebuildReport(TypedDict):
    """What a rebuild of a search index did."""

    namespace: str
    generation: int | None
    """Number of the generation that is live now; None where nothing was ever written."""
    replaced: int | None
    """Number of the one that was live before."""
    model: str | None
    """Identity of the embedding model that it was built for."""
    dimension: int | None
    facts: int
    """Facts and documents that it was filled with."""
    embedded: int
    """Of these, those that were embedded anew."""
    resumed: bool
    """Whether it went on where another process had stopped."""
    took_s: float
    """Seconds until it was live; the old one was dropped some seconds later."""


class Stats(TypedDict):
    """Counts of one namespace."""

    namespace: str
    facts: int
    documents: int
    passages: int
    pending: int
    parked: int
    embedding_model: str | None
    dimension: int | None


class PoolStats(TypedDict):
    """One pool of connections or threads."""

    connections: int
    in_use: int
    waiting: int
    limit: int
    waiting_limit: int | None
    """How many may wait before others are refused; None where only time limits that."""
    retried: int
    """Exchanges that were repeated since their connection had died."""
    abandoned: int
    """Threads that are busy although their caller has gone."""


class BreakerStats(TypedDict):
    """One circuit breaker."""

    name: str
    state: Literal["closed", "open", "half_open"]
    failures: int
    opened: int
    retry_after: float


class DetailedStats(Stats):
    """Counts of one namespace, and the state of what serves it."""

    tags: dict[str, int]
    sources: dict[str, int]
    index_name: str | None
    index_bytes: int
    index_failures: int
    redis_memory_bytes: int
    redis_version: str
    search_version: str | None
    pools: dict[str, PoolStats]
    breakers: list[BreakerStats]


class PartHealth(TypedDict):
    """One part that a knowledge base depends on."""

    ok: bool
    detail: str
    took_ms: float


class Health(TypedDict):
    """Whether a knowledge base runs and can serve."""

    live: bool
    ready: bool
    parts: dict[str, PartHealth]
