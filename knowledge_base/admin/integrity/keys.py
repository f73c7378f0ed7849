"""The part of the integrity check that looks at every key of a namespace, a page at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from knowledge_base.admin.integrity.findings import OF_FACTS, Findings
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import LuaScript
from knowledge_base.documents.records import DocumentArchive
from knowledge_base.facts.remake import VECTOR_BYTES, FactRemaker
from knowledge_base.facts.repository import FactRepository
from knowledge_base.facts.requests import base_request
from knowledge_base.index.generations import GenerationMovedError, Generations
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import Keyspace
from knowledge_base.types import FindingKind

SCANNED_AT_ONCE = 500
"""Keys that one page of a scan looks at, those of other namespaces included."""

LOOKED_AT_ONCE = 50
"""Keys that one script is given."""

COMMANDS_AT_ONCE = 700
"""Commands after which a script ends early; so many take the server about a millisecond."""

REMOVALS_AT_ONCE = 5
"""Keys that a script removes at most; the server takes a vector out of its index for each."""

SUSPECTS = 500
"""Findings that are looked at a second time together."""

SECOND_LOOK_AFTER = 1.0
"""Seconds; what was under way when it was seen first is over by then."""

REMADE_AT_ONCE = 20
PAUSE = 0.001
"""Seconds between pages, in which others have the server for themselves."""

KNOWN_TYPES = {
    **dict.fromkeys(("generation", "rebuild", "contents", "attempts", "parked", "counters"), "hash"),
    **dict.fromkeys(("tag_counts", "source_counts", "languages"), "hash"),
    **dict.fromkeys(("facts", "documents", "pending", "inserts", "expiring"), "zset"),
    **dict.fromkeys(("changed", "retired", "staged", "leftovers"), "zset"),
    "unembedded": "set",
}
"""The type of each key that stands alone; others that ``Keyspace`` names may have any."""


class Suspect(NamedTuple):
    """What a look has found."""

    kind: FindingKind
    name: str
    """Id of a fact, or a key."""
    mended: bool


class KeyInspector:
    """Looks at the keys of one namespace, and mends what can be mended.

    Args:
        manager: The connections.
        generations: Which index is live.
        repository: Knows the time.
        remaker: Makes parts of facts anew.
        documents: Makes parts of documents anew.
        namespace: The namespace.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        generations: Generations,
        repository: FactRepository,
        remaker: FactRemaker,
        documents: DocumentArchive,
        namespace: str,
    ) -> None:
        self._manager = manager
        self._generations = generations
        self._repository = repository
        self._remaker = remaker
        self._documents = documents
        self._keys = Keyspace(namespace)
        self._inspect = LuaScript("knowledge_base.admin", "inspect_keys", repeatable=True)
        self._mend = LuaScript("knowledge_base.facts", "shared", "mend", repeatable=True)
        names = (name for name, value in vars(Keyspace).items() if isinstance(value, property))
        self._known = {name: KNOWN_TYPES.get(name, "") for name in names}

    async def foreign_singles(self) -> list[str]:
        """Returns those of the keys that stand alone which are of another type than they should be."""
        client = await self._manager.main()
        expected = {f"{self._keys.root}{name}": kind for name, kind in KNOWN_TYPES.items()}
        pipeline = client.pipeline(transaction=False)
        for key in expected:
            pipeline.type(key)
        found = await pipeline.execute()
        pairs = zip(expected.items(), found, strict=True)
        return [key for (key, kind), stored in pairs if stored not in ("none", kind)]

    async def pages(self) -> AsyncIterator[list[str]]:
        """Yields all keys of the namespace, some at a time."""
        client = await self._manager.main()
        cursor = -1
        while cursor:
            cursor, keys = await client.scan(max(cursor, 0), match=f"{self._keys.root}*", count=SCANNED_AT_ONCE)
            if keys:
                yield keys
            await asyncio.sleep(PAUSE)

    async def run(
        self,
        findings: Findings,
        *,
        repair: bool,
        each_list: Callable[[str], Awaitable[None]],
        looked_at: Callable[[int], None],
    ) -> None:
        """Looks at all keys.

        Args:
            findings: Told what was found.
            repair: Whether it is mended.
            each_list: Called with the key of each list of what a principal sees.
            looked_at: Called with how many facts were looked at.
        """
        suspects: list[Suspect] = []
        facts = 0
        async for keys in self.pages():
            found, some = await self._look(keys, repair=False)
            suspects += found
            facts += some
            looked_at(facts)
            foreign = {suspect.name for suspect in found if suspect.kind == "foreign_types"}
            for key in keys:
                if key.startswith(self._keys.visible("")) and key not in foreign:
                    await each_list(key)
            if len(suspects) >= SUSPECTS:
                await self._second_look(suspects, findings, repair=repair)
                suspects = []
        await self._second_look(suspects, findings, repair=repair)

    async def _look(self, keys: Sequence[str], *, repair: bool) -> tuple[list[Suspect], int]:
        client = await self._manager.main()
        request = json.dumps(
            {
                "root": self._keys.root,
                "now": str(self._repository.now()),
                "repair": repair,
                "most": COMMANDS_AT_ONCE,
                "removals": REMOVALS_AT_ONCE,
                "known": self._known,
            }
        )
        found: list[Suspect] = []
        facts = begin = 0
        while begin < len(keys):
            looked_at, some, flat = await self._inspect(client, keys[begin : begin + LOOKED_AT_ONCE], [request])
            begin += looked_at
            facts += some
            rows = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
            found += [Suspect(kind, name, mended == "1") for kind, name, mended in rows]
        return found, facts

    async def _second_look(self, suspects: Sequence[Suspect], findings: Findings, *, repair: bool) -> None:
        if not suspects:
            return
        await asyncio.sleep(SECOND_LOOK_AFTER)
        first = {(suspect.kind, suspect.name) for suspect in suspects}
        keys = sorted({self._key(suspect) for suspect in suspects})
        seen, _ = await self._look(keys, repair=repair)
        confirmed = [suspect for suspect in seen if suspect[:2] in first]
        of_facts = [suspect for suspect in confirmed if suspect.kind in OF_FACTS]
        if repair and of_facts:
            await self._mend_facts(of_facts)
            left = {suspect[:2] for suspect in (await self._look(keys, repair=False))[0]}
            confirmed = [
                suspect._replace(mended=suspect[:2] not in left) if suspect.kind in OF_FACTS else suspect
                for suspect in confirmed
            ]
        for suspect in confirmed:
            findings.add(suspect.kind, suspect.name, repaired=suspect.mended)

    def _key(self, suspect: Suspect) -> str:
        return self._keys.fact(suspect.name) if suspect.kind in OF_FACTS else suspect.name

    async def _mend_facts(self, suspects: Sequence[Suspect]) -> None:
        damaged = {suspect.name for suspect in suspects if suspect.kind == "damaged_records"}
        lacking = {suspect.name for suspect in suspects if suspect.kind in ("missing_parts", "wrong_labels")} - damaged
        others = sorted({suspect.name for suspect in suspects} - damaged)
        remade = sorted(lacking)
        for begin in range(0, len(remade), REMADE_AT_ONCE):
            await self._in_live(remade[begin : begin + REMADE_AT_ONCE], self._remake_some)
        for begin in range(0, len(others), REMADE_AT_ONCE):
            await self._in_live(others[begin : begin + REMADE_AT_ONCE], self._mend_some)

    async def _in_live(
        self, fact_ids: Sequence[str], work: Callable[[Generation, Sequence[str]], Awaitable[Any]]
    ) -> None:
        async def attempt(generation: Generation) -> None:
            await work(generation, fact_ids)

        await self._generations.in_live(self._keys.namespace, attempt, nothing=None)

    async def _remake_some(self, generation: Generation, fact_ids: Sequence[str]) -> None:
        for remade in await self._remaker.remake(generation, fact_ids):
            if remade.outcome == "document":
                await self._documents.remake(generation, remade.fact_id)

    async def _mend_some(self, generation: Generation, fact_ids: Sequence[str]) -> None:
        client = await self._manager.main()
        for fact_id in fact_ids:
            request = json.dumps(
                {
                    **base_request(generation, self._repository.now()),
                    "fact_id": fact_id,
                    "vector_bytes": VECTOR_BYTES * generation.dimension,
                }
            )
            reply = await self._mend(client, [self._keys.fact(fact_id)], [request])
            if isinstance(reply, list):
                raise GenerationMovedError(self._keys.namespace)
