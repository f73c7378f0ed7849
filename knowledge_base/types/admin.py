"""Shapes of what is said of the base itself."""

from __future__ import annotations

from typing import Literal, TypedDict

from knowledge_base.types.facts import ParkedFact


class IntegrityReport(TypedDict):
    """What waits in a namespace, and what was given up."""

    namespace: str
    facts: int
    pending: int
    parked: list[ParkedFact]
    repaired: int
    ok: bool


class Stats(TypedDict):
    """Counts of one namespace."""

    namespace: str
    facts: int
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
