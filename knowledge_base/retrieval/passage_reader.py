"""Choosing the passage of each hit that is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from knowledge_base.connection.hashes import HashGroup, Row
from knowledge_base.facts.draft import passage_count
from knowledge_base.index.namespace_languages import NamespaceLanguages
from knowledge_base.index.passages import passages_of_section
from knowledge_base.index.polyglot import Polyglot, QueryWords
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import PartName
from knowledge_base.retrieval.fusion import Ranked

COMPARED_AT_ONCE = 16
"""Passages that are compared with a query before the event loop gets its turn."""


class PassageReader:
    """Chooses passages: the nearest one where the vector retriever found it, else the one with most of the words.

    Args:
        polyglot: Gives the stems of queries and passages.
        languages: Knows the languages of namespaces.
    """

    def __init__(self, polyglot: Polyglot, languages: NamespaceLanguages) -> None:
        self._polyglot = polyglot
        self._languages = languages

    def hashes(self, generation: Generation, ranked: Sequence[Ranked]) -> HashGroup:
        """Returns where the passages are read from that may be shown for facts.

        Args:
            generation: Where the passages are.
            ranked: The facts.
        """
        names = (PartName(item.fact_id, item.revision, position) for item in ranked for position in _positions(item))
        return HashGroup([f"{generation.passage_prefix}:{name.node_id}" for name in names], ["text"])

    async def chosen(
        self, generation: Generation, query: str, ranked: Sequence[Ranked], rows: Sequence[Row]
    ) -> list[tuple[int, str] | None]:
        """Returns the position and text of the passage to show for each fact; None where it is gone.

        Args:
            generation: Where the passages are.
            query: What was asked.
            ranked: The facts.
            rows: What was read from their ``hashes``.
        """
        texts = iter(rows)
        return await self._choose(
            generation, query, [[(position, next(texts)[0]) for position in _positions(item)] for item in ranked]
        )

    async def _choose(
        self, generation: Generation, query: str, found: Sequence[Sequence[tuple[int, str | None]]]
    ) -> list[tuple[int, str] | None]:
        words: QueryWords | None = None
        chosen: list[tuple[int, str] | None] = []
        compared = 0
        for passages in found:
            present = [(position, text) for position, text in passages if text is not None]
            if len(present) > 1:
                if words is None:
                    words = self._polyglot.query(query, await self._languages.of(generation.namespace))
                shared = [words.shared(text) for _, text in present]
                present = [present[shared.index(max(shared))]]
                compared += len(shared)
            chosen.append(present[0] if present else None)
            if compared >= COMPARED_AT_ONCE:
                compared = 0
                await asyncio.sleep(0)
        return chosen


def _positions(item: Ranked) -> Sequence[int]:
    if "vector" in item.found:
        return [item.found["vector"].name.position]
    return passages_of_section(item.found["text"].name.position, passage_count(item.revision))
