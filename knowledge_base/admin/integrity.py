"""The integrity check: what waits for vectors, what was given up and why."""

from __future__ import annotations

from knowledge_base.connection.workload import call_outside, job
from knowledge_base.index.background import BackgroundIndexer
from knowledge_base.index.pending import PendingFacts
from knowledge_base.statistics import Statistics
from knowledge_base.types import IntegrityReport, Progress


class IntegrityCheck:
    """Looks whether every fact of a namespace has its vectors.

    Args:
        statistics: Counts what is there.
        pending: The record of what waits.
        background: Completes what is put back.
    """

    def __init__(self, statistics: Statistics, pending: PendingFacts, background: BackgroundIndexer) -> None:
        self._statistics = statistics
        self._pending = pending
        self._background = background

    async def run(self, namespace: str, *, repair: bool, progress: Progress | None) -> IntegrityReport:
        """Checks a namespace.

        Args:
            namespace: The namespace.
            repair: Whether facts that were given up are tried again, at once.
            progress: Called when it is done.

        Returns:
            What was found. After a repair, what was parked is pending again.
        """
        with job():
            parked = await self._pending.parked(namespace)
            repaired = 0
            if repair and parked:
                repaired = await self._pending.unpark(namespace)
                self._background.leave(namespace, [])
            counts = await self._statistics.counts(namespace)
        if progress is not None:
            call_outside(progress, counts["facts"], counts["facts"])
        return {
            "namespace": namespace,
            "facts": counts["facts"],
            "pending": counts["pending"],
            "parked": parked,
            "repaired": repaired,
            "ok": len(parked) <= repaired,
        }
