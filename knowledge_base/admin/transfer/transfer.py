"""Export and import, with the threads in which they read and write files."""

from __future__ import annotations

from knowledge_base.admin.transfer.document_import import DocumentImport
from knowledge_base.admin.transfer.exporter import Exporter
from knowledge_base.admin.transfer.fact_import import FactImport
from knowledge_base.admin.transfer.fact_pages import FactPages
from knowledge_base.admin.transfer.importer import Importer
from knowledge_base.connection.admission import Admission
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.documents.records import DocumentArchive
from knowledge_base.index.generations import Generations
from knowledge_base.settings import Limits, Timeouts
from knowledge_base.types import PoolStats


class Transfer:
    """Everything out of a base, and into one.

    Args:
        manager: The connections.
        generations: Where each namespace's passages are.
        pages: Reads facts.
        facts: Restores facts.
        documents: Reads and restores documents.
        admission: The places of jobs.
        timeouts: The caps of the steps.
        limits: The limits.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        generations: Generations,
        pages: FactPages,
        facts: FactImport,
        documents: DocumentArchive,
        admission: Admission,
        timeouts: Timeouts,
        limits: Limits,
    ) -> None:
        # A disk that hangs holds up other transfers at most.
        self._threads = WorkloadThreads("transfer", threads=limits.concurrent_jobs, waiting=limits.waiting_jobs)
        self.exporter = Exporter(pages, documents, generations, admission, self._threads, timeouts)
        self.importer = Importer(
            facts, DocumentImport(documents, facts), manager, admission, self._threads, timeouts, limits
        )

    def stats(self) -> dict[str, PoolStats]:
        """Returns the use of the threads."""
        return self._threads.stats()

    async def close(self, within: float) -> None:
        """Ends the threads.

        Args:
            within: Seconds to wait at most for those that are busy.
        """
        await self._threads.close(within)
