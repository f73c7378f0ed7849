"""Knowledge bases whose vectors come from the fake endpoint, and what became of those vectors."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from tests.support.control import Control

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase, SearchResults

KEY = "sk-0123456789-secret"
MODEL = "test-embedding"
BYTES_PER_NUMBER = 4


class OpenRemote(Protocol):
    """Makes a knowledge base that asks the fake endpoint and that the fixture closes."""

    def __call__(self, embedding: Mapping[str, Any] | None = None, **changes: Any) -> KnowledgeBase: ...


def vector_of(control: Control, namespace: str, fact_id: str) -> list[float] | None:
    """Returns the vector that is stored for a fact of one passage; None where there is none."""
    keys = [key for key in control.keys(namespace) if ":passage:" in key and f":{fact_id}:" in key]
    found = [value for key in keys if (value := control.run("HGET", key, "vector")) is not None]
    assert len(found) <= 1, f"{fact_id} has more than one passage"
    return array("f", found[0]).tolist() if found else None


def vectors_stored(control: Control, namespace: str) -> int:
    """Returns how many vectors a namespace has."""
    keys = [key for key in control.keys(namespace) if ":passage:" in key]
    return sum(control.run("HGET", key, "vector") is not None for key in keys)


async def search_all(kb: KnowledgeBase, queries: Iterable[str], **arguments: Any) -> list[SearchResults]:
    """Asks every question at the same time."""
    return await asyncio.gather(*(kb.search(query, **arguments) for query in queries))


async def breaker_failures(kb: KnowledgeBase) -> int:
    """Returns how often in a row the embedding model has failed."""
    stats = await kb.get_detailed_stats()
    return next(one["failures"] for one in stats["breakers"] if one["name"] == "embedding")
