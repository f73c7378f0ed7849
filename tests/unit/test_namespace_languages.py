"""What a process knows of the languages of namespaces, and for how long."""

from __future__ import annotations

import asyncio

import fakeredis
import pytest

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.errors import UnavailableError
from knowledge_base.index.namespace_languages import FRESH_FOR, NOTED_FOR, NamespaceLanguages
from knowledge_base.index.polyglot import Polyglot
from knowledge_base.keyspace import Keyspace
from tests.support.fake_redis import Clock

KEY = Keyspace("acme").languages


@pytest.fixture
def redis(fake_server: fakeredis.FakeServer) -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis(server=fake_server, decode_responses=True)


@pytest.fixture
def languages(fake_manager: AsyncRedisManager, clock: Clock) -> NamespaceLanguages:
    return NamespaceLanguages(fake_manager, Polyglot(), clock=clock)


async def test_most_frequent_language_is_first_and_the_likely_one(
    languages: NamespaceLanguages, redis: fakeredis.FakeRedis
) -> None:
    redis.hset(KEY, mapping={"english": 2, "german": 10, "french": 2, "dutch": 0, "russian": -1})

    assert await languages.of("acme") == ("german", "french", "english")
    assert await languages.likely("acme") == "german"


async def test_namespace_without_sections_is_english(languages: NamespaceLanguages) -> None:
    assert await languages.of("acme") == ("english",)
    assert await languages.likely("acme") == "english"


async def test_told_language_is_the_likely_one_and_nothing_is_read(
    fake_manager: AsyncRedisManager, fake_server: fakeredis.FakeServer
) -> None:
    fake_server.connected = False

    assert await NamespaceLanguages(fake_manager, Polyglot("dutch")).likely("acme") == "dutch"


async def test_what_was_read_is_trusted_for_seconds(
    languages: NamespaceLanguages, redis: fakeredis.FakeRedis, clock: Clock
) -> None:
    redis.hset(KEY, "english", "1")
    await languages.of("acme")
    redis.hset(KEY, "german", "5")

    clock.pass_by(FRESH_FOR * 0.9)
    assert await languages.of("acme") == ("english",)
    clock.pass_by(FRESH_FOR * 0.2)
    assert await languages.of("acme") == ("german", "english")


async def test_language_that_is_about_to_be_written_is_there_at_once_and_not_for_ever(
    languages: NamespaceLanguages, redis: fakeredis.FakeRedis, clock: Clock
) -> None:
    redis.hset(KEY, "english", "1")
    await languages.of("acme")

    languages.note("acme", ["haus _german", "hous"])

    assert await languages.of("acme") == ("english", "german")
    assert await languages.of("other") == ("english",)
    clock.pass_by(NOTED_FOR + 1)
    assert await languages.of("acme") == ("english",)


async def test_english_counts_as_there_until_it_is_known_what_is(languages: NamespaceLanguages) -> None:
    languages.note("acme", ["haus _german"])

    assert await languages.of("acme") == ("german", "english")


async def test_many_who_ask_at_once_share_an_answer(
    languages: NamespaceLanguages, redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis.hset(KEY, "german", "1")
    read = languages._read
    reads: list[str] = []

    async def counted(namespace: str) -> object:
        reads.append(namespace)
        return await read(namespace)

    monkeypatch.setattr(languages, "_read", counted)

    found = await asyncio.gather(*(languages.of("acme") for _ in range(100)))

    assert set(found) == {("german",)}
    assert reads == ["acme"]


async def test_failure_is_told_and_not_remembered(
    languages: NamespaceLanguages, redis: fakeredis.FakeRedis, fake_server: fakeredis.FakeServer
) -> None:
    redis.hset(KEY, "german", "1")
    fake_server.connected = False
    with pytest.raises(UnavailableError):
        await languages.of("acme")

    fake_server.connected = True

    assert await languages.of("acme") == ("german",)
