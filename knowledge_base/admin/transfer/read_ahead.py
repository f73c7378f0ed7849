"""Reading what comes next while what has come is being worked on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

Item = TypeVar("Item")


async def read_ahead(items: AsyncIterator[Item]) -> AsyncGenerator[Item, None]:
    """Yields items, and has the next one read meanwhile. Close it, so that nothing is read in vain.

    Args:
        items: What to read.
    """

    async def following() -> tuple[Item] | None:
        async for item in items:
            return (item,)
        return None

    loop = asyncio.get_running_loop()
    reading = loop.create_task(following())
    try:
        while (found := await asyncio.shield(reading)) is not None:
            reading = loop.create_task(following())
            yield found[0]
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
