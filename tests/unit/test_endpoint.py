"""How connections are made: bounded, never retried, and as the URL says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from knowledge_base.connection.endpoint import async_pool, thread_client
from knowledge_base.settings import Limits, Settings, Timeouts
from tests.support.fake_redis import URL

SECRET = "hunter2"
BOUNDS = Settings(
    redis_url=URL, timeouts=Timeouts(redis=1.5, connect=0.5), limits=Limits(pool_connections=7, index_threads=3)
)


@pytest.mark.parametrize("make", [lambda: async_pool(URL, BOUNDS, "main"), lambda: thread_client(URL, BOUNDS)])
def test_connections_have_timeouts_and_no_retries(make: Callable[[], Any]) -> None:
    made = make()
    pool = getattr(made, "connection_pool", made)

    options = pool.connection_kwargs

    # On the loop the guard ends a wait; in threads there is no guard.
    assert options["socket_timeout"] == (1.5 if pool is not made else None)
    assert options["socket_connect_timeout"] == 0.5
    assert options["retry"]._retries == 0
    assert options["socket_keepalive"] is True
    assert options["decode_responses"] is True
    assert options["health_check_interval"] > 0
    assert pool.timeout == 1.5
    assert pool.max_connections == (3 if pool is not made else 7)


def test_unix_sockets_are_not_given_what_only_the_network_has() -> None:
    options = async_pool("unix:///run/redis.sock", BOUNDS, "main").connection_kwargs

    assert options["path"] == "/run/redis.sock"
    assert options["socket_timeout"] is None
    assert not {"socket_connect_timeout", "socket_keepalive"} & set(options)


def test_password_and_encryption_come_from_the_url() -> None:
    pool = async_pool(f"rediss://ann:{SECRET}@localhost:1/2", BOUNDS, "main")

    assert pool.connection_class.__name__ == "SSLConnection"
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["password"]) == ("ann", SECRET)
    assert pool.connection_kwargs["db"] == 2
