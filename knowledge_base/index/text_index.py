"""Searches that need no vector: by words, and by filter alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from knowledge_base.connection.manager import AsyncRedisManager, PoolName
from knowledge_base.errors import KnowledgeBaseError, UnavailableError
from knowledge_base.index.candidate import Candidates
from knowledge_base.index.generations import GenerationMovedError, Generations, is_missing_index
from knowledge_base.index.schema import POSITION_FIELD, SEQ_FIELD, Generation
from knowledge_base.index.text_query import bm25_query
from knowledge_base.keyspace import PartName

MOST_RESULTS = 1_000_000
"""Place up to which the server ranks; it refuses to look further (``MAXSEARCHRESULTS``)."""


class TextIndex:
    """Asks a namespace's index through the guarded client.

    Args:
        manager: The connections.
        generations: Creates an index anew that has vanished.
    """

    def __init__(self, manager: AsyncRedisManager, generations: Generations) -> None:
        self._manager = manager
        self._generations = generations

    async def ranked(self, generation: Generation, stems: dict[str, int], scope: str, top_k: int) -> Candidates:
        """Returns the sections that hold some words, by BM25, best first.

        Args:
            generation: Where to look.
            stems: The words, and how often each occurs in the query.
            scope: What ``FilterCompiler.compile`` gave.
            top_k: How many.

        Raises:
            UnavailableError: Redis could not be reached, or not in time.
        """
        if not stems:
            return Candidates([], 0, [])
        query = bm25_query(stems, scope)
        arguments: list[str | int] = [
            query,
            "VERBATIM",
            "NOCONTENT",
            "WITHSCORES",
            "SCORER",
            "BM25STD",
            "LIMIT",
            0,
            min(top_k, MOST_RESULTS),
        ]
        reply = await self._search(generation, arguments, "search")
        return Candidates(reply[1::2], len(generation.section_prefix) + 1, list(map(float, reply[2::2])))

    async def newest(self, generation: Generation, query: str, offset: int, limit: int) -> list[str]:
        """Returns the facts of matching sections, newest first.

        Args:
            generation: Where to look.
            query: Query text that matches one section of a fact at most.
            offset: How many to skip.
            limit: How many to return at most.
        """
        limit = min(limit, MOST_RESULTS - offset)
        if limit <= 0:
            return []
        arguments: list[str | int] = [query, "NOCONTENT", "SORTBY", SEQ_FIELD, "DESC", "LIMIT", offset, limit]
        reply = await self._search(generation, arguments, "main")
        return [name.fact_id for name in _names(generation, reply[1:])]

    async def oldest(self, generation: Generation, query: str, limit: int) -> tuple[list[str], float | None]:
        """Returns the facts of matching sections, oldest first, and the last one's sequence number.

        Args:
            generation: Where to look.
            query: Query text that matches one section of a fact at most.
            limit: How many to return at most.
        """
        arguments: list[str | int] = [query, "RETURN", 1, SEQ_FIELD, "SORTBY", SEQ_FIELD, "ASC", "LIMIT", 0, limit]
        reply = await self._search(generation, arguments, "main")
        ids = [name.fact_id for name in _names(generation, reply[1::2])]
        return ids, float(reply[-1][1]) if ids else None

    async def probe(self, generation: Generation) -> None:
        """Makes a search that finds nothing.

        Args:
            generation: Where to look.

        Raises:
            UnavailableError: Redis could not be reached, or not in time.
        """
        await self._search(generation, [f"@{POSITION_FIELD}:[-1 -1]", "LIMIT", 0, 0], "search")

    async def _search(self, generation: Generation, arguments: Sequence[str | int], pool: PoolName) -> list[Any]:
        client = await self._manager.client(pool)
        try:
            try:
                reply: list[Any] = await client.execute_command(*_command(generation, arguments))
            except ResponseError as error:
                if not is_missing_index(error):
                    raise
                whole = await self._generations.make_whole(generation)
                if whole.number != generation.number:
                    raise GenerationMovedError(generation.namespace) from error
                reply = await client.execute_command(*_command(whole, arguments))
        except ResponseError as error:
            if is_missing_index(error):
                raise UnavailableError("the search index has vanished once more; retry in a moment") from error
            # The server's text quotes the query; it stays in the cause.
            raise KnowledgeBaseError("the server refused a search query; please report how it was made") from error
        return reply


def _command(generation: Generation, arguments: Sequence[str | int]) -> list[str | int]:
    return ["FT.SEARCH", generation.text_index, *arguments, "DIALECT", 2]


def _names(generation: Generation, keys: Sequence[str]) -> list[PartName]:
    skipped = len(generation.section_prefix) + 1
    return [PartName.parse(key[skipped:]) for key in keys]
