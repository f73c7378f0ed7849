"""The bases that are asked: ours and a RedisVectorStore's, of the same passages and vectors, on one server."""

from __future__ import annotations

from knowledge_base import KnowledgeBase, Settings
from tests.benchmarks.speed.contenders.own import NAMESPACE, KnownVectors
from tests.benchmarks.speed.passages import Material, passage
from tests.benchmarks.speed.processes import ContenderProcess
from tests.support.many_facts import populate


async def grow_own(url: str, material: Material, first: int, end: int) -> None:
    """Adds the passages from one number to another to our base; each is one fact, ``f<number>``.

    Args:
        url: The server's.
        material: Their vectors.
        first: The first number.
        end: The number after the last.
    """
    async with KnowledgeBase(
        Settings(redis_url=url, namespace=NAMESPACE), embed_model=KnownVectors(material, end)
    ) as kb:
        await populate(
            kb,
            end - first,
            first=first,
            with_vectors=False,
            content=passage,
            vectors=lambda number: [material.vectors[number].tobytes()],
        )


def grow_peer(peer: ContenderProcess, first: int, end: int) -> float:
    """Adds the same passages to LlamaIndex's store; returns the seconds that its ``add`` took."""
    return float(peer.run("add", first=first, count=end - first))
