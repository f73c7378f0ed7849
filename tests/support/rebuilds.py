"""What a rebuild must leave behind, as seen from outside, and short ways to begin one."""

from __future__ import annotations

import json
from array import array
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import redis

from knowledge_base.index.schema import SEPARATOR
from knowledge_base.keyspace import OPEN, Keyspace
from knowledge_base.settings import Settings, Timeouts
from tests.support.embeddings import StubEmbedding
from tests.support.hashed_words import unit_vector

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

SHORT = Timeouts(search=0.3, retrieve=0.3, context=0.3)
"""The old index is dropped when the longest is over; searches that must not fail bring a timeout of their own."""

PATIENT = 30.0
"""Seconds for a search on a machine that is busy with other things."""

OTHER_SIZE = 48

Hash = dict[str, str]


def other_model(size: int = OTHER_SIZE, name: str = "other") -> StubEmbedding:
    """Returns the model that bases are moved to."""
    return StubEmbedding(model_name=name, size=size)


@asynccontextmanager
async def moving_base(
    settings: Settings, old: StubEmbedding, new: StubEmbedding | None, **changes: Any
) -> AsyncIterator[KnowledgeBase]:
    """Opens a base that has both models.

    Args:
        settings: Its settings.
        old: The model that its index was built with.
        new: The model that it is being moved to.
        **changes: Replace settings.
    """
    from knowledge_base import KnowledgeBase

    changed = settings.model_copy(update=changes)
    async with KnowledgeBase(changed, embed_model=old, next_embed_model=new) as kb:
        yield kb


def generation_of(client: redis.Redis, namespace: str) -> Hash:
    """Returns the record of the live index."""
    found: Any = client.hgetall(Keyspace(namespace).generation)
    return dict(found)


def rebuild_of(client: redis.Redis, namespace: str) -> Hash:
    """Returns the record of a rebuild under way."""
    found: Any = client.hgetall(Keyspace(namespace).rebuild)
    return dict(found)


def end_lease(client: redis.Redis, namespace: str) -> None:
    """Lets another process take over a rebuild, as if its owner had been silent for long enough."""
    name = Keyspace(namespace).rebuild
    if client.exists(name):
        client.hset(name, "lease", "0")


def leftovers(client: redis.Redis, namespace: str) -> list[str]:
    """Returns what is there of a rebuild, or of an index that is not the live one; nothing when all is well."""
    keys = Keyspace(namespace)
    live = generation_of(client, namespace)
    number, build = live.get("number", "1"), int(live.get("build", 1))
    records = {keys.rebuild, keys.changed, keys.unembedded, keys.retired}
    names: list[str] = sorted(client.scan_iter(f"{keys.root}*", count=10_000))
    left = [name for name in names if name in records]
    left += [
        name
        for name in names
        for kind in ("passage:", "section:")
        if name.startswith(keys.root + kind) and name.removeprefix(keys.root + kind).partition(":")[0] != number
    ]
    own = {keys.text_index(int(number), build), keys.vector_index(int(number), build)}
    indices: Any = client.execute_command("FT._LIST")
    return left + sorted(name for name in indices if name.startswith(keys.root) and name not in own)


def index_faults(client: redis.Redis, namespace: str, model: StubEmbedding) -> list[str]:
    """Compares each part of the live index with the fact or document that it belongs to; nothing when all agree.

    Args:
        client: Decodes its answers.
        namespace: What is looked at, while nobody writes.
        model: Makes the vectors that must stand there.
    """
    return list(_index_faults(client, namespace, model))


def _index_faults(client: redis.Redis, namespace: str, model: StubEmbedding) -> Iterator[str]:
    keys = Keyspace(namespace)
    live = generation_of(client, namespace)
    parts = 0
    with redis.Redis(connection_pool=_undecoded(client)) as raw:
        for name in client.scan_iter(f"{keys.root}fact:*", count=1_000):
            fact_id = name.removeprefix(f"{keys.root}fact:")
            fact: Any = client.hgetall(name)
            for kind in ("passage", "section"):
                for position in range(int(fact[f"{kind}s"])):
                    parts += 1
                    key = f"{keys.root}{kind}:{live['number']}:{fact_id}:{fact['revision']}:{position}"
                    yield from _part_faults(client, raw, key, fact, model)
    total = 0
    number, build = int(live["number"]), int(live.get("build", 1))
    for index in (keys.text_index(number, build), keys.vector_index(number, build)):
        found: Any = client.execute_command("FT.SEARCH", index, "*", "LIMIT", 0, 0)
        total += int(found[0])
    if total != parts:
        yield f"the indices hold {total} parts instead of {parts}"


def _part_faults(client: redis.Redis, raw: redis.Redis, key: str, fact: Any, model: StubEmbedding) -> Iterator[str]:
    part: Any = raw.hgetall(key)
    if not part:
        yield f"{key} is missing"
        return
    fields = {name.decode(): value for name, value in part.items()}
    for label, expected in (
        ("tags", json.loads(fact["tags"])),
        ("principals", json.loads(fact["principals"]) or [OPEN]),
        ("source", [fact["source"]] if fact["source"] else []),
    ):
        given = sorted(value for value in fields[label].decode().split(SEPARATOR) if value)
        if given != sorted(expected):
            yield f"{key}: {label} {given} instead of {expected}"
    ends = int(client.pexpiretime(key))
    if ends != int(fact["expires_at"] or -1):
        yield f"{key}: ends at {ends} instead of {fact['expires_at'] or 'never'}"
    if b"text" not in part:
        return
    expected_vector = array("f", unit_vector(fields["text"].decode(), model.size)).tobytes()
    if "vector" in fields and fields["vector"] != expected_vector:
        yield f"{key}: another vector of {len(fields['vector'])} bytes"
    if "vector" not in fields and fact["indexed"] == "1":
        yield f"{key}: no vector"


def _undecoded(client: redis.Redis) -> redis.ConnectionPool:
    options = {**client.connection_pool.connection_kwargs, "decode_responses": False}
    return redis.ConnectionPool(connection_class=client.connection_pool.connection_class, **options)
