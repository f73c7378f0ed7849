"""Reads whole facts, oldest first, in pages that neither the server nor the event loop feels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from knowledge_base.admin.transfer.patience import patiently
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import LuaScript
from knowledge_base.errors import UnavailableError
from knowledge_base.facts.reader import FIRST_SECTION
from knowledge_base.index.filters import tag_clause
from knowledge_base.index.generations import Generations
from knowledge_base.index.schema import SEQ_FIELD, Generation
from knowledge_base.index.text_index import TextIndex
from knowledge_base.keyspace import Keyspace

IDS_AT_ONCE = 1_000
FACTS_AT_ONCE = 200
BYTES_AT_ONCE = 1_000_000
"""Facts, and bytes of them, that one round trip brings; one fact may have more."""


class FactPage(NamedTuple):
    """Some facts, as they were read."""

    fact_ids: Sequence[str]
    rows: Sequence[Any]
    """For each the values of a ``StoredFact``; None when it is gone."""


class FactPages:
    """Walks through the facts of a namespace, whoever may see them.

    Args:
        manager: The connections.
        generations: Says which index is live.
        text_index: Finds what matches a filter.
    """

    def __init__(self, manager: AsyncRedisManager, generations: Generations, text_index: TextIndex) -> None:
        self._manager = manager
        self._generations = generations
        self._text_index = text_index
        self._read = LuaScript("knowledge_base.admin", "export_facts", repeatable=True)

    async def count(self, namespace: str) -> tuple[int, int]:
        """Returns how many facts and documents a namespace has.

        Args:
            namespace: The namespace.
        """
        client = await self._manager.main()
        keys = Keyspace(namespace)
        pipeline = client.pipeline(transaction=False)
        pipeline.zcard(keys.facts)
        pipeline.zcard(keys.documents)
        facts, documents = await pipeline.execute()
        return facts, documents

    async def pages(
        self, generation: Generation, clause: str, seq: float, *, with_vectors: bool
    ) -> AsyncIterator[FactPage]:
        """Yields facts; each that is there all the while exactly once, since its sequence number never changes.

        Args:
            generation: The index when the walk began, whose model the vectors must have.
            clause: Compiled filter text; empty for all.
            seq: The sequence number after which to begin.
            with_vectors: Whether passages and vectors are read as well.

        Raises:
            UnavailableError: Redis could not be reached, or the base was moved to another model meanwhile.
        """
        place: float | None = seq
        while place is not None:
            fact_ids, place = await patiently(partial(self._next_ids, generation, clause, place))
            read = 0
            while read < len(fact_ids):
                some = fact_ids[read : read + FACTS_AT_ONCE]
                reply = await patiently(partial(self._rows, generation.namespace, some, with_vectors))
                model, dimension, *rows = reply
                if with_vectors and (model, dimension) != (generation.model, generation.dimension):
                    raise UnavailableError("the base was moved to another embedding model meanwhile; export again")
                yield FactPage(some[: len(rows)], rows)
                read += len(rows)

    async def matches(self, generation: Generation, clause: str, document_id: str) -> bool:
        """Tells whether a document matches a filter.

        Args:
            generation: The index when the walk began.
            clause: Compiled filter text; empty for all.
            document_id: Its id.
        """
        if not clause:
            return True
        live = await self._generations.current(generation.namespace) or generation
        # Each of its sections has all of its labels; which one is the first stands in none.
        query = f"({clause} {tag_clause('fact_id', [document_id])})"
        return bool(await self._text_index.newest(live, query, 0, 1))

    async def created_at(self, namespace: str, entry_id: str, seq: float) -> int | None:
        """Returns when a fact or document was made; None when there is none of this id and sequence number.

        Args:
            namespace: Where it is.
            entry_id: Its id.
            seq: Its sequence number.
        """
        client = await self._manager.main()
        pipeline = client.pipeline(transaction=False)
        pipeline.hmget(Keyspace(namespace).fact(entry_id), ["seq", "created_at"])
        ((found, made),) = await pipeline.execute()
        return None if found is None or float(found) != seq else int(made)

    async def _next_ids(
        self, generation: Generation, clause: str, seq: float, _: bool
    ) -> tuple[list[str], float | None]:
        if clause:
            live = await self._generations.current(generation.namespace) or generation
            query = f"({clause} {FIRST_SECTION} @{SEQ_FIELD}:[({seq:.0f} +inf])"
            return await self._text_index.oldest(live, query, IDS_AT_ONCE)
        client = await self._manager.main()
        facts = Keyspace(generation.namespace).facts
        found = await client.zrangebyscore(facts, f"({seq:.0f}", "+inf", start=0, num=IDS_AT_ONCE, withscores=True)
        return [fact_id for fact_id, _ in found], found[-1][1] if found else None

    async def _rows(self, namespace: str, fact_ids: Sequence[str], with_vectors: bool, _: bool) -> list[Any]:
        client = await self._manager.main()
        keys = Keyspace(namespace)
        options: list[str | int] = [keys.root, BYTES_AT_ONCE, int(with_vectors)]
        reply = await self._read(client, [keys.generation], [*options, *fact_ids], as_bytes=True)
        model, dimension, *rows = reply
        return [None if model is None else model.decode(), int(dimension or 0), *rows]
