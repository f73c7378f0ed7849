"""How connections to one Redis are made: the only place that builds pools and clients."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import redis
from redis import asyncio as async_redis
from redis.backoff import NoBackoff

from knowledge_base.connection.packing import packing_quickly
from knowledge_base.errors import InvalidInputError
from knowledge_base.settings import Settings

HEALTH_CHECK_INTERVAL = 30
"""Seconds of idleness after which a pooled connection is checked before it is used."""


def _connection_options(url: str, settings: Settings, name: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": settings.timeouts.redis,
        "socket_connect_timeout": settings.timeouts.connect,
        "health_check_interval": HEALTH_CHECK_INTERVAL,
        "client_name": f"knowledge_base:{name}",
    }
    parts = urlsplit(url)
    if parts.scheme == "rediss":
        # The driver compares no host name unless it is told to.
        options["ssl_check_hostname"] = dict(parse_qsl(parts.query)).get("ssl_cert_reqs") != "none"
    if parts.scheme == "unix":
        del options["socket_connect_timeout"]
    else:
        options["socket_keepalive"] = True
    return options


def async_pool(url: str, settings: Settings, name: str) -> async_redis.BlockingConnectionPool:
    """Returns a pool for the event loop; does no I/O.

    Args:
        url: The server's URL.
        settings: Gives the limits.
        name: Shown by ``CLIENT LIST``.

    Raises:
        InvalidInputError: An option in the URL's query cannot be read.
    """
    try:
        pool: async_redis.BlockingConnectionPool = async_redis.BlockingConnectionPool.from_url(
            url,
            max_connections=settings.limits.pool_connections,
            timeout=settings.timeouts.redis,
            retry=async_redis.retry.Retry(NoBackoff(), 0),
            # The guard bounds each exchange as a whole; within it the driver's timeouts, a task for each command, would
            # only cost time.
            **_connection_options(url, settings, name) | {"socket_timeout": None},
        )
    except ValueError:
        raise InvalidInputError(
            "redis_url (KB_REDIS_URL)", "has an option with a value that the driver cannot read"
        ) from None
    pool.connection_class = packing_quickly(pool.connection_class)
    return pool


def thread_client(url: str, settings: Settings) -> redis.Redis:
    """Returns the synchronous client for LlamaIndex's worker threads; does no I/O.

    Its sockets time out, so that a stuck thread ends soon after its caller has gone.

    Args:
        url: The server's URL.
        settings: Gives the limits.
    """
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=settings.limits.index_threads,
        timeout=settings.timeouts.redis,
        retry=redis.retry.Retry(NoBackoff(), 0),
        **_connection_options(url, settings, "threads"),
    )
    return redis.Redis(connection_pool=pool)
