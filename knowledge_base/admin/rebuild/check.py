"""Checking an index that was built, before it becomes the live one."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from knowledge_base.connection.hashes import read_bytes
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.errors import KnowledgeBaseError
from knowledge_base.index.filters import visibility_clause
from knowledge_base.index.generations import Generations
from knowledge_base.index.next_generation import NextGeneration
from knowledge_base.index.schema import SEPARATOR, VECTOR_FIELD
from knowledge_base.index.text_index import TextIndex
from knowledge_base.index.vector_index import VectorIndex
from knowledge_base.keyspace import OPEN, Keyspace, PartName

COMPARISONS = 20
"""How often the counts are compared, while facts change."""

MOST_PARTS = 64
"""Parts by which a changed or expired fact may make the counts differ."""

SAMPLE = 20
"""Facts that are searched for."""

SAMPLE_STEMS = 12
SAMPLE_DEPTH = 50

SAME = 0.99
"""Cosine similarity from which a passage counts as found: an equal one may stand before it."""

FOUND = 0.9
"""Share of the sample that has to be found; the index of vectors is an approximate one."""


class RebuildCheck:
    """Compares a new generation with the live one, and searches it for a sample of facts.

    Args:
        manager: The connections.
        generations: Which index is live.
        vectors: Searches by meaning.
        texts: Searches by words.
    """

    def __init__(
        self, manager: AsyncRedisManager, generations: Generations, vectors: VectorIndex, texts: TextIndex
    ) -> None:
        self._manager = manager
        self._generations = generations
        self._vectors = vectors
        self._texts = texts

    async def run(self, upcoming: NextGeneration, catch_up: Callable[[], Awaitable[None]]) -> None:
        """Checks a generation that is filled.

        Args:
            upcoming: The generation.
            catch_up: Copies what was changed meanwhile.

        Raises:
            KnowledgeBaseError: It lacks something; the message says what.
        """
        difference = ""
        for _ in range(COMPARISONS):
            await catch_up()
            difference = await self._difference(upcoming)
            if not difference:
                break
        else:
            raise _wanting(upcoming, difference)
        await self._check_failures(upcoming)
        await self._check_sample(upcoming)

    async def _difference(self, upcoming: NextGeneration) -> str:
        # Its indices may have vanished, and been made anew under other names.
        live = await self._generations.read(upcoming.live.namespace) or upcoming.live
        new = upcoming.generation
        keys = Keyspace(live.namespace)
        client = await self._manager.main()
        # In one transaction, so that nothing changes between the counts.
        pipeline = client.pipeline(transaction=True)
        for name in (live.text_index, new.text_index, live.vector_index, new.vector_index):
            pipeline.execute_command("FT.SEARCH", name, "*", "LIMIT", 0, 0, "DIALECT", 2)
        pipeline.zcard(keys.changed)
        pipeline.zcount(keys.expiring, "-inf", upcoming.now())
        *totals, changed, expired = await pipeline.execute(raise_on_error=False)
        tolerance = MOST_PARTS * (int(changed) + int(expired))
        for what, old, built in (("sections", *totals[:2]), ("passages", *totals[2:])):
            if isinstance(built, Exception):
                raise built
            # An index that has vanished has nothing to be compared with.
            if not isinstance(old, Exception) and abs(int(old[0]) - int(built[0])) > tolerance:
                return f"it has {built[0]} {what} instead of {old[0]}"
        return ""

    async def _check_failures(self, upcoming: NextGeneration) -> None:
        client = await self._manager.main()
        for name in (upcoming.generation.text_index, upcoming.generation.vector_index):
            reply = await client.execute_command("FT.INFO", name)
            info = dict(zip(reply[::2], reply[1::2], strict=False))
            if failures := int(info.get("hash_indexing_failures") or 0):
                raise _wanting(upcoming, f"the server could not index {failures} of its parts")

    async def _check_sample(self, upcoming: NextGeneration) -> None:
        client = await self._manager.main()
        keys = Keyspace(upcoming.live.namespace)
        ids = await client.zrandmember(keys.facts, SAMPLE)
        asked: list[tuple[str, Sequence[str]]] = [(keys.fact(fact_id), ["revision"]) for fact_id in ids]
        revisions = [row[0] for row in await read_bytes(client, asked)]
        searched = found = 0
        for fact_id, revision in zip(ids, revisions, strict=True):
            if revision is not None:
                outcomes = await self._search_for(upcoming, PartName(fact_id, revision.decode(), 0))
                searched += len(outcomes)
                found += sum(outcomes)
        if found < FOUND * searched:
            raise _wanting(upcoming, f"of {searched} searches for what it holds, {found} found it")

    async def _search_for(self, upcoming: NextGeneration, name: PartName) -> list[bool]:
        new = upcoming.generation
        client = await self._manager.main()
        passage, section = f"{new.passage_prefix}:{name.node_id}", f"{new.section_prefix}:{name.node_id}"
        rows = await read_bytes(client, [(passage, [VECTOR_FIELD, "principals"]), (section, ["stem"])])
        (vector, principals), (stems,) = rows
        if principals is None or stems is None:
            # It was changed or removed just now.
            return []
        callers = [principal for principal in principals.decode().split(SEPARATOR) if principal != OPEN]
        scope = visibility_clause(callers)
        telling = dict.fromkeys(stems.decode().split()[:SAMPLE_STEMS], 1)
        outcomes: list[bool] = []
        if telling:
            words = await self._texts.ranked(new, telling, scope, SAMPLE_DEPTH)
            outcomes.append(len(words) > 0)
        if vector is not None:
            near = await self._vectors.query(new, array("f", vector), scope, SAMPLE_DEPTH)
            outcomes.append(any(candidate.score >= SAME for candidate in _first(near)))
        return outcomes


def _first(found: Any) -> list[Any]:
    return [found[0]] if len(found) else []


def _wanting(upcoming: NextGeneration, why: str) -> KnowledgeBaseError:
    return KnowledgeBaseError(
        f"the index built for namespace {upcoming.live.namespace!r} was found wanting: {why}; the live one is as it "
        "was: run kb check --repair, then kb reindex again"
    )
