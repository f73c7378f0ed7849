"""Lua scripts: files beside the code that uses them, sent by digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from redis.exceptions import NoScriptError

from knowledge_base.connection.guarded_client import GuardedRedis

Argument = str | int | float | bytes
Call = tuple[Sequence[str], Sequence[Argument]]


class LuaScript:
    """A script that is read from package data.

    Args:
        package: The package with the folder ``lua``.
        *names: Files in it, without suffix; joined in this order, so that functions may be shared.
    """

    def __init__(self, package: str, *names: str) -> None:
        folder = resources.files(package) / "lua"
        self.text = "\n".join((folder / f"{name}.lua").read_text(encoding="utf-8") for name in names)
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, client: GuardedRedis, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Runs the script.

        Args:
            client: A guarded client.
            keys: Its KEYS.
            arguments: Its ARGV.

        Returns:
            Its reply.
        """
        try:
            return await client.execute_command("EVALSHA", self.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return await client.execute_command("EVAL", self.text, len(keys), *keys, *arguments)

    async def many(self, client: GuardedRedis, calls: Sequence[Call]) -> list[Any]:
        """Runs the script several times in one round trip.

        Args:
            client: A guarded client.
            calls: KEYS and ARGV of each.

        Returns:
            The replies in order; an exception stands where a call failed.
        """
        pipeline = client.pipeline(transaction=False)
        pipeline.execute_command("SCRIPT LOAD", self.text)
        for keys, arguments in calls:
            pipeline.execute_command("EVALSHA", self.digest, len(keys), *keys, *arguments)
        return (await pipeline.execute(raise_on_error=False))[1:]
