"""A manager that is closed while its embedded server still starts."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.errors import UnavailableError
from knowledge_base.settings import Settings
from tests.support.polling import eventually


async def test_close_while_the_server_starts_leaves_no_connection(redis_url: str, tmp_path: Path) -> None:
    go_on, begun = threading.Event(), threading.Event()

    class SlowServer:
        def open(self) -> str:
            begun.set()
            go_on.wait(10)
            return redis_url

        def close(self) -> None:
            return

    manager = AsyncRedisManager(Settings(data_dir=tmp_path))
    manager._embedded = SlowServer()  # type: ignore[assignment]
    start: Any = asyncio.create_task(manager.start())
    await eventually(begun.is_set)

    closing = asyncio.create_task(manager.close())
    await asyncio.sleep(0.1)
    go_on.set()
    await closing
    outcomes = await asyncio.gather(start, return_exceptions=True)

    pools = [pool.connections for pool in manager._pools.values()]
    left = [one for pool in pools for one in (*pool._available_connections, *pool._in_use_connections)]
    connected = [one for one in left if one.is_connected]
    for pool in pools:
        await pool.disconnect()
    assert connected == []
    assert isinstance(outcomes[0], UnavailableError)
