"""Lua scripts: sent by digest, in full where the server does not know them."""

from __future__ import annotations

import hashlib
from typing import Any

import fakeredis
import pytest
from redis import exceptions as driver

from knowledge_base.connection.guarded_client import GuardedRedis
from knowledge_base.connection.scripts import LuaScript
from tests.support.fake_redis import fake_client

CLAIM = ("knowledge_base.index", "claim")


@pytest.fixture
def client(fake_server: fakeredis.FakeServer) -> GuardedRedis:
    return fake_client(fake_server)


@pytest.fixture
def sent(client: GuardedRedis, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that the client sends."""
    names: list[str] = []
    execute = client.execute_command

    async def remembered(*args: Any, **options: Any) -> Any:
        names.append(args[0])
        return await execute(*args, **options)

    monkeypatch.setattr(client, "execute_command", remembered)
    return names


def test_script_is_its_files_in_order() -> None:
    shared, store = LuaScript("knowledge_base.facts", "shared"), LuaScript("knowledge_base.facts", "store")

    both = LuaScript("knowledge_base.facts", "shared", "store")

    assert both.text == f"{shared.text}\n{store.text}"
    assert both.digest == hashlib.sha1(both.text.encode()).hexdigest()


@pytest.mark.parametrize("name", ["shared", "store", "update", "delete", "sweep"])
def test_every_script_begins_by_saying_what_it_does(name: str) -> None:
    assert LuaScript("knowledge_base.facts", name).text.startswith("-- ")


async def test_unknown_script_is_sent_in_full_once(client: GuardedRedis, sent: list[str]) -> None:
    script = LuaScript(*CLAIM)
    await client.zadd("pending", {"a": 1, "b": 2, "c": 9})
    sent.clear()

    assert await script(client, ["pending"], [5, 100, 10]) == ["a", "b"]
    assert sent == ["EVALSHA", "EVAL"]
    assert await script(client, ["pending"], [5, 100, 10]) == []
    assert sent == ["EVALSHA", "EVAL", "EVALSHA"]


async def test_script_flushed_by_the_server_is_sent_again(client: GuardedRedis, sent: list[str]) -> None:
    script = LuaScript(*CLAIM)
    await script(client, ["pending"], [5, 100, 10])
    await client.script_flush()
    sent.clear()

    assert await script(client, ["pending"], [5, 100, 10]) == []
    assert sent == ["EVALSHA", "EVAL"]


async def test_error_of_a_script_is_raised_and_not_retried(client: GuardedRedis, sent: list[str]) -> None:
    script = LuaScript(*CLAIM)
    await script(client, ["pending"], [5, 100, 10])
    await client.set("text", "value")
    sent.clear()

    with pytest.raises(driver.ResponseError):
        await script(client, ["text"], [5, 100, 10])

    assert sent == ["EVALSHA"]


async def test_many_calls_take_one_round_trip_and_know_an_empty_server(
    client: GuardedRedis, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = LuaScript(*CLAIM)
    await client.zadd("first", {"a": 1})
    await client.zadd("second", {"b": 1, "c": 2})
    await client.set("text", "value")
    trips: list[str] = []
    run = client._guard.run

    async def counted(command: str, exchange: Any, **options: Any) -> Any:
        trips.append(command)
        return await run(command, exchange, **options)

    monkeypatch.setattr(client._guard, "run", counted)

    replies = await script.many(client, [([key], [5, 100, 10]) for key in ("second", "text", "first", "none")])

    assert replies[0] == ["b", "c"]
    assert isinstance(replies[1], driver.ResponseError)
    assert replies[2:] == [["a"], []]
    assert trips == ["pipeline"]


async def test_no_calls_give_no_replies(client: GuardedRedis) -> None:
    assert await LuaScript(*CLAIM).many(client, []) == []
