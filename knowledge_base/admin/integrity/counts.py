"""The part of the integrity check that compares what is counted with what the facts add up to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

from knowledge_base.admin.integrity.findings import Findings
from knowledge_base.admin.integrity.tally import Tally, tally_of
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import LuaScript
from knowledge_base.facts.repository import FactRepository
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import Keyspace

TRIES = 3
"""How often it is looked for a moment in which nobody writes."""

PAUSE = 0.5
"""Seconds between such tries."""

CORRECTED_AT_ONCE = 100
"""Counts that one script corrects."""


class WrongCount(NamedTuple):
    """A count that does not agree."""

    key: str
    field: str
    found: str
    right: str


class Snapshot(NamedTuple):
    """What was counted at one moment."""

    seq: str | None
    counts: dict[tuple[str, str], str]
    waiting: int
    """Vectors and parts that are on their way."""
    indexed: tuple[int, int] | None
    """Sections and passages in the indices, or None when they cannot be counted or are not the live ones any more."""


class CountCheck:
    """Compares counts, and what the index holds, with the facts.

    It takes a moment in which nobody writes: what the facts add up to is looked at twice, and counts only if nothing
    has changed in between.

    Args:
        manager: The connections.
        repository: Removes what has expired.
        namespace: The namespace.
        findings: Told what was found.
    """

    def __init__(
        self, manager: AsyncRedisManager, repository: FactRepository, namespace: str, findings: Findings
    ) -> None:
        self._manager = manager
        self._repository = repository
        self._keys = Keyspace(namespace)
        self._findings = findings
        self._correct = LuaScript("knowledge_base.admin", "correct_counts")

    async def run(self, generation: Generation, *, repair: bool) -> bool:
        """Compares what is counted.

        Args:
            generation: The live generation.
            repair: Whether wrong counts are corrected.

        Returns:
            Whether the indices hold as much as is stored, as far as that can be told.
        """
        for _ in range(TRIES):
            begun = await self._snapshot(generation)
            tally = await self._tally(generation)
            seen = await self._snapshot(generation)
            wrong = list(self._wrong(tally, seen))
            is_whole = seen.indexed in (None, (tally.sections, tally.passages)) or seen.waiting > 0
            if not wrong and is_whole:
                return True
            again = await self._tally(generation)
            # Sequence numbers tell of facts that came and went in between.
            if tally == again and tally.is_steady and begun.seq == (await self._snapshot(generation)).seq:
                await self._note(wrong, repair=repair)
                return is_whole
            await asyncio.sleep(PAUSE)
        return True

    async def _tally(self, generation: Generation) -> Tally:
        await self._repository.sweep(generation)
        return await tally_of(self._manager, self._keys.namespace, self._repository.now())

    async def _snapshot(self, generation: Generation) -> Snapshot:
        client = await self._manager.main()
        pipeline = client.pipeline(transaction=True)
        hashes = (self._keys.counters, self._keys.tag_counts, self._keys.source_counts)
        for key in hashes:
            pipeline.hgetall(key)
        for key in (self._keys.inserts, self._keys.staged, self._keys.leftovers):
            pipeline.zcard(key)
        pipeline.hmget(self._keys.generation, ["number", "build"])
        pipeline.execute_command("FT.INFO", generation.text_index)
        pipeline.execute_command("FT.INFO", generation.vector_index)
        counters, tags, sources, *rest = await pipeline.execute(raise_on_error=False)
        for reply in (counters, tags, sources):
            if isinstance(reply, Exception):
                raise reply
        counts = {(self._keys.counters, "passages"): counters.get("passages", "0")}
        counts |= {(self._keys.tag_counts, tag): count for tag, count in tags.items()}
        counts |= {(self._keys.source_counts, source): count for source, count in sources.items()}
        *waiting, (number, build), text_info, vector_info = rest
        is_live = (int(number or 0), int(build or 1)) == (generation.number, generation.build)
        indexed = _indexed(text_info, vector_info) if is_live else None
        return Snapshot(counters.get("seq"), counts, sum(waiting), indexed)

    def _wrong(self, tally: Tally, seen: Snapshot) -> Iterator[WrongCount]:
        right = {(self._keys.counters, "passages"): str(tally.passages)}
        right |= {(self._keys.tag_counts, tag): str(count) for tag, count in tally.tags.items()}
        right |= {(self._keys.source_counts, source): str(count) for source, count in tally.sources.items()}
        for key, name in sorted({*right, *seen.counts}):
            found, must = seen.counts.get((key, name), ""), right.get((key, name), "")
            if found != must:
                yield WrongCount(key, name, found, must)

    async def _note(self, wrong: list[WrongCount], *, repair: bool) -> None:
        client = await self._manager.main()
        for begin in range(0, len(wrong), CORRECTED_AT_ONCE):
            some = wrong[begin : begin + CORRECTED_AT_ONCE]
            corrected = [0] * len(some)
            if repair:
                values = [value for one in some for value in (one.field, one.found, one.right)]
                corrected = await self._correct(client, [one.key for one in some], values)
            for one, done in zip(some, corrected, strict=True):
                detail = f"{one.field}: {one.found or 'nothing'} instead of {one.right or 'nothing'}"
                self._findings.add("wrong_counts", one.key, repaired=bool(done), detail=detail)


def _indexed(text_info: object, vector_info: object) -> tuple[int, int] | None:
    counts: list[int] = []
    for reply in (text_info, vector_info):
        if not isinstance(reply, list):
            return None
        info = dict(zip(reply[::2], reply[1::2], strict=False))
        if float(info["percent_indexed"]) < 1.0:
            return None
        counts.append(int(info["num_docs"]))
    return counts[0], counts[1]
