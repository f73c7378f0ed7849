"""Reading the passage of each hit that is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from knowledge_base.connection.hashes import read_hashes
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.facts.draft import passage_count
from knowledge_base.index.analysis import Analyzer
from knowledge_base.index.passages import passages_of_section
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import PartName
from knowledge_base.retrieval.fusion import Ranked

COMPARED_AT_ONCE = 16
"""Passages that are compared with a query before the event loop gets its turn."""


class PassageReader:
    """Reads passages: the nearest one where the vector retriever found it, else the one with most of the words.

    Args:
        manager: The connections.
        analyzer: Gives the stems of queries and passages.
    """

    def __init__(self, manager: AsyncRedisManager, analyzer: Analyzer) -> None:
        self._manager = manager
        self._analyzer = analyzer

    async def read(self, generation: Generation, query: str, ranked: Sequence[Ranked]) -> list[tuple[int, str] | None]:
        """Returns the position and text of the passage to show for each fact; None where it is gone.

        Args:
            generation: Where the passages are.
            query: What was asked.
            ranked: The facts.
        """
        choices = [_positions(item) for item in ranked]
        client = await self._manager.search()
        keys = [
            f"{generation.passage_prefix}:{PartName(item.fact_id, item.revision, position).node_id}"
            for item, positions in zip(ranked, choices, strict=True)
            for position in positions
        ]
        texts = iter([row[0] async for rows in read_hashes(client, keys, ["text"]) for row in rows])
        found = [[(position, next(texts)) for position in positions] for positions in choices]
        return await self._choose(query, found)

    async def _choose(
        self, query: str, found: Sequence[Sequence[tuple[int, str | None]]]
    ) -> list[tuple[int, str] | None]:
        words: frozenset[str] | None = None
        chosen: list[tuple[int, str] | None] = []
        compared = 0
        for passages in found:
            present = [(position, text) for position, text in passages if text is not None]
            if len(present) > 1:
                words = words or frozenset(self._analyzer.query_stems(query))
                present.sort(key=lambda passage: -len(words.intersection(self._analyzer.stems(passage[1]))))
                compared += len(present)
            chosen.append(present[0] if present else None)
            if compared >= COMPARED_AT_ONCE:
                compared = 0
                await asyncio.sleep(0)
        return chosen


def _positions(item: Ranked) -> Sequence[int]:
    if "vector" in item.found:
        return [item.found["vector"].name.position]
    return passages_of_section(item.found["text"].name.position, passage_count(item.revision))
