"""The cache in memory: bounded, forgetful, and never mixing up what is asked for."""

from __future__ import annotations

from array import array

import pytest

from knowledge_base.embedding.asked import Asked
from knowledge_base.embedding.memory_cache import MemoryCache
from tests.support.fake_redis import Clock

TTL = 60.0
A, B, C = (Asked("query", "docs", text) for text in "abc")


def vector(number: float) -> array[float]:
    return array("f", [number, 1.0])


@pytest.fixture
def cache(clock: Clock) -> MemoryCache:
    return MemoryCache(2, TTL, clock)


def test_vector_that_was_put_is_there(cache: MemoryCache) -> None:
    cache.put(A, vector(1))

    assert cache.get(A) == vector(1)
    assert cache.get(B) is None


@pytest.mark.parametrize("other", [A._replace(kind="passage"), A._replace(namespace=""), A._replace(text="A")], ids=str)
def test_what_differs_in_anything_is_another(cache: MemoryCache, other: Asked) -> None:
    cache.put(A, vector(1))

    assert cache.get(other) is None


def test_what_was_not_asked_for_longest_goes_first(cache: MemoryCache) -> None:
    cache.put(A, vector(1))
    cache.put(B, vector(2))
    cache.get(A)

    cache.put(C, vector(3))

    assert [cache.get(one) for one in (A, B, C)] == [vector(1), None, vector(3)]


def test_vector_that_is_put_again_counts_as_asked_for(cache: MemoryCache) -> None:
    cache.put(A, vector(1))
    cache.put(B, vector(2))
    cache.put(A, vector(4))

    cache.put(C, vector(3))

    assert [cache.get(one) for one in (A, B, C)] == [vector(4), None, vector(3)]


def test_vector_is_forgotten_when_its_time_is_over_however_often_it_is_asked_for(
    cache: MemoryCache, clock: Clock
) -> None:
    cache.put(A, vector(1))
    clock.pass_by(TTL - 0.1)
    assert cache.get(A) == vector(1)

    clock.pass_by(0.1)

    assert cache.get(A) is None
    cache.put(A, vector(2))
    assert cache.get(A) == vector(2)


def test_vector_that_is_put_again_is_kept_anew(cache: MemoryCache, clock: Clock) -> None:
    cache.put(A, vector(1))
    clock.pass_by(TTL - 0.1)
    cache.put(A, vector(2))
    clock.pass_by(TTL - 0.1)

    assert cache.get(A) == vector(2)


@pytest.mark.parametrize("size", [0, 1, 7])
def test_no_more_are_kept_than_agreed(clock: Clock, size: int) -> None:
    cache = MemoryCache(size, TTL, clock)
    asked = [Asked("query", "docs", f"{number}") for number in range(100)]

    for number, one in enumerate(asked):
        cache.put(one, vector(number))

    kept = [one for one in asked if cache.get(one) is not None]
    assert kept == asked[len(asked) - size :]
