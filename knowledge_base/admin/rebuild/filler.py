"""Filling a generation that is being built from the facts and documents of the live one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from knowledge_base.connection.hashes import read_hashes
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.documents.records import DocumentArchive
from knowledge_base.embedding.service import EmbeddingService, is_embedding_failure
from knowledge_base.errors import CircuitOpenError, EmbeddingUnavailableError, OverloadedError, UnavailableError
from knowledge_base.facts.remake import FactRemaker
from knowledge_base.index.indexer import Indexer, PassageSet, passage_groups
from knowledge_base.index.next_generation import CopiedFact, NextGeneration, RebuildLostError
from knowledge_base.keyspace import Keyspace, PartName

BUSY = 1.5
"""A server that takes so many times as long for a fact as it can is busy with others."""

SHORTEST_AGE = 0.999
"""Share of what is known of the server's best that still counts at the next look: machines slow down as well."""

POLITENESS = 0.5
"""Share of the wait at a busy server for which the filler then leaves it to others."""

LONGEST_PAUSE = 0.05

PATIENCE = 120.0
"""Seconds for which a model that does not answer is asked again and again."""

FACTS_AT_ONCE = 8
"""Facts that are copied before somebody else has a turn."""

SHARE_OF_THE_WAIT = 0.1
"""Where each turn has to be waited for, a step takes so much longer that it adds this share to the wait of others."""

LONGEST = 16
"""How many times as long a step gets at most; a server needs some 40 ms for it."""


class Filler:
    """Copies facts, and has their passages embedded where the model changes.

    Args:
        manager: The connections.
        indexer: Gives passages vectors.
        model: The model that the new generation is for.
        remaker: Makes parts of facts anew.
        documents: Makes parts of documents anew.
        upcoming: The new generation.
        recuts: Whether contents are to be cut otherwise than they were.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        indexer: Indexer,
        model: EmbeddingService,
        remaker: FactRemaker,
        documents: DocumentArchive,
        upcoming: NextGeneration,
        *,
        recuts: bool,
    ) -> None:
        self._manager = manager
        self._indexer = indexer
        self._model = model
        self._remaker = remaker
        self._documents = documents
        self._upcoming = upcoming
        self._recuts = recuts
        self._keys = Keyspace(upcoming.live.namespace)
        self._shortest = float("inf")
        self._longer = 1
        self.embedded = 0
        """Facts and documents whose passages were embedded anew."""

    async def total(self) -> int:
        """Returns how many facts and documents there are."""
        client = await self._manager.main()
        return int(await client.zcard(self._keys.facts)) + int(await client.zcard(self._keys.documents))

    async def page(self, after: int, limit: int) -> list[tuple[str, float]]:
        """Returns ids and sequence numbers of facts and documents, oldest first.

        Args:
            after: The sequence number after which to begin.
            limit: How many at most.
        """
        client = await self._manager.main()
        pipeline = client.pipeline(transaction=False)
        for listed in (self._keys.facts, self._keys.documents):
            pipeline.zrangebyscore(listed, f"({after}", "+inf", start=0, num=limit, withscores=True)
        rows = await pipeline.execute()
        return sorted((row for some in rows for row in some), key=lambda row: row[1])[:limit]

    async def fill(self, fact_ids: Sequence[str]) -> None:
        """Copies facts and documents as they are now.

        Args:
            fact_ids: Their ids.

        Raises:
            RebuildLostError: Another process is the owner by now.
            UnavailableError: Redis or the model could not be reached.
        """
        if self._recuts:
            await self._remake(fact_ids)
        copied: list[CopiedFact] = []
        left = list(fact_ids)
        while left:
            at_once = FACTS_AT_ONCE * self._longer
            some, left = left[:at_once], left[at_once:]
            asked = time.monotonic()
            outcome = await self._upcoming.copy(some, self._longer)
            copied += outcome.facts
            if outcome.missing:
                # That changes them, so that they come once more.
                await self._remake(outcome.missing)
            await self._leave_others_their_turn(time.monotonic() - asked, len(some))
        if copied:
            await self._embed(copied)

    async def _remake(self, fact_ids: Sequence[str]) -> None:
        for remade in await self._remaker.remake(self._upcoming.live, fact_ids):
            if remade.outcome == "document":
                await self._documents.remake(self._upcoming.live, remade.fact_id)

    async def _leave_others_their_turn(self, seconds: float, facts: int) -> None:
        each = seconds / facts
        self._shortest = min(each, self._shortest / SHORTEST_AGE)
        waited = seconds - facts * self._shortest
        # Others of whom each waits for a second do not notice some milliseconds more.
        fair = SHARE_OF_THE_WAIT * waited / (FACTS_AT_ONCE * self._shortest)
        self._longer = min(LONGEST, max(1, int(fair)))
        if each > BUSY * self._shortest:
            await asyncio.sleep(min(LONGEST_PAUSE, POLITENESS * waited))

    async def _embed(self, copied: Sequence[CopiedFact]) -> None:
        facts = {(fact.fact_id, fact.revision): fact for fact in copied}
        for group in passage_groups(await self._passages(copied)):
            await self._embed_group(group)
            try:
                self.embedded += await self._upcoming.settle([facts[item.fact_id, item.revision] for item in group])
            except RebuildLostError:
                # The new owner, or whoever used the index since, may have removed what the vectors were for.
                await self._upcoming.remove_bare(
                    [PartName(item.fact_id, item.revision, at) for item in group for at in range(len(item.texts))]
                )
                raise

    async def _passages(self, copied: Sequence[CopiedFact]) -> list[PassageSet]:
        client = await self._manager.main()
        hashes = [self._keys.fact(fact.fact_id) for fact in copied]
        rows = [row async for some in read_hashes(client, hashes, ["revision", "passages"]) for row in some]
        sets: list[PassageSet] = []
        for fact, (revision, passages) in zip(copied, rows, strict=True):
            # What was changed since it was copied is on record, and comes again.
            count = int(passages or 0) if revision == fact.revision else 0
            names = [PartName(fact.fact_id, fact.revision, position) for position in range(count)]
            keys = [f"{self._upcoming.generation.passage_prefix}:{name.node_id}" for name in names]
            texts = [row[0] async for some in read_hashes(client, keys, ["text"]) for row in some] if keys else []
            whole = [text for text in texts if text is not None]
            # Where one is missing, it must not be taken for its neighbour; the fact waits until it is repaired.
            sets.append(PassageSet(fact.fact_id, fact.revision, whole if len(whole) == count else []))
        return sets

    async def _embed_group(self, group: Sequence[PassageSet]) -> None:
        begun = time.monotonic()
        while True:
            try:
                await self._indexer.embed(self._upcoming.generation, group, only_missing=True)
                return
            except UnavailableError as error:
                if not _may_come_back(error):
                    raise
                if isinstance(error, EmbeddingUnavailableError) and await self._answers():
                    break
                if time.monotonic() - begun > PATIENCE:
                    raise
                await asyncio.sleep(max(1.0, error.retry_after if isinstance(error, CircuitOpenError) else 0.0))
        # The model refuses one of the texts: that fact waits for its vectors, and is parked in the end, as always.
        if len(group) > 1:
            for item in group:
                await self._embed_group([item])

    async def _answers(self) -> bool:
        try:
            await self._model.probe()
        except UnavailableError:
            return False
        return True


def _may_come_back(error: UnavailableError) -> bool:
    return is_embedding_failure(error) or isinstance(error, OverloadedError)
