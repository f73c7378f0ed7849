"""Searches that need no vector: by words, and by filter alone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from redis.exceptions import ResponseError

from knowledge_base.connection.manager import AsyncRedisManager, PoolName
from knowledge_base.errors import KnowledgeBaseError, UnavailableError
from knowledge_base.index.candidate import Candidates
from knowledge_base.index.counts import Counts
from knowledge_base.index.generations import GenerationMovedError, Generations, is_missing_index
from knowledge_base.index.index_size import IndexSize
from knowledge_base.index.schema import POSITION_FIELD, SEQ_FIELD, Generation
from knowledge_base.index.self_test import SelfTest
from knowledge_base.index.text_query import (
    TELLING_WORDS,
    WORTH_CHOOSING,
    Form,
    bm25_query,
    optional_pays,
    telling_stems,
)
from knowledge_base.index.timeout_policy import TimeoutPolicy
from knowledge_base.index.word_frequencies import WordFrequencies
from knowledge_base.keyspace import PartName

MANY_WORDS = 8
"""Queries of fewer words are quick in either form."""

MOST_COUNTED = 50_000
"""Passages that pass a filter, up to which they are counted."""

MOST_RESULTS = 1_000_000
"""Place up to which the server ranks; it refuses to look further (``MAXSEARCHRESULTS``)."""


class TextIndex:
    """Asks a namespace's index through the guarded client.

    Args:
        manager: The connections.
        generations: Creates an index anew that has vanished.
        policy: Says whether the server may cut an answer short.
    """

    def __init__(self, manager: AsyncRedisManager, generations: Generations, policy: TimeoutPolicy) -> None:
        self._manager = manager
        self._generations = generations
        self._policy = policy
        self._counts = Counts(manager)
        self._frequencies = WordFrequencies(manager)
        self._sizes = IndexSize(manager)
        self._self_test = SelfTest(manager)

    async def close(self) -> None:
        """Ends what is under way beside searches."""
        await self._self_test.close()
        await self._counts.close()

    async def telling(self, generation: Generation, stems: Sequence[str], most: int, scope: str) -> dict[str, int]:
        """Returns the stems to search for and how often each counts, the most telling ones of a long query.

        Args:
            generation: Where to look.
            stems: The query's stems with repeats.
            most: How many distinct stems to keep, and repeats of them.
            scope: What ``FilterCompiler.compile`` gave.

        Raises:
            UnavailableError: Redis could not be reached, or not in time.
        """
        distinct = dict.fromkeys(stems)
        if len(distinct) <= min(most, TELLING_WORDS):
            return telling_stems(stems, most, scope)
        frequencies = await self._frequencies.of(generation, distinct)
        sections = 0 if frequencies is None else await self._sizes.sections(generation)
        return telling_stems(stems, most, scope, frequencies, sections)

    async def frequencies(self, generation: Generation, stems: Collection[str]) -> dict[str, int] | None:
        """Returns the number of sections that hold each word; None where the server does not say.

        Args:
            generation: Where to look.
            stems: The words.
        """
        return await self._frequencies.of(generation, stems)

    async def ranked(self, generation: Generation, stems: Mapping[str, int], scope: str, top_k: int) -> Candidates:
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
        form = await self._form(generation, stems, scope)
        query = bm25_query(stems, scope, form)
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
        keys, scores = reply[1::2], list(map(float, reply[2::2]))
        if form == "optional":
            holding = bisect_left(scores, True, key=lambda score: score <= 0)
            keys, scores = keys[:holding], scores[:holding]
        return Candidates(keys, len(generation.section_prefix) + 1, scores)

    async def _form(self, generation: Generation, stems: Mapping[str, int], scope: str) -> Form:
        self._self_test.begin()
        if self._self_test.passed:
            return "joined"
        if len(stems) < MANY_WORDS or len(stems) * await self._sizes.sections(generation) < WORTH_CHOOSING:
            return "distributed"
        frequencies = await self._frequencies.of(generation, stems)
        places = sum(frequencies[stem] * count for stem, count in stems.items()) if frequencies else 0
        if places < WORTH_CHOOSING:
            return "distributed"
        passing = await self._counts.up_to(MOST_COUNTED, generation.text_index, scope)
        return "optional" if passing is not None and optional_pays(places, passing) else "distributed"

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
        arguments += await self._policy.whole_or_nothing()
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
        arguments += await self._policy.whole_or_nothing()
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
