"""Which generation of each namespace's index is live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from redis.exceptions import ResponseError

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import LuaScript
from knowledge_base.errors import ServerRequirementError, UnavailableError
from knowledge_base.index.schema import Generation, text_index_command, vector_index_command
from knowledge_base.keyspace import NAMESPACES_KEY, Keyspace

FILLING_PAUSES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds between looks at an index that is being filled; whoever meets one in a large base retries later."""

FRESH_FOR = 1.0
"""Seconds that a process trusts what it read, so that a switch is seen within them."""


def is_missing_index(error: ResponseError) -> bool:
    """Tells whether the server says that an index does not exist.

    Args:
        error: The server's answer.
    """
    text = str(error).lower()
    return "no such index" in text or "unknown index name" in text or "unknown: index name" in text


class Generations:
    """Finds, and creates on a namespace's first write, the live generation.

    Args:
        manager: The connections.
        clock: Monotonic seconds; tests bring their own.
    """

    def __init__(self, manager: AsyncRedisManager, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._manager = manager
        self._clock = clock
        self._register = LuaScript("knowledge_base.index", "register")
        self._known: dict[str, tuple[float, Generation | None]] = {}
        self._checked: set[Generation] = set()
        self._has_engine = False
        self._creating: dict[str, asyncio.Lock] = {}

    async def current(self, namespace: str) -> Generation | None:
        """Returns the live generation, or None when nothing was ever written.

        Args:
            namespace: The namespace.

        Raises:
            ServerRequirementError: The server has no query engine.
        """
        known = self._known.get(namespace)
        if known is not None and known[1] is not None and self._clock() - known[0] < FRESH_FOR:
            return known[1]
        client = await self._manager.main()
        fields = await client.hmget(  # type: ignore[misc]
            Keyspace(namespace).generation, ["number", "model", "dimension"]
        )
        generation = self._remember(namespace, fields)
        if generation is None and not self._has_engine:
            await self._require_engine(namespace)
        return generation

    async def ensure(self, namespace: str, model: str, dimension: int) -> Generation:
        """Returns the live generation; on the first write, records and creates it.

        Args:
            namespace: The namespace.
            model: Identity of the embedding model that a new generation is built with.
            dimension: Length of its vectors.

        Raises:
            ServerRequirementError: The server has no query engine.
        """
        generation = await self.current(namespace)
        if generation is not None and generation in self._checked:
            return generation
        async with self._creating.setdefault(namespace, asyncio.Lock()):
            is_new = False
            if generation is None:
                client = await self._manager.main()
                keys = Keyspace(namespace)
                *fields, new = await self._register(client, [keys.generation, keys.facts], [model, dimension])
                generation = self._remember(namespace, fields)
                is_new = new == "1"
            assert generation is not None
            if generation not in self._checked:
                await self.create_if_missing(generation, is_new=is_new)
            return generation

    async def create_if_missing(self, generation: Generation, *, is_new: bool = False) -> None:
        """Creates the indices of a generation unless they exist, and waits a little until they hold what is stored.

        Args:
            generation: The generation.
            is_new: Whether it was recorded just now, so that nothing can be stored yet.

        Raises:
            UnavailableError: The indices are still being filled.
            ServerRequirementError: The server has no query engine.
        """
        client = await self._manager.main()
        await client.sadd(NAMESPACES_KEY, generation.namespace)  # type: ignore[misc]
        commands = {
            generation.text_index: text_index_command(generation, scan=not is_new),
            generation.vector_index: vector_index_command(generation, scan=not is_new),
        }
        for name, command in commands.items():
            if await self._indexed_share(name) is None:
                await self._create(command)
        for name in commands:
            await self._wait_until_filled(generation.namespace, name)
        self._checked.add(generation)

    async def _require_engine(self, namespace: str) -> None:
        # "No such index" is an answer that only a query engine gives.
        await self._indexed_share(Keyspace(namespace).text_index(1))
        self._has_engine = True

    async def _create(self, command: list[str | int]) -> None:
        client = await self._manager.main()
        try:
            await client.execute_command(*command)
        except ResponseError as error:
            if "already exists" not in str(error).lower():
                raise ServerRequirementError(
                    "the server refused to create the search index; RediSearch 2.10 or newer is needed"
                ) from error

    async def _wait_until_filled(self, namespace: str, index_name: str) -> None:
        for pause in FILLING_PAUSES:
            share = await self._indexed_share(index_name)
            if share is not None and share >= 1.0:
                return
            await asyncio.sleep(pause)
        raise UnavailableError(f"the index of namespace {namespace!r} is being filled; retry in a moment")

    def forget(self, namespace: str) -> None:
        """Forgets what was read about a namespace, so that the next call looks again.

        Args:
            namespace: The namespace.

        Raises:
            ServerRequirementError: The server has no query engine.
        """
        known = self._known.pop(namespace, None)
        if known is not None and known[1] is not None:
            self._checked.discard(known[1])

    async def namespaces(self) -> list[str]:
        """Returns every namespace that was ever written to, in order of name."""
        client = await self._manager.main()
        return sorted(await client.smembers(NAMESPACES_KEY))  # type: ignore[misc]

    async def _indexed_share(self, index_name: str) -> float | None:
        client = await self._manager.main()
        try:
            reply = await client.execute_command("FT.INFO", index_name)
        except ResponseError as error:
            if is_missing_index(error):
                return None
            raise
        info = dict(zip(reply[::2], reply[1::2], strict=False))
        return float(info["percent_indexed"])

    def _remember(self, namespace: str, fields: list[str | None]) -> Generation | None:
        number, model, dimension = fields
        generation = None
        if number is not None and model is not None and dimension is not None:
            generation = Generation(namespace, int(number), model, int(dimension))
        self._known[namespace] = (self._clock(), generation)
        return generation
