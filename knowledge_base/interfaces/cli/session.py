"""One command's knowledge base: opened, used and closed again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from knowledge_base.knowledge_base import KnowledgeBase
    from knowledge_base.settings import Settings

T = TypeVar("T")


def open_base(settings: Settings) -> KnowledgeBase:
    """Makes the knowledge base that a command works with.

    Args:
        settings: Its settings.
    """
    from knowledge_base.knowledge_base import KnowledgeBase

    return KnowledgeBase(settings)


def run(settings: Settings, work: Callable[[KnowledgeBase], Awaitable[T]]) -> T:
    """Runs a command's work on an event loop of its own.

    The base is not started beforehand: ``health`` must be able to say what keeps it from starting.

    Args:
        settings: Settings of the knowledge base.
        work: What the command does with it.
    """

    async def session() -> T:
        base = open_base(settings)
        try:
            return await work(base)
        finally:
            await base.close()

    return asyncio.run(session())
