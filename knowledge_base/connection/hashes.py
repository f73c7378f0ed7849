"""Reading many hashes without holding up the event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from knowledge_base.connection.guarded_client import GuardedRedis
from knowledge_base.connection.scripts import LuaScript

READ_AT_ONCE = 100
"""Hashes that one round trip brings; decoding that many takes the event loop a few milliseconds."""

Row = Sequence[str | None]

_script: LuaScript | None = None


async def read_hashes(client: GuardedRedis, keys: Sequence[str], fields: Sequence[str]) -> AsyncIterator[list[Row]]:
    """Yields the values of fields, so many hashes at a time, in the order asked for.

    Args:
        client: A guarded client.
        keys: The hashes.
        fields: The fields.

    Raises:
        UnavailableError: Redis could not be reached, or not in time.
    """
    global _script
    if len(keys) == 1:
        yield [await client.hmget(keys[0], list(fields))]  # type: ignore[misc]
        return
    if _script is None:
        _script = LuaScript("knowledge_base.connection", "read_hashes", repeatable=True)
    for begin in range(0, len(keys), READ_AT_ONCE):
        yield await _script(client, keys[begin : begin + READ_AT_ONCE], fields)
