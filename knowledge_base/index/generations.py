"""Which generation of each namespace's index is live."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from contextvars import Context
from dataclasses import replace
from typing import TypeVar

from redis.exceptions import ResponseError

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import LuaScript
from knowledge_base.errors import KnowledgeBaseError, PermissionDeniedError, ServerRequirementError, UnavailableError
from knowledge_base.index.schema import Generation, text_index_command, vector_index_command
from knowledge_base.keyspace import NAMESPACES_KEY, SWITCHED_OFF, Keyspace

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

FILLING_PAUSES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 0.8)
"""Seconds between looks at an index that is being filled; whoever meets one in a large base retries later."""

MOVES = 4
"""How often something is done in the live generation, when others become live meanwhile."""

FRESH_FOR = 1.0
"""Seconds that a process trusts what it read, so that a switch is seen within them."""


class GenerationMovedError(UnavailableError):
    """Another generation of the index became the live one meanwhile; the next attempt finds it."""

    def __init__(self, namespace: str) -> None:
        super().__init__(f"the index of namespace {namespace!r} was switched to a new one meanwhile; retry")


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
        cut: How contents are cut, recorded with a new generation.
        clock: Monotonic seconds; tests bring their own.
    """

    def __init__(
        self, manager: AsyncRedisManager, cut: str = "", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._manager = manager
        self.cut = cut
        self._clock = clock
        self._register = LuaScript("knowledge_base.index", "register", repeatable=True)
        self._switch = LuaScript("knowledge_base.index", "switch_build", repeatable=True)
        self._known: dict[str, tuple[float, Generation | None]] = {}
        self._reading: dict[str, asyncio.Task[Generation | None]] = {}
        self._forgotten: dict[str, int] = {}
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
        generation = await self._read(namespace)
        if generation is None and not self._has_engine:
            await self._require_engine(namespace)
        return generation

    async def in_live(
        self, namespace: str, work: Callable[[Generation], Awaitable[Result]], *, nothing: Result
    ) -> Result:
        """Does something in the live generation; again when another one became live meanwhile.

        Args:
            namespace: The namespace.
            work: What to do; must be harmless when it is repeated.
            nothing: What is returned where nothing was ever written.

        Returns:
            What the work returned.

        Raises:
            GenerationMovedError: Yet another one became live.
        """
        for attempt in range(1, MOVES + 1):
            generation = await self.current(namespace)
            if generation is None:
                break
            try:
                return await work(generation)
            except GenerationMovedError:
                self.forget(namespace)
                if attempt == MOVES:
                    raise
        return nothing

    def forget(self, namespace: str) -> None:
        """Makes the next call read anew which generation is live.

        Args:
            namespace: The namespace.
        """
        self._known.pop(namespace, None)
        # What is being read may be what was live before.
        self._reading.pop(namespace, None)
        self._forgotten[namespace] = self._forgotten.get(namespace, 0) + 1

    async def ensure(self, namespace: str, model: str, dimension: int) -> Generation:
        """Returns the live generation; on the first write, records and creates it.

        Args:
            namespace: The namespace.
            model: Identity of the embedding model that a new generation is built with.
            dimension: Length of its vectors.

        Raises:
            UnavailableError: Its indices are being filled.
            ServerRequirementError: The server has no query engine.
        """
        generation = await self.current(namespace)
        if generation is not None and generation in self._checked:
            return generation
        async with self._lock(namespace):
            client = await self._manager.main()
            await client.sadd(NAMESPACES_KEY, namespace)  # type: ignore[misc]
            return await self._made_whole(*await self._recorded(namespace, model, dimension))

    async def make_whole(self, generation: Generation) -> Generation:
        """Returns the live generation with indices that exist and hold everything that is stored.

        Indices that have vanished are made anew under names of their own, and become the live ones when they are
        filled: nobody ever searches half of them.

        Args:
            generation: As it was known to the caller.

        Raises:
            UnavailableError: The new indices are being filled.
            ServerRequirementError: The server has no query engine.
        """
        namespace = generation.namespace
        async with self._lock(namespace):
            live, nothing_stored = await self._recorded(namespace, generation.model, generation.dimension)
            if live.build > generation.build and live in self._checked:
                return live
            # Builds begin anew when the server was emptied.
            self._checked -= {generation, live}
            return await self._made_whole(live, nothing_stored)

    async def _recorded(self, namespace: str, model: str, dimension: int) -> tuple[Generation, bool]:
        client = await self._manager.main()
        keys = Keyspace(namespace)
        *fields, empty = await self._register(
            client, [keys.generation, keys.facts, keys.documents], [model, dimension, self.cut]
        )
        generation = self._remember(namespace, fields, self._forgotten.get(namespace))
        assert generation is not None
        return generation, empty == "1"

    async def _made_whole(self, generation: Generation, nothing_stored: bool) -> Generation:
        names = (generation.text_index, generation.vector_index)
        missing = [name for name in names if await self._indexed_share(name) is None]
        if missing:
            client = await self._manager.main()
            await client.sadd(NAMESPACES_KEY, generation.namespace)  # type: ignore[misc]
        if missing and not nothing_stored:
            generation = await self._rebuilt(generation)
        else:
            await self._create(generation, missing, scan=not nothing_stored)
            await self._wait_until_filled(generation)
        self._checked.add(generation)
        return generation

    async def _rebuilt(self, generation: Generation) -> Generation:
        new = replace(generation, build=generation.build + 1)
        await self._create(new, [new.text_index, new.vector_index], scan=True)
        await self._wait_until_filled(new)
        client = await self._manager.main()
        build = await self._switch(
            client, [Keyspace(generation.namespace).generation], [generation.number, generation.build, new.build]
        )
        live = replace(generation, build=int(build))
        if live.build == generation.build:
            raise UnavailableError(f"the index of namespace {live.namespace!r} was changed meanwhile; retry")
        self._known[generation.namespace] = (self._clock(), live)
        extra = {"knowledge_namespace": live.namespace, "build": live.build}
        logger.warning("made a search index anew that had vanished", extra=extra)
        await self.drop_indices(generation)
        return live

    async def _require_engine(self, namespace: str) -> None:
        # "No such index" is an answer that only a query engine gives.
        await self._indexed_share(Keyspace(namespace).text_index(1))
        self._has_engine = True

    async def read(self, namespace: str) -> Generation | None:
        """Returns the live generation as the server has it at this moment, or None.

        Args:
            namespace: The namespace.
        """
        return await self._read_anew(namespace)

    async def recorded_cut(self, namespace: str) -> str | None:
        """Returns how contents were cut when the live generation was made, or None where that is not known.

        Args:
            namespace: The namespace.
        """
        client = await self._manager.main()
        return await client.hget(Keyspace(namespace).generation, "cut") or None  # type: ignore[misc]

    async def create(self, generation: Generation) -> None:
        """Creates the indices of a generation that has no passages yet; those that exist stay.

        Args:
            generation: The generation.

        Raises:
            ServerRequirementError: The server refused.
        """
        await self._create(generation, [generation.text_index, generation.vector_index], scan=False)

    async def drop_indices(self, generation: Generation) -> None:
        """Drops the indices of a generation by their own names; its passages stay.

        Args:
            generation: The generation.
        """
        for name in (generation.text_index, generation.vector_index):
            await self._drop(name)

    async def _create(self, generation: Generation, names: Collection[str], *, scan: bool) -> None:
        commands = {
            generation.text_index: text_index_command(generation, scan=scan),
            generation.vector_index: vector_index_command(generation, scan=scan),
        }
        client = await self._manager.main()
        for name in names:
            try:
                await client.execute_command(*commands[name])
            except ResponseError as error:
                if "already exists" not in str(error).lower():
                    raise ServerRequirementError(
                        "the server refused to create the search index; RediSearch 2.10 or newer is needed"
                    ) from error

    async def _drop(self, name: str) -> None:
        client = await self._manager.main()
        try:
            await client.execute_command("FT.DROPINDEX", name)
        except PermissionDeniedError:
            logger.warning("the Redis user may not drop an index that is not used any more", extra={"index": name})
        except ResponseError as error:
            if not is_missing_index(error):
                raise

    async def _wait_until_filled(self, generation: Generation) -> None:
        for pause in FILLING_PAUSES:
            shares = [await self._indexed_share(name) for name in (generation.text_index, generation.vector_index)]
            if all(share is not None and share >= 1.0 for share in shares):
                return
            await asyncio.sleep(pause)
        raise UnavailableError(f"the index of namespace {generation.namespace!r} is being filled; retry in a moment")

    def _lock(self, namespace: str) -> asyncio.Lock:
        return self._creating.setdefault(namespace, asyncio.Lock())

    async def _read(self, namespace: str) -> Generation | None:
        # Hundreds of searches may find at the same time that what is known is not fresh any more.
        reading = self._reading.get(namespace)
        if reading is None:
            loop = asyncio.get_running_loop()
            reading = self._reading[namespace] = loop.create_task(self._read_anew(namespace), context=Context())
            reading.add_done_callback(lambda done: self._has_read(namespace, done))
        return await asyncio.shield(reading)

    def _has_read(self, namespace: str, done: asyncio.Task[Generation | None]) -> None:
        if self._reading.get(namespace) is done:
            del self._reading[namespace]
        if not done.cancelled():
            # Whoever waited may have gone; the loop would log it.
            done.exception()

    async def _read_anew(self, namespace: str) -> Generation | None:
        client = await self._manager.main()
        forgotten = self._forgotten.get(namespace)
        fields = await client.hmget(  # type: ignore[misc]
            Keyspace(namespace).generation, ["number", "model", "dimension", "build"]
        )
        return self._remember(namespace, fields, forgotten)

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

    def _remember(self, namespace: str, fields: list[str | None], forgotten: int | None) -> Generation | None:
        number, model, dimension, build = fields
        generation = None
        if number is None or number == SWITCHED_OFF:
            # Whatever is written next makes indices of its own.
            self._checked = {one for one in self._checked if one.namespace != namespace}
        if number == SWITCHED_OFF:
            self._known.pop(namespace, None)
            raise UnavailableError(
                f"namespace {namespace!r} is being dropped or renamed; retry in a moment (kb namespaces finishes what "
                "was broken off)"
            )
        if number is not None:
            try:
                generation = Generation(namespace, int(number), str(model), int(dimension or ""), int(build or 1))
            except ValueError:
                raise KnowledgeBaseError(
                    f"the record of the index of namespace {namespace!r} is damaged: something else has written to it"
                ) from None
        if forgotten == self._forgotten.get(namespace):
            self._known[namespace] = (self._clock(), generation)
        return generation
