"""Redis without a server: fakeredis behind the real guard, and connections that never answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import fakeredis
import pytest
import redis
from fakeredis.aioredis import FakeAsyncRedisConnection
from redis import asyncio as async_redis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from knowledge_base.connection import index_threads, manager
from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.connection.guard import RedisGuard
from knowledge_base.connection.guarded_client import GuardedRedis
from knowledge_base.settings import BreakerSettings, Settings

URL = "redis://nobody.invalid:6379"


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        """Lets time pass."""
        self.now += seconds


class SilentConnection:
    """A connection to a server that takes everything and answers nothing."""

    retry = Retry(NoBackoff(), 0)
    retry_on_error: tuple[type[Exception], ...] = ()
    is_connected = True

    def __init__(self, **_: Any) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.disconnects = 0

    async def connect(self) -> None:
        """Succeeds."""

    async def can_read_destructive(self) -> bool:
        return False

    async def disconnect(self, nowait: bool = False) -> None:
        self.disconnects += 1

    def should_reconnect(self) -> bool:
        return False

    async def re_auth(self) -> None:
        """Does nothing."""

    def _close(self) -> None:
        self.disconnects += 1

    async def send_command(self, *args: Any, **_: Any) -> None:
        self.sent.append(args)

    def pack_commands(self, commands: Any) -> list[Any]:
        return list(commands)

    async def send_packed_command(self, command: list[Any], **_: Any) -> None:
        self.sent += command

    async def read_response(self, **_: Any) -> Any:
        await asyncio.Event().wait()


def fake_pool(server: fakeredis.FakeServer, limit: int = 10) -> BlockingConnectionPool:
    """Returns a pool of connections to a fake server."""
    return BlockingConnectionPool(
        connection_class=FakeAsyncRedisConnection,
        server=server,
        decode_responses=True,
        max_connections=limit,
        timeout=5,
        retry=async_redis.retry.Retry(NoBackoff(), 0),
    )


def new_guard(
    *,
    limit: int = 10,
    timeout: float = 2.0,
    breaker: CircuitBreaker | None = None,
    on_failure: Callable[[], None] = lambda: None,
) -> RedisGuard:
    """Returns a guard with a breaker of its own, unless one is given."""
    return RedisGuard("main", limit, timeout, breaker or CircuitBreaker("Redis", BreakerSettings()), on_failure)


def fake_client(server: fakeredis.FakeServer | None = None, guard: RedisGuard | None = None) -> GuardedRedis:
    """Returns a guarded client of a fake server."""
    return GuardedRedis(fake_pool(server or fakeredis.FakeServer()), guard or new_guard())


def fake_endpoint(monkeypatch: pytest.MonkeyPatch, server: fakeredis.FakeServer) -> None:
    """Lets managers reach a fake server instead of their URL."""

    def async_pool(url: str, settings: Settings, name: str) -> BlockingConnectionPool:
        return fake_pool(server, settings.limits.pool_connections)

    def thread_client(url: str, settings: Settings) -> redis.Redis:
        client: redis.Redis = fakeredis.FakeRedis(server=server, decode_responses=True)
        return client

    monkeypatch.setattr(manager, "async_pool", async_pool)
    monkeypatch.setattr(index_threads, "thread_client", thread_client)
