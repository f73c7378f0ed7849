"""Shapes of facts."""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class Fact(TypedDict):
    """A stored fact."""

    id: str
    content: str
    metadata: dict[str, Any]
    tags: list[str]
    source: str | None
    namespace: str
    principals: list[str]
    version: int
    created_at: str
    updated_at: str
    expires_at: str | None
    indexed: bool


class FactVersion(TypedDict):
    """An earlier or the current version of a fact."""

    version: int
    content: str
    metadata: dict[str, Any]
    tags: list[str]
    source: str | None
    updated_at: str


class StoreResult(TypedDict):
    """What became of one fact that was to be stored."""

    status: Literal["success", "duplicate"]
    fact_id: str
    version: int
    indexed: bool


class ParkedFact(TypedDict):
    """A fact that is found by words only, since giving it vectors failed again and again."""

    id: str
    reason: str
    attempts: int
    since: str
