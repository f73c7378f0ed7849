"""The part of the integrity check that looks at the search indices of the live generation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from redis.exceptions import ResponseError

from knowledge_base.admin.integrity.findings import Findings
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import LuaScript
from knowledge_base.errors import UnavailableError
from knowledge_base.index.generations import Generations, is_missing_index
from knowledge_base.index.schema import Generation, text_index_command, vector_index_command
from knowledge_base.keyspace import Keyspace

FILLING_PAUSE = 0.1
"""Seconds between looks at an index that is being filled; the call's budget bounds them all."""


class IndexInspector:
    """Looks whether the live indices exist and are as they were ordered, and makes others where they are not.

    Args:
        manager: The connections.
        generations: Makes vanished indices anew.
        findings: Told what was found.
    """

    def __init__(self, manager: AsyncRedisManager, generations: Generations, findings: Findings) -> None:
        self._manager = manager
        self._generations = generations
        self._findings = findings
        self._switch = LuaScript("knowledge_base.index", "switch_build", repeatable=True)

    async def run(self, generation: Generation, *, repair: bool) -> Generation:
        """Looks at both indices.

        Args:
            generation: The live generation.
            repair: Whether others are made.

        Returns:
            The live generation; of another build when its indices were made anew.
        """
        commands = {
            generation.text_index: text_index_command(generation, scan=True),
            generation.vector_index: vector_index_command(generation, scan=True),
        }
        infos = {name: await self._info(name) for name in commands}
        missing = [name for name, info in infos.items() if info is None]
        wrong = {
            name: difference
            for name, info in infos.items()
            if info is not None and (difference := layout_difference(info, commands[name]))
        }
        live = await self._generations.read(generation.namespace)
        if live != generation or not (missing or wrong):
            # Another generation or build has become the live one meanwhile.
            return live or generation
        for name in missing:
            self._findings.add("missing_index", name, repaired=repair)
        for name, difference in wrong.items():
            self._findings.add("wrong_index", name, repaired=repair, detail=difference)
        if not repair:
            return generation
        return await (self.made_beside(generation) if wrong else self._made_whole(generation))

    async def note_incomplete(self, generation: Generation, *, repair: bool) -> None:
        """Notes that the indices do not hold what is stored, and makes others.

        Args:
            generation: The live generation.
            repair: Whether others are made.
        """
        if repair:
            await self.made_beside(generation)
        self._findings.add("incomplete_index", generation.vector_index, repaired=repair)

    async def made_beside(self, generation: Generation) -> Generation:
        """Makes the indices of a generation anew over its passages, while the old ones are searched.

        Args:
            generation: The live generation.

        Returns:
            It, with the build that is live now.
        """
        new = replace(generation, build=generation.build + 1)
        client = await self._manager.main()
        for command in (text_index_command(new, scan=True), vector_index_command(new, scan=True)):
            try:
                await client.execute_command(*command)
            except ResponseError as error:
                # Somebody else makes it too.
                if "already exists" not in str(error).lower():
                    raise
        for name in (new.text_index, new.vector_index):
            await self._wait_until_filled(name)
        key = Keyspace(generation.namespace).generation
        await self._switch(client, [key], [generation.number, generation.build, new.build])
        live = await self._generations.read(generation.namespace)
        is_new = live is not None and (live.number, live.build) == (new.number, new.build)
        # Where another generation or build has become the live one, nobody needs these.
        await self._generations.drop_indices(generation if is_new else new)
        return live or new

    async def _made_whole(self, generation: Generation) -> Generation:
        while True:
            try:
                return await self._generations.make_whole(generation)
            except UnavailableError as error:
                if "being filled" not in str(error):
                    raise
            await asyncio.sleep(FILLING_PAUSE)

    async def _wait_until_filled(self, name: str) -> None:
        while True:
            info = await self._info(name)
            if info is None:
                raise UnavailableError("an index that was being made has vanished; run the repair again")
            if float(info["percent_indexed"]) >= 1.0:
                return
            await asyncio.sleep(FILLING_PAUSE)

    async def _info(self, name: str) -> dict[str, Any] | None:
        client = await self._manager.main()
        try:
            reply = await client.execute_command("FT.INFO", name)
        except ResponseError as error:
            if is_missing_index(error):
                return None
            raise
        return _paired(reply)


def layout_difference(info: Mapping[str, Any], command: Sequence[str | int]) -> str | None:
    """Returns in which way an index differs from what the command would create, or None.

    Args:
        info: What the server says of the index.
        command: The command that creates it as it should be.
    """
    definition = _paired(info["index_definition"])
    prefix = command[command.index("PREFIX") + 2]
    if definition.get("prefixes") != [prefix]:
        return "it indexes other keys"
    schema = command[command.index("SCHEMA") + 1 :]
    attributes = {str(attribute[1]): _attribute(attribute) for attribute in info["attributes"]}
    expected = _ordered(schema)
    if {name: attribute["type"] for name, attribute in attributes.items()} != expected:
        return "it has other fields"
    if "VECTOR" in schema:
        vector = next(attribute for attribute in attributes.values() if attribute["type"] == "VECTOR")
        wanted = int(schema[list(schema).index("DIM") + 1])
        if int(vector.get("dim", wanted)) != wanted:
            return f"its vectors have {vector['dim']} numbers instead of {wanted}"
    return None


def _ordered(schema: Sequence[str | int]) -> dict[str, str]:
    types = ("TEXT", "TAG", "NUMERIC", "VECTOR")
    return {str(name): str(kind) for name, kind in pairwise(schema) if kind in types}


def _attribute(attribute: Sequence[Any]) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in pairwise(attribute)}


def _paired(reply: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(reply[::2], reply[1::2], strict=False))
