"""The calls of whoever runs the base."""

from __future__ import annotations

from knowledge_base.calls.base import Calls
from knowledge_base.facts import validation
from knowledge_base.types import DetailedStats, Health, IntegrityReport, Progress, Stats


class AdminCalls(Calls):
    """Statistics, health and jobs; each method opens the deadline and asks one collaborator."""

    async def get_stats(self, *, namespace: str | None = None, timeout: float | None = None) -> Stats:
        """Returns the counts of a namespace; they are kept, not scanned for."""
        where = self._namespace(namespace)
        async with self._services.call("get_stats", timeout, self.settings.timeouts.stats) as services:
            return await services.statistics.counts(where)

    async def get_detailed_stats(self, *, namespace: str | None = None, timeout: float | None = None) -> DetailedStats:
        """Returns the counts of a namespace, per tag and source, and the state of what serves it.

        They count what every principal stored: show them to whoever runs the base.
        """
        where = self._namespace(namespace)
        async with self._services.call("get_detailed_stats", timeout, self.settings.timeouts.stats) as services:
            return await services.statistics.details(where)

    async def health(self, *, timeout: float | None = None) -> Health:
        """Says which part is ill; raises nothing that an ill part causes.

        Returns:
            ``live`` is whether this process does its work; ``ready`` whether searches and stores can be served now:
            Redis answers, the query engine searches, the index was built with the configured model, the model gives
            vectors, and there is room. Each part says what it found and how long that took.
        """
        limit = self.settings.timeouts.health if timeout is None else validation.checked_seconds("timeout", timeout)
        return await self._services.health(limit)

    async def check_integrity(
        self,
        *,
        repair: bool = False,
        namespace: str | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> IntegrityReport:
        """Counts the facts that still wait to be found by meaning, and lists those that were given up.

        Args:
            repair: Whether those that were given up are tried again.
            progress: Called with how many facts are done and how many there are.

        Returns:
            The counts; of each fact that was given up, why, after how many attempts and when.
        """
        where = self._namespace(namespace)
        async with self._services.call("check_integrity", timeout, self.settings.timeouts.check) as services:
            return await services.integrity.run(where, repair=repair, progress=progress)
