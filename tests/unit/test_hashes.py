"""Reading many hashes: in order, a hundred at a time, and again when the connection dies."""

from __future__ import annotations

from collections.abc import Sequence

import fakeredis
import pytest

from knowledge_base.connection.guarded_client import GuardedRedis
from knowledge_base.connection.hashes import READ_AT_ONCE, Row, read_hashes
from knowledge_base.errors import UnavailableError
from tests.support.lossy_redis import Losses, lossy_client


@pytest.fixture
def losses() -> Losses:
    return Losses()


@pytest.fixture
def client(fake_server: fakeredis.FakeServer, losses: Losses) -> GuardedRedis:
    return lossy_client(fake_server, losses)


async def read(client: GuardedRedis, keys: Sequence[str], *fields: str) -> list[list[Row]]:
    return [list(rows) async for rows in read_hashes(client, keys, fields)]


async def fill(client: GuardedRedis, number: int) -> list[str]:
    keys = [f"hash:{at}" for at in range(number)]
    for at, key in enumerate(keys):
        await client.execute_command("HSET", key, "n", at, "text", f"text {at}")
    return keys


async def test_values_come_in_the_order_asked_for(client: GuardedRedis) -> None:
    keys = await fill(client, 3)

    (rows,) = await read(client, [keys[2], keys[0], keys[2]], "text", "n")

    assert rows == [["text 2", "2"], ["text 0", "0"], ["text 2", "2"]]


async def test_what_is_missing_is_none(client: GuardedRedis) -> None:
    keys = await fill(client, 1)

    (rows,) = await read(client, [*keys, "nothing"], "n", "no such field")

    assert rows == [["0", None], [None, None]]


@pytest.mark.parametrize("key", ["hash:0", "nothing"])
async def test_single_hash_is_read_alike(client: GuardedRedis, key: str) -> None:
    await fill(client, 1)

    (alone,) = await read(client, [key], "n", "no such field")
    (beside,) = await read(client, [key, key], "n", "no such field")

    assert [list(row) for row in alone] == [list(row) for row in beside[:1]]


async def test_nothing_is_asked_for_no_hash(client: GuardedRedis, losses: Losses) -> None:
    assert await read(client, [], "n") == []

    assert losses.sent == []


@pytest.mark.parametrize("number", [READ_AT_ONCE - 1, READ_AT_ONCE, READ_AT_ONCE + 1, 2 * READ_AT_ONCE + 5])
async def test_many_are_read_so_many_at_a_time(client: GuardedRedis, losses: Losses, number: int) -> None:
    keys = await fill(client, number)
    await read(client, keys[:2], "n")
    losses.lose(0)

    pages = await read(client, keys, "n")

    assert [row for rows in pages for row in rows] == [[str(at)] for at in range(number)]
    assert max(map(len, pages)) <= READ_AT_ONCE
    assert len(losses.sent) == len(pages) == -(-number // READ_AT_ONCE)


@pytest.mark.parametrize("number", [1, 5])
async def test_reading_survives_a_connection_that_dies(client: GuardedRedis, losses: Losses, number: int) -> None:
    keys = await fill(client, number)
    expected = await read(client, keys, "n")
    losses.lose()

    assert await read(client, keys, "n") == expected


async def test_reading_that_fails_twice_says_so(client: GuardedRedis, losses: Losses) -> None:
    keys = await fill(client, 2)
    losses.lose(2)

    with pytest.raises(UnavailableError):
        await read(client, keys, "n")
