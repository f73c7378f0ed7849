"""Reading many hashes: in order, a hundred at a time, and again when the connection dies."""

from __future__ import annotations

from collections.abc import Sequence

import fakeredis
import pytest

from knowledge_base.connection.guarded_client import GuardedRedis
from knowledge_base.connection.hashes import BYTES_AT_ONCE, READ_AT_ONCE, HashGroup, Row, read_hash_groups, read_hashes
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


async def test_reply_ends_when_it_is_long_enough(client: GuardedRedis, losses: Losses) -> None:
    keys = await fill(client, 7)
    for key in (keys[1], keys[3], keys[4]):
        await client.execute_command("HSET", key, "text", "x" * (BYTES_AT_ONCE // 2))
    await client.execute_command("HSET", keys[5], "text", "x" * (2 * BYTES_AT_ONCE))

    pages = await read(client, keys, "n", "no such field", "text")

    assert [row[0] for rows in pages for row in rows] == [str(at) for at in range(7)]
    assert [len(rows) for rows in pages] == [4, 2, 1]


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


async def test_kinds_are_read_together_each_with_its_own_fields(client: GuardedRedis, losses: Losses) -> None:
    keys = await fill(client, 3)
    losses.sent.clear()

    read = await read_hash_groups(client, [HashGroup(keys[:1], ["n"]), HashGroup(keys[1:], ["text", "nothing"])])

    assert read == [[["0"]], [["text 1", None], ["text 2", None]]]
    assert ["EVALSHA" in sent for sent in losses.sent].count(True) == 1
    assert len(losses.sent) <= 2, "the script is loaded at most, and run once"


@pytest.mark.parametrize("counts", [(0, 0), (0, 2), (2, 0), (READ_AT_ONCE, 1), (1, 2 * READ_AT_ONCE)])
async def test_kinds_may_be_empty_or_many(client: GuardedRedis, counts: tuple[int, int]) -> None:
    keys = await fill(client, max(counts))
    first, second = keys[: counts[0]], keys[: counts[1]]

    read = await read_hash_groups(client, [HashGroup(first, ["n"]), HashGroup(second, ["text"])])

    assert read == [
        [[str(at)] for at in range(counts[0])],
        [[f"text {at}"] for at in range(counts[1])],
    ]


async def test_kinds_that_are_large_are_read_to_the_end(client: GuardedRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knowledge_base.connection.hashes.BYTES_AT_ONCE", 8)
    keys = await fill(client, 5)

    read = await read_hash_groups(client, [HashGroup(keys, ["n"]), HashGroup(keys, ["text"])])

    assert read == [[[str(at)] for at in range(5)], [[f"text {at}"] for at in range(5)]]
