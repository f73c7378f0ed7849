"""The cache in Redis: slots that are shared without ever giving one text another's vector."""

from __future__ import annotations

import base64
from array import array
from typing import Any

import fakeredis
import pytest
from redis.exceptions import ConnectionError as LostConnectionError

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.embedding.asked import Asked
from knowledge_base.embedding.shared_cache import SharedCache
from knowledge_base.errors import CircuitOpenError
from knowledge_base.keyspace import Keyspace

NAMESPACE = "docs"
MODEL = "openai:m"
DIMENSION = 3
TTL = 60.0
MANY_SLOTS = 10_000_000
A, B = (Asked("query", NAMESPACE, text) for text in "ab")
VECTOR = array("f", [0.1, -2.0, 3e-20])
OTHER = array("f", [1.0, 2.0, 3.0])


@pytest.fixture
def raw(fake_server: fakeredis.FakeServer) -> Any:
    """A look at the server from outside."""
    return fakeredis.FakeRedis(server=fake_server, decode_responses=True)


@pytest.fixture
async def cache(fake_manager: AsyncRedisManager) -> SharedCache:
    await fake_manager.start()
    return SharedCache(fake_manager, MANY_SLOTS, TTL)


async def test_vectors_that_were_put_are_there_bit_by_bit(cache: SharedCache) -> None:
    await cache.put(MODEL, DIMENSION, [(A, VECTOR), (B, OTHER)])

    found = await cache.get(MODEL, DIMENSION, [B, A, A._replace(text="c")])

    assert found == [OTHER, VECTOR, None]


@pytest.mark.parametrize(
    ("model", "dimension", "asked"),
    [
        ("openai:n", DIMENSION, A),
        (MODEL, DIMENSION + 1, A),
        (MODEL, DIMENSION, A._replace(kind="passage")),
        (MODEL, DIMENSION, A._replace(namespace="other")),
        (MODEL, DIMENSION, A._replace(text="A")),
        (MODEL, DIMENSION, A._replace(text="a ")),
    ],
    ids=str,
)
@pytest.mark.parametrize("slots", [1, MANY_SLOTS])
async def test_what_differs_in_anything_is_another(
    fake_manager: AsyncRedisManager, slots: int, model: str, dimension: int, asked: Asked
) -> None:
    await fake_manager.start()
    cache = SharedCache(fake_manager, slots, TTL)
    await cache.put(MODEL, DIMENSION, [(A, VECTOR)])

    assert await cache.get(model, dimension, [asked]) == [None]


async def test_texts_that_share_a_slot_take_it_from_each_other(fake_manager: AsyncRedisManager, raw: Any) -> None:
    await fake_manager.start()
    cache = SharedCache(fake_manager, 1, TTL)
    await cache.put(MODEL, DIMENSION, [(A, VECTOR)])

    await cache.put(MODEL, DIMENSION, [(B, OTHER)])

    assert await cache.get(MODEL, DIMENSION, [A, B]) == [None, OTHER]
    assert len(raw.keys("*")) == 1


async def test_no_more_keys_than_slots_are_ever_written(fake_manager: AsyncRedisManager, raw: Any) -> None:
    await fake_manager.start()
    cache = SharedCache(fake_manager, 7, TTL)

    await cache.put(MODEL, DIMENSION, [(A._replace(text=f"{number}"), VECTOR) for number in range(200)])

    assert sorted(raw.keys("*")) == sorted(Keyspace(NAMESPACE).cached_vector(slot) for slot in range(7))


async def test_each_key_goes_when_its_time_is_over(cache: SharedCache, raw: Any) -> None:
    await cache.put(MODEL, DIMENSION, [(A, VECTOR), (B, OTHER)])

    assert all(0 < raw.pttl(key) <= TTL * 1000 for key in raw.keys("*"))
    assert len(raw.keys("*")) == 2


async def test_vector_that_is_put_again_is_kept_anew(cache: SharedCache, raw: Any) -> None:
    await cache.put(MODEL, DIMENSION, [(A, VECTOR)])
    (key,) = raw.keys("*")
    raw.pexpire(key, 1_000)

    await cache.put(MODEL, DIMENSION, [(A, VECTOR)])

    assert raw.pttl(key) > 1_000


def packed(*numbers: float) -> str:
    return base64.b64encode(array("f", numbers).tobytes()).decode()


@pytest.mark.parametrize(
    "damage",
    [
        lambda digest: "",
        lambda digest: digest,
        lambda digest: f"{digest}:",
        lambda digest: f"{digest}:not base64!",
        lambda digest: f"{digest}:{packed(1, 2, 3)[:-1]}",
        lambda digest: f"{digest}:{packed(1, 2, 3)}\n",
        lambda digest: f"{digest}:{packed(1, 2, 3)}é",
        lambda digest: f"{digest}:{base64.b64encode(b'123').decode()}",
        lambda digest: f"{digest}:{packed(1, 2)}",
        lambda digest: f"{digest}:{packed(1, 2, 3, 4)}",
        lambda digest: f"{digest[:-1]}x:{packed(1, 2, 3)}",
        lambda digest: packed(1, 2, 3),
        lambda digest: f"{digest}:{packed(1, 2, float('nan'))}",
        lambda digest: f"{digest}:{packed(float('inf'), 2, 3)}",
        lambda digest: f"{digest}:{packed(0, 0, 0)}",
    ],
    ids=[
        "empty",
        "digest alone",
        "no vector",
        "no base64",
        "cut",
        "newline",
        "accent",
        "odd bytes",
        "too short",
        "too long",
        "other digest",
        "no digest",
        "NaN",
        "infinite",
        "zero",
    ],
)
async def test_damaged_value_is_as_if_it_were_not_there(cache: SharedCache, raw: Any, damage: Any) -> None:
    await cache.put(MODEL, DIMENSION, [(A, VECTOR), (B, OTHER)])
    key = next(key for key in raw.keys("*") if raw.get(key).endswith(packed(*VECTOR)))
    digest = raw.get(key).partition(":")[0]

    raw.set(key, damage(digest))

    assert await cache.get(MODEL, DIMENSION, [A, B]) == [None, OTHER]
    await cache.put(MODEL, DIMENSION, [(A, VECTOR)])
    assert await cache.get(MODEL, DIMENSION, [A]) == [VECTOR]


async def test_slot_of_another_type_is_as_if_it_were_not_there(cache: SharedCache, raw: Any) -> None:
    await cache.put(MODEL, DIMENSION, [(A, VECTOR)])
    (key,) = raw.keys("*")
    raw.delete(key)
    raw.rpush(key, "a list")

    assert await cache.get(MODEL, DIMENSION, [A]) == [None]


@pytest.mark.parametrize("text", ["", "\x00", "ü𝄞", "x" * 100_000], ids=["empty", "NUL", "wide", "long"])
async def test_any_text_may_be_asked_for(cache: SharedCache, text: str) -> None:
    asked = A._replace(text=text)

    await cache.put(MODEL, DIMENSION, [(asked, VECTOR)])

    assert await cache.get(MODEL, DIMENSION, [asked, B]) == [VECTOR, None]


async def test_redis_that_is_away_is_as_if_nothing_were_there(
    cache: SharedCache, fake_server: fakeredis.FakeServer
) -> None:
    await cache.put(MODEL, DIMENSION, [(A, VECTOR)])
    fake_server.connected = False

    assert await cache.get(MODEL, DIMENSION, [A, B]) == [None, None]
    await cache.put(MODEL, DIMENSION, [(B, OTHER)])
    fake_server.connected = True

    assert await cache.get(MODEL, DIMENSION, [A, B]) == [VECTOR, None]


@pytest.mark.parametrize("error", [CircuitOpenError("Redis", 1.0), LostConnectionError("away")], ids=repr)
async def test_connection_that_is_refused_is_as_if_nothing_were_there(
    cache: SharedCache, fake_manager: AsyncRedisManager, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def refuse() -> Any:
        raise error

    monkeypatch.setattr(fake_manager, "main", refuse)

    assert await cache.get(MODEL, DIMENSION, [A, B]) == [None, None]
    await cache.put(MODEL, DIMENSION, [(A, VECTOR)])
