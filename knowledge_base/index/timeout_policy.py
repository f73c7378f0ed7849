"""What the server does with a search that takes too long: fail, or return what it has as if that were everything."""

from __future__ import annotations

from redis.exceptions import ResponseError

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.errors import PermissionDeniedError

DEFAULT_TIMEOUT_MS = 500.0
"""RediSearch's own default."""


class TimeoutPolicy:
    """Reads the server's policy once.

    Args:
        manager: The connections.
    """

    def __init__(self, manager: AsyncRedisManager) -> None:
        self._manager = manager
        self._known = False
        self._cuts_after: float | None = None

    async def cuts_after(self) -> float | None:
        """Returns after how many seconds an answer may be cut short in silence; None when the server fails instead.

        Whoever may not read the configuration is told the server's default, which cuts.
        """
        if not self._known:
            policy = (await self._read("ON_TIMEOUT") or "return").lower()
            timeout = float(await self._read("TIMEOUT") or DEFAULT_TIMEOUT_MS)
            self._cuts_after = None if policy == "fail" or timeout <= 0 else timeout / 1000
            self._known = True
        return self._cuts_after

    async def _read(self, name: str) -> str | None:
        client = await self._manager.search()
        try:
            reply = await client.execute_command("FT.CONFIG", "GET", name)
        except (ResponseError, PermissionDeniedError):
            return None
        return str(reply[0][1]) if reply else None
