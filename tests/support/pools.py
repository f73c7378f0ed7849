"""What pools say of themselves."""

from __future__ import annotations

from knowledge_base.types import PoolStats


def pool_stats(
    connections: int, limit: int, *, in_use: int = 0, waiting: int = 0, waiting_limit: int | None = None
) -> PoolStats:
    """Returns the statistics of a pool that repeated and abandoned nothing."""
    return {
        "connections": connections,
        "in_use": in_use,
        "waiting": waiting,
        "limit": limit,
        "waiting_limit": waiting_limit,
        "retried": 0,
        "abandoned": 0,
    }
