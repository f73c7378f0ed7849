"""Time as it is stored in Redis and as callers get it."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """Returns the time as milliseconds since 1970, as stored in Redis."""
    return time.time_ns() // 1_000_000


def stored_time(iso: str) -> int:
    """Returns what ``iso_time`` was given, in milliseconds since 1970.

    Args:
        iso: What it returned.
    """
    return round(datetime.fromisoformat(iso).timestamp() * 1000)


def iso_time(milliseconds: int) -> str:
    """Returns a stored time as callers get it: ISO 8601, UTC, to the millisecond.

    Args:
        milliseconds: Milliseconds since 1970.
    """
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
