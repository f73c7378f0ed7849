"""Short ways to what tests ask of facts and hits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase, SearchResults


async def only(kb: KnowledgeBase, fact_id: str, **scope: Any) -> dict[str, Any]:
    facts = await kb.get_fact(fact_id, **scope)
    assert len(facts) == 1
    return dict(facts[0])


async def ids(kb: KnowledgeBase, **arguments: Any) -> set[str]:
    """The ids that ``get_fact`` lists."""
    facts = await kb.get_fact(**arguments)
    found = {fact["id"] for fact in facts}
    assert len(found) == len(facts), "a fact was listed twice"
    return found


def hit_ids(results: SearchResults) -> list[str]:
    """The facts that a search found, best first."""
    return [hit["fact_id"] for hit in results["hits"]]


async def found(kb: KnowledgeBase, query: str, **arguments: Any) -> list[str]:
    """The facts that a search finds, best first."""
    return hit_ids(await kb.search(query, **arguments))
