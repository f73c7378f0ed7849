"""The generation of an index that is being built beside the live one: its record in Redis, fenced by a lease."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from knowledge_base.clock import now_ms
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import Argument, LuaScript
from knowledge_base.errors import UnavailableError
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import Keyspace, PartName

FLOAT_BYTES = 4

LEASE_SECONDS = 15.0
"""Seconds after which another process may take over a rebuild whose owner says nothing."""

PARTS_AT_ONCE = 16
"""Parts that one script copies: a vector costs the server 0.2 to 0.4 ms, and nobody else is served meanwhile."""

REMOVED_AT_ONCE = 100

SWITCHED_ALONG = 12
"""Parts that the switch itself may still copy."""

Beginning: TypeAlias = Literal["begun", "resumed", "stale"]


class RebuildLostError(UnavailableError):
    """Another process has taken over the rebuild, or somebody has ended it."""

    def __init__(self, namespace: str) -> None:
        super().__init__(
            f"the rebuild of namespace {namespace!r} was taken over or ended by another process; the live index is "
            "as it was: see kb stats, then kb reindex"
        )


class CopiedFact(NamedTuple):
    """A fact whose parts were copied without vectors."""

    fact_id: str
    revision: str
    stamp: str
    """The change of it that was copied, "" for none."""


class Copied(NamedTuple):
    """What became of facts that were to be copied."""

    missing: list[str]
    """Facts that lack a part."""
    facts: list[CopiedFact]
    """Those that wait for vectors of another model."""


class NextGeneration:
    """A generation that is being built; whoever made this object owns it for as long as it renews its lease.

    Args:
        manager: The connections.
        live: The generation that is live.
        model: Identity of the model that the new one is for.
        dimension: Length of its vectors.
        cut: How contents are cut.
    """

    def __init__(self, manager: AsyncRedisManager, live: Generation, model: str, dimension: int, cut: str = "") -> None:
        self._manager = manager
        self._keys = Keyspace(live.namespace)
        self._cut = cut
        self._token = secrets.token_hex(8)
        self.live = live
        self.generation = Generation(live.namespace, live.number + 1, model, dimension)
        self.keeps_vectors = (live.model, live.dimension) == (model, dimension)
        self.cursor = 0
        self.done = 0
        self.started = now_ms()
        self._begin = LuaScript("knowledge_base.index", "begin_rebuild", repeatable=True)
        self._remove_bare = LuaScript("knowledge_base.index", "remove_bare", repeatable=True)
        # Each of them says "lost" to whoever is the owner no longer, and does the same once more to all others.
        self._copy, self._settle, self._advance, self._switch, self._end = (
            LuaScript("knowledge_base.index", "rebuild", name, repeatable=name not in {"switch_generation"})
            for name in (
                *("copy_facts", "embedded_facts", "advance_rebuild"),
                *("switch_generation", "give_up_rebuild"),
            )
        )

    async def begin(self) -> Beginning:
        """Begins to build it, or takes over what a process that is gone has left.

        Returns:
            "begun"; "resumed", from ``cursor`` on; or "stale": what was left is for another model.

        Raises:
            UnavailableError: Another process is at it.
        """
        client = await self._manager.main()
        own = self._keys
        keys = [own.generation, own.rebuild, own.counters, own.changed, own.retired, own.unembedded]
        lease = int(LEASE_SECONDS * 1000)
        generation = self.generation
        arguments: list[Argument] = [
            *(self._token, lease, generation.model, generation.dimension),
            *(self._cut, self.started),
        ]
        status, *rest = await self._begin(client, keys, arguments)
        if status == "nothing":
            raise RebuildLostError(self.live.namespace)
        if status == "held":
            _, done, total = rest
            raise UnavailableError(
                f"a rebuild of namespace {self.live.namespace!r} is under way in another process ({done} of {total} "
                "facts done); wait for its end"
            )
        number, cursor, done, started = rest
        self.generation = Generation(generation.namespace, int(number), generation.model, generation.dimension)
        # Somebody may have written to the record, who is not to make the rebuild impossible.
        self.cursor, self.done, self.started = map(_number, (cursor, done, started))
        beginning: Beginning = status
        return beginning

    async def copy(self, fact_ids: Sequence[str], longer: int = 1) -> Copied:
        """Copies the parts of facts, with their vectors where the model stays; one short script for a few of them.

        Args:
            fact_ids: The facts and documents; those that are gone are passed over.
            longer: How many times as many parts as usual one script copies.

        Raises:
            RebuildLostError: Another process is the owner by now.
        """
        left: list[list[Any]] = [[fact_id, 0, "", ""] for fact_id in fact_ids]
        missing: list[str] = []
        facts: list[CopiedFact] = []
        while left:
            most = PARTS_AT_ONCE * longer
            _, done, lacking, copied, place, revision, stamp = await self._run(
                self._copy, **self._vectors(), most=most, facts=left[:most]
            )
            missing += json.loads(lacking) or []
            facts += [CopiedFact(*fact) for fact in json.loads(copied) or []]
            left = left[int(done) :]
            if place:
                left[0] = [left[0][0], int(place), revision, stamp]
        return Copied(missing, facts)

    async def settle(self, facts: Sequence[CopiedFact]) -> int:
        """Settles the vectors that were written for facts.

        Args:
            facts: The facts as they were copied.

        Returns:
            How many have all of their vectors.

        Raises:
            RebuildLostError: Another process is the owner by now.
        """
        _, whole = await self._run(self._settle, facts=[[*fact] for fact in facts])
        return int(whole)

    async def remove_bare(self, names: Sequence[PartName]) -> None:
        """Removes passages that have nothing but a vector, whoever the owner is by now.

        Args:
            names: The passages.
        """
        client = await self._manager.main()
        for begin in range(0, len(names), REMOVED_AT_ONCE):
            keys = [f"{self.generation.passage_prefix}:{one.node_id}" for one in names[begin : begin + REMOVED_AT_ONCE]]
            await self._remove_bare(client, keys, [])

    async def advance(self, **fields: float | int | str) -> int:
        """Renews the lease and notes how far the rebuild is.

        Args:
            **fields: Of the record: ``cursor``, ``done``, ``total``.

        Returns:
            How many facts were changed and have to be copied once more.

        Raises:
            RebuildLostError: Another process is the owner by now.
        """
        _, changed = await self._run(self._advance, fields={name: str(value) for name, value in fields.items()})
        return int(changed)

    async def changed(self, most: int) -> list[str]:
        """Returns facts that were changed since they were copied, those first that were changed first.

        Args:
            most: How many at most.
        """
        client = await self._manager.main()
        ids: list[str] = await client.zrange(self._keys.changed, 0, most - 1)
        return ids

    async def switch(self, grace: float) -> bool:
        """Makes it the live one, unless too much was changed just now.

        Args:
            grace: Seconds until the old one may be dropped.

        Returns:
            Whether it is live.

        Raises:
            RebuildLostError: Another process is the owner by now.
        """
        status, _ = await self._run(self._switch, **self._vectors(), most=SWITCHED_ALONG, grace=int(grace * 1000))
        return bool(status == "switched")

    async def has_switched(self) -> bool:
        """Returns whether it is live through this very object, whose reply may have been lost."""
        client = await self._manager.main()
        recorded = await client.hmget(self._keys.generation, ["number", "switched_by"])  # type: ignore[misc]
        return bool(recorded == [str(self.generation.number), self._token])

    async def give_up(self) -> None:
        """Ends the rebuild; what was built is dropped by whoever comes.

        Raises:
            RebuildLostError: Another process is the owner by now.
        """
        await self._run(self._end)

    async def release(self) -> None:
        """Lets another process take over at once.

        Raises:
            RebuildLostError: Another process is the owner by now.
        """
        await self._run(self._advance, fields={"owner": "", "lease": "0"})

    def now(self) -> int:
        """Returns the time in milliseconds since 1970."""
        return now_ms()

    def _vectors(self) -> dict[str, Any]:
        return {"with_vectors": self.keeps_vectors, "vector_bytes": self.generation.dimension * FLOAT_BYTES}

    async def _run(self, script: LuaScript, **fields: Any) -> list[Any]:
        client = await self._manager.main()
        lease = int(LEASE_SECONDS * 1000)
        request = json.dumps({"root": self._keys.root, "token": self._token, "lease": lease, **fields})
        reply: list[Any] = await script(client, [self._keys.rebuild], [request])
        if reply[0] == "lost":
            raise RebuildLostError(self.live.namespace)
        return reply


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
