"""The calls of whoever runs the base."""

from __future__ import annotations

from knowledge_base.calls.base import Calls
from knowledge_base.facts import validation
from knowledge_base.types import DetailedStats, Health, IntegrityReport, Progress, RebuildReport, Stats


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

    async def rebuild_search_index(
        self, *, namespace: str | None = None, progress: Progress | None = None, timeout: float | None = None
    ) -> RebuildReport:
        """Builds a namespace's search index anew beside the live one, and switches to it in one step.

        Searches and stores go on as before. Vectors are copied where the model stays. Where another model is
        configured (``Settings.next_embedding``, else ``Settings.embedding``) all passages are embedded anew.

        Args:
            progress: Called with how many facts and documents are done and how many there are.

        Returns:
            What was built; the old index is dropped by then.

        Raises:
            UnavailableError: Another process is rebuilding it, or Redis or the model could not be reached: the live
                index is as it was, and the next call goes on where this one stopped.
            KnowledgeBaseError: The new index was found wanting; the live one is as it was.
            EmbeddingUnavailableError: The model's dimension is not known and cannot be asked for.
        """
        where = self._namespace(namespace)
        limit = self.settings.timeouts.job
        async with (
            self._services.call("rebuild_search_index", timeout, limit) as services,
            services.bulk.admission.place(limit),
        ):
            return await services.rebuild.run(where, progress)

    async def check_integrity(
        self,
        *,
        repair: bool = False,
        namespace: str | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> IntegrityReport:
        """Looks whether everything that is stored of a namespace agrees, beside whoever reads and writes.

        Args:
            repair: Whether what can be mended is mended, and facts that were given up are tried again.
            namespace: Where to look; without it, the namespace of the settings.
            progress: Called with how many facts and documents were looked at, and how many there are.
            timeout: Seconds that it may take; without it, ``timeouts.check``. A repair that was cut short goes on with
                the next one.

        Returns:
            What was found, counted by kind, with examples; how much of it is mended; of each fact that was given up,
            why, after how many attempts and when.

        Raises:
            OverloadedError: Too many jobs wait already.
            UnavailableError: Redis or the model's tokenizer could not be reached.
        """
        where = self._namespace(namespace)
        limit = self.settings.timeouts.check
        async with (
            self._services.call("check_integrity", timeout, limit) as services,
            services.bulk.admission.place(limit),
        ):
            return await services.integrity.run(where, repair=repair, progress=progress)
