"""Reading facts: by id, newest first, filtered, and one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from knowledge_base.errors import FactNotFoundError
from knowledge_base.facts.records import FactRecord
from knowledge_base.facts.repository import FactRepository
from knowledge_base.index.filters import FilterCompiler
from knowledge_base.index.generations import Generations
from knowledge_base.index.schema import POSITION_FIELD, SEQ_FIELD
from knowledge_base.index.text_index import TextIndex
from knowledge_base.types import Fact, FactVersion

FIRST_SECTION = f"@{POSITION_FIELD}:[0 0]"
MADE_AT_ONCE = 200
"""Facts that are made of records before the event loop gets its turn."""

PAGE = 200
"""Facts that iteration reads at a time."""


class FactReader:
    """Reads the facts that a caller may see.

    Args:
        repository: Where facts are kept.
        text_index: Finds facts by filter.
        generations: Where each namespace's passages are.
        compiler: Turns filters into query text.
    """

    def __init__(
        self, repository: FactRepository, text_index: TextIndex, generations: Generations, compiler: FilterCompiler
    ) -> None:
        self._repository = repository
        self._text_index = text_index
        self._generations = generations
        self._compiler = compiler

    async def by_id(self, namespace: str, fact_id: str, principals: Sequence[str]) -> list[Fact]:
        """Returns one fact, or none.

        Args:
            namespace: Where to look.
            fact_id: The fact.
            principals: Who is asking.
        """
        return await _facts(namespace, await self._repository.read(namespace, [fact_id], principals))

    async def newest(
        self, namespace: str, principals: Sequence[str], filters: Any, *, limit: int, offset: int
    ) -> list[Fact]:
        """Returns facts, newest first.

        Args:
            namespace: Where to look.
            principals: Who is asking.
            filters: What they must match, or None.
            limit: How many at most.
            offset: How many to skip.

        Raises:
            InvalidInputError: The filter cannot be applied.
        """
        scope = self._compiler.compile(filters, principals)
        generation = await self._generations.current(namespace)
        if generation is None:
            return []
        await self._repository.sweep(generation)
        if not filters:
            ids = await self._repository.newest(namespace, principals, offset, limit)
        else:
            ids = await self._text_index.newest(generation, f"({scope} {FIRST_SECTION})", offset, limit)
        return await _facts(namespace, await self._repository.read(namespace, ids, principals))

    async def page_after(
        self, namespace: str, principals: Sequence[str], filters: Any, seq: float
    ) -> tuple[list[Fact], float | None]:
        """Returns the next facts, oldest first, and where to go on.

        Args:
            namespace: Where to look.
            principals: Who is asking.
            filters: What they must match, or None.
            seq: Where the page before ended; 0 to begin.

        Returns:
            Facts, and the place to go on from or None at the end. A page may be empty before the end.

        Raises:
            InvalidInputError: The filter cannot be applied.
        """
        scope = self._compiler.compile(filters, principals)
        generation = await self._generations.current(namespace)
        if generation is None:
            return [], None
        if not filters:
            found = await self._repository.after(namespace, principals, seq, PAGE)
            ids = [fact_id for fact_id, _ in found]
            last = found[-1][1] if found else None
        else:
            query = f"({scope} {FIRST_SECTION} @{SEQ_FIELD}:[({seq:.0f} +inf])"
            ids, last = await self._text_index.oldest(generation, query, PAGE)
        facts = await _facts(namespace, await self._repository.read(namespace, ids, principals))
        return facts, last

    async def history(self, namespace: str, fact_id: str, principals: Sequence[str]) -> list[FactVersion]:
        """Returns the versions of a fact, the current one first.

        Args:
            namespace: Where to look.
            fact_id: The fact.
            principals: Who is asking.

        Raises:
            FactNotFoundError: It is not there, or not visible.
        """
        versions = await self._repository.history(namespace, fact_id, principals)
        if not versions:
            raise FactNotFoundError(fact_id, namespace)
        return versions


async def _facts(namespace: str, records: Sequence[FactRecord | None]) -> list[Fact]:
    facts: list[Fact] = []
    for begin in range(0, len(records), MADE_AT_ONCE):
        if begin:
            await asyncio.sleep(0)
        some = records[begin : begin + MADE_AT_ONCE]
        # A document has the record of a fact, but is none.
        facts += [record.to_fact(namespace) for record in some if record is not None and record.document_id is None]
    return facts
