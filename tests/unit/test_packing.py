"""Commands packed in C are the bytes that the driver would have sent."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio.connection import Connection, UnixDomainSocketConnection
from redis.exceptions import DataError

from knowledge_base.connection.packing import packing_quickly

COMMANDS: list[tuple[Any, ...]] = [
    ("GET", "key"),
    ("CONFIG GET", "maxmemory"),
    (b"SCRIPT LOAD", "return 1"),
    ("HSET", "key", "field", b"\x00\xff\r\n", "ä€😀", ""),
    ("ZADD", "key", 1.5, -7, 1e300, float("inf"), 10**30),
    ("SET", "key", memoryview(b"cd")),
    ("SET", "key", "x" * 100_000, b"y" * 100_000),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command[0]))
def test_commands_are_packed_as_the_driver_packs_them(command: tuple[Any, ...]) -> None:
    quick, plain = packing_quickly(Connection)(), Connection()

    packed = quick.pack_command(*command)

    assert b"".join(packed) == b"".join(plain.pack_command(*command))


def test_pipelines_are_packed_as_the_driver_packs_them() -> None:
    quick, plain = packing_quickly(Connection)(), Connection()

    packed = quick.pack_commands(COMMANDS)

    assert b"".join(packed) == b"".join(plain.pack_commands(COMMANDS))


@pytest.mark.parametrize("value", [True, None, ["a"]])
def test_what_the_driver_refuses_is_refused(value: Any) -> None:
    quick = packing_quickly(Connection)()

    with pytest.raises(DataError):
        quick.pack_command("SET", "key", value)


def test_view_with_gaps_is_left_to_the_driver() -> None:
    command = ("SET", "key", memoryview(b"abcdef")[::2])

    assert packing_quickly(Connection)().pack_command(*command) == Connection().pack_command(*command)


def test_class_stays_one_of_the_driver_and_is_made_once() -> None:
    quick = packing_quickly(UnixDomainSocketConnection)

    assert issubclass(quick, UnixDomainSocketConnection)
    assert packing_quickly(UnixDomainSocketConnection) is quick
