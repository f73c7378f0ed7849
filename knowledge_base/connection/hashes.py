"""Reading many hashes without holding up the event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from redis.client import NEVER_DECODE

from knowledge_base.connection.guarded_client import GuardedRedis
from knowledge_base.connection.scripts import LuaScript

READ_AT_ONCE = 100
"""Hashes that one round trip brings at most; decoding that many takes the event loop a few milliseconds."""

BYTES_AT_ONCE = 1_000_000
"""Bytes after which a reply ends early: the parser makes all of its strings in one go."""

Row = Sequence[str | None]

_script: LuaScript | None = None
_group_script: LuaScript | None = None


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
    read = 0
    while read < len(keys):
        rows: list[Row] = await _script(client, keys[read : read + READ_AT_ONCE], [BYTES_AT_ONCE, *fields])
        read += len(rows)
        yield rows


class HashGroup(NamedTuple):
    """Hashes of one kind, and the fields that are asked for."""

    keys: Sequence[str]
    fields: Sequence[str]


async def read_hash_groups(client: GuardedRedis, groups: Sequence[HashGroup]) -> list[list[Row]]:
    """Returns for each group the values of its fields, hash by hash, in one round trip where they are few.

    Args:
        client: A guarded client.
        groups: What is asked for; keys of one namespace.

    Raises:
        UnavailableError: Redis could not be reached, or not in time.
    """
    global _group_script
    if _group_script is None:
        _group_script = LuaScript("knowledge_base.connection", "read_hash_groups", repeatable=True)
    rows: list[Row] = []
    if sum(len(group.keys) for group in groups) <= READ_AT_ONCE:
        arguments: list[str | int] = [BYTES_AT_ONCE]
        for group in groups:
            arguments += [len(group.keys), len(group.fields), *group.fields]
        rows = await _group_script(client, [key for group in groups for key in group.keys], arguments)
    read: list[list[Row]] = []
    for group in groups:
        own, rows = rows[: len(group.keys)], rows[len(group.keys) :]
        if len(own) < len(group.keys):
            own += [row async for some in read_hashes(client, group.keys[len(own) :], group.fields) for row in some]
        read.append(own)
    return read


async def read_bytes(client: GuardedRedis, hashes: Sequence[tuple[str, Sequence[str]]]) -> list[list[bytes | None]]:
    """Returns the values of fields as they are stored, in one round trip: vectors are no text.

    Args:
        client: A guarded client.
        hashes: The key of each hash, and its fields that are asked for.

    Raises:
        UnavailableError: Redis could not be reached, or not in time.
    """
    pipeline = client.pipeline(transaction=False)
    for key, fields in hashes:
        pipeline.execute_command("HMGET", key, *fields, **{NEVER_DECODE: True})
    return await pipeline.execute()
