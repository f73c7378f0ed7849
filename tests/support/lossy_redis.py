"""A Redis that does what it is told and whose reply is lost, since the connection dies."""

from __future__ import annotations

from typing import Any

import fakeredis
import pytest
from fakeredis.aioredis import FakeAsyncRedisConnection
from redis import exceptions as driver
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from knowledge_base.connection import manager
from knowledge_base.connection.guard import RedisGuard
from knowledge_base.connection.guarded_client import GuardedRedis
from knowledge_base.settings import Settings
from tests.support.fake_redis import fake_endpoint, new_guard


class Losses:
    """How many replies are lost from now on, and how often something was sent."""

    def __init__(self) -> None:
        self.left = 0
        self.sent: list[str] = []

    def lose(self, replies: int = 1) -> None:
        """Loses the next replies, each with its connection, and counts anew what is sent."""
        self.left = replies
        self.sent.clear()


class LossyConnection(FakeAsyncRedisConnection):
    """A connection to a fake server that can die between command and reply."""

    def __init__(self, losses: Losses, **options: Any) -> None:
        super().__init__(**options)
        self._losses = losses
        self._greets = False

    async def on_connect(self) -> None:
        self._greets = True
        try:
            await super().on_connect()
        finally:
            self._greets = False

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        await super().send_packed_command(command, check_health=check_health)
        if not self._greets:
            packed = command if isinstance(command, bytes) else b"".join(command)
            self._losses.sent.append(packed.decode(errors="replace"))

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        if self._losses.left and not self._greets:
            self._losses.left -= 1
            await self.disconnect(nowait=True)
            raise driver.ConnectionError("Connection closed by server.")
        return await super().read_response(*arguments, **options)


def lossy_pool(server: fakeredis.FakeServer, losses: Losses, limit: int = 10) -> BlockingConnectionPool:
    """Returns a pool of such connections."""
    return BlockingConnectionPool(
        connection_class=LossyConnection,
        server=server,
        losses=losses,
        decode_responses=True,
        max_connections=limit,
        timeout=5,
        retry=Retry(NoBackoff(), 0),
    )


def lossy_client(server: fakeredis.FakeServer, losses: Losses, guard: RedisGuard | None = None) -> GuardedRedis:
    """Returns a guarded client with such connections."""
    return GuardedRedis(lossy_pool(server, losses), guard or new_guard())


def lossy_endpoint(monkeypatch: pytest.MonkeyPatch, server: fakeredis.FakeServer, losses: Losses) -> None:
    """Lets managers reach a fake server over such connections."""
    fake_endpoint(monkeypatch, server)

    def async_pool(url: str, settings: Settings, name: str) -> BlockingConnectionPool:
        return lossy_pool(server, losses, settings.limits.pool_connections)

    monkeypatch.setattr(manager, "async_pool", async_pool)
