"""Lua scripts: files beside the code that uses them, sent by digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

from redis.client import NEVER_DECODE
from redis.exceptions import NoScriptError

from knowledge_base.connection.guarded_client import GuardedRedis
from knowledge_base.errors import UnavailableError

SENT_AT_ONCE = 1_000_000
"""Characters that go into one pipeline; packing more would hold up the event loop."""

Argument = str | int | float | bytes
Call = tuple[Sequence[str], Sequence[Argument]]


class LuaScript:
    """A script that is read from package data.

    Args:
        package: The package with the folder ``lua``.
        *names: Files in it, without suffix; joined in this order, so that functions may be shared.
        repeatable: Whether running it twice with the same arguments does what running it once does, reply included.
        prelude: Text that goes before them: functions of another package.
    """

    def __init__(self, package: str, *names: str, repeatable: bool = False, prelude: str = "") -> None:
        self.text = "\n".join([*([prelude] if prelude else []), *(script_text(package, name) for name in names)])
        self._repeatable = repeatable
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(
        self, client: GuardedRedis, keys: Sequence[str], arguments: Sequence[Argument], *, as_bytes: bool = False
    ) -> Any:
        """Runs the script.

        Args:
            client: A guarded client.
            keys: Its KEYS.
            arguments: Its ARGV.
            as_bytes: Whether the strings of its reply are left as bytes.

        Returns:
            Its reply.
        """
        call = (len(keys), *keys, *arguments)
        options = {NEVER_DECODE: True} if as_bytes else {}
        try:
            return await client.execute_command("EVALSHA", self.digest, *call, repeatable=self._repeatable, **options)
        except NoScriptError:
            return await client.execute_command("EVAL", self.text, *call, repeatable=self._repeatable, **options)

    async def many(self, client: GuardedRedis, calls: Sequence[Call]) -> list[Any]:
        """Runs the script several times, in one round trip unless there is much to send.

        Args:
            client: A guarded client.
            calls: KEYS and ARGV of each.

        Returns:
            The replies in order; an exception stands where a call failed.

        Raises:
            UnavailableError: Redis could not be reached; nothing is known of any call.
        """
        replies: list[Any] = []
        for some in _round_trips(calls):
            pipeline = client.pipeline(transaction=False)
            pipeline.execute_command("SCRIPT LOAD", self.text)
            for keys, arguments in some:
                pipeline.execute_command("EVALSHA", self.digest, len(keys), *keys, *arguments)
            try:
                replies += (await pipeline.execute(raise_on_error=False, repeatable=self._repeatable))[1:]
            except UnavailableError as error:
                if not replies:
                    raise
                replies += [error] * (len(calls) - len(replies))
                break
        return replies


def script_text(package: str, name: str) -> str:
    """Returns the text of a script.

    Args:
        package: The package with the folder ``lua``.
        name: The file in it, without suffix.
    """
    return (resources.files(package) / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def _round_trips(calls: Sequence[Call]) -> Iterator[list[Call]]:
    some: list[Call] = []
    characters = 0
    for call in calls:
        size = sum(len(argument) for argument in call[1] if isinstance(argument, str | bytes))
        if some and characters + size > SENT_AT_ONCE:
            yield some
            some, characters = [], 0
        some.append(call)
        characters += size
    if some:
        yield some
