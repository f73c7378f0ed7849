"""What the server does with a search that takes too long: fail, or return what it has as if that were everything."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from redis.exceptions import ResponseError

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.errors import PermissionDeniedError

DEFAULT_TIMEOUT_MS = 500.0
"""RediSearch's own default."""

FRESH_FOR = 60.0
"""Seconds that the policy is used before it is read again."""

LONGER = 1.5
"""The server is given so many times the seconds that we wait for a command."""


class TimeoutPolicy:
    """Reads the server's policy now and then.

    Args:
        manager: The connections.
        clock: Monotonic seconds; tests bring their own.
    """

    def __init__(self, manager: AsyncRedisManager, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._manager = manager
        self._clock = clock
        self._read_at: float | None = None
        self._cuts_after: float | None = None

    async def cuts_after(self) -> float | None:
        """Returns after how many seconds an answer may be cut short in silence; None when the server fails instead.

        Whoever may not read the configuration is told the server's default, which cuts.

        Raises:
            UnavailableError: Redis could not be reached, or not in time.
        """
        if self._read_at is None or self._clock() - self._read_at >= FRESH_FOR:
            policy = (await self._read("ON_TIMEOUT") or "return").lower()
            timeout = float(await self._read("TIMEOUT") or DEFAULT_TIMEOUT_MS)
            self._cuts_after = None if policy == "fail" or timeout <= 0 else timeout / 1000
            self._read_at = self._clock()
        return self._cuts_after

    async def whole_or_nothing(self) -> list[str | int]:
        """Returns the arguments that let a search fail rather than be cut short.

        A server that cuts is given longer than we wait, so that what it cuts comes too late to be taken for an answer.

        Raises:
            UnavailableError: Redis could not be reached, or not in time.
        """
        if await self.cuts_after() is None:
            return []
        return ["TIMEOUT", math.ceil(self._manager.settings.timeouts.redis * 1000 * LONGER)]

    async def _read(self, name: str) -> str | None:
        client = await self._manager.search()
        try:
            reply = await client.execute_command("FT.CONFIG", "GET", name)
        except (ResponseError, PermissionDeniedError):
            return None
        return str(reply[0][1]) if reply else None
