"""The integrity check: whether everything that is stored of a namespace agrees, and what is done where it does not."""

from __future__ import annotations

from knowledge_base.admin.integrity.counts import CountCheck
from knowledge_base.admin.integrity.entries import EntryInspector
from knowledge_base.admin.integrity.findings import Findings
from knowledge_base.admin.integrity.indices import IndexInspector
from knowledge_base.admin.integrity.keys import KeyInspector
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import call_outside, job
from knowledge_base.documents.records import DocumentArchive
from knowledge_base.facts.remake import FactRemaker
from knowledge_base.facts.repository import FactRepository
from knowledge_base.index.background import BackgroundIndexer
from knowledge_base.index.generations import Generations
from knowledge_base.index.indexer import Indexer
from knowledge_base.index.pending import PendingFacts
from knowledge_base.keyspace import Keyspace
from knowledge_base.statistics import Statistics
from knowledge_base.types import IntegrityReport, ParkedFact, Progress

NO_RECORD = "the record of the live index is gone"


class IntegrityCheck:
    """Looks at every key of a namespace, beside whoever reads and writes.

    What it finds was seen within one atomic script, and once more a while later; what it mends is mended by scripts
    that look once more. So what others change meanwhile is neither reported nor touched.

    Args:
        manager: The connections.
        statistics: Counts what is there.
        repository: Removes what has expired.
        generations: Which index is live.
        remaker: Makes parts of facts anew.
        documents: Makes parts of documents anew.
        indexer: Records a generation where the record is gone.
        pending: The record of what waits.
        background: Completes what is put back.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        statistics: Statistics,
        repository: FactRepository,
        generations: Generations,
        remaker: FactRemaker,
        documents: DocumentArchive,
        indexer: Indexer,
        pending: PendingFacts,
        background: BackgroundIndexer,
    ) -> None:
        self._manager = manager
        self._statistics = statistics
        self._repository = repository
        self._generations = generations
        self._remaker = remaker
        self._documents = documents
        self._indexer = indexer
        self._pending = pending
        self._background = background

    async def run(self, namespace: str, *, repair: bool, progress: Progress | None) -> IntegrityReport:
        """Checks a namespace.

        Args:
            namespace: The namespace.
            repair: Whether what can be mended is mended, and what was given up is tried again.
            progress: Called with how many facts and documents were looked at, and how many there are.

        Returns:
            What was found.

        Raises:
            UnavailableError: Redis could not be reached, or what must be made anew could not; the next run goes on.
        """
        with job():
            findings = Findings()
            keys = KeyInspector(
                self._manager, self._generations, self._repository, self._remaker, self._documents, namespace
            )
            foreign = await keys.foreign_singles()
            for key in foreign:
                findings.add("foreign_types", key, repaired=False)
            if foreign:
                # Nothing can be read or written until they are gone.
                return _unread(namespace, findings)
            total = await self._total(namespace)
            await self._look(namespace, keys, findings, total, repair=repair, progress=progress)
            parked = await self._parked(namespace, findings, repair=repair)
            if repair and findings.repaired:
                self._background.leave(namespace, [])
            return await self._report(namespace, findings, parked)

    async def _look(
        self,
        namespace: str,
        keys: KeyInspector,
        findings: Findings,
        total: int,
        *,
        repair: bool,
        progress: Progress | None,
    ) -> None:
        def looked_at(facts: int) -> None:
            if progress is not None:
                call_outside(progress, min(facts, total), total)

        generation = await self._generations.read(namespace)
        indices = IndexInspector(self._manager, self._generations, findings)
        if generation is None and total:
            findings.add("missing_index", Keyspace(namespace).generation, repaired=repair, detail=NO_RECORD)
            generation = await self._indexer.generation(namespace) if repair else None
        elif generation is not None:
            generation = await indices.run(generation, repair=repair)
        entries = EntryInspector(self._manager, namespace, findings, repair=repair)
        await keys.run(findings, repair=repair, each_list=entries.inspect_visible, looked_at=looked_at)
        await entries.inspect_all()
        # What spoils the sums was noted already.
        can_add_up = not findings.counts["foreign_types"] and (repair or not findings.concern_sums())
        if generation is not None and can_add_up:
            counts = CountCheck(self._manager, self._repository, namespace, findings)
            is_whole = await counts.run(generation, repair=repair)
            if not is_whole and (repair or not findings.concern_parts()):
                await indices.note_incomplete(generation, repair=repair)
        looked_at(total)

    async def _total(self, namespace: str) -> int:
        counts = await self._statistics.counts(namespace)
        client = await self._manager.main()
        return counts["facts"] + int(await client.zcard(Keyspace(namespace).documents))

    async def _parked(self, namespace: str, findings: Findings, *, repair: bool) -> list[ParkedFact]:
        parked = await self._pending.parked(namespace)
        if repair and parked:
            await self._pending.unpark(namespace)
        for fact in parked:
            findings.add("parked", fact["id"], repaired=repair, detail=fact["reason"])
        return parked

    async def _report(self, namespace: str, findings: Findings, parked: list[ParkedFact]) -> IntegrityReport:
        counts = await self._statistics.counts(namespace)
        client = await self._manager.main()
        return {
            "namespace": namespace,
            "facts": counts["facts"],
            "documents": int(await client.zcard(Keyspace(namespace).documents)),
            "pending": counts["pending"],
            "parked": parked,
            "findings": dict(findings.counts),
            "examples": findings.examples,
            "repaired": findings.repaired,
            "ok": findings.is_all_mended,
        }


def _unread(namespace: str, findings: Findings) -> IntegrityReport:
    return {
        "namespace": namespace,
        "facts": 0,
        "documents": 0,
        "pending": 0,
        "parked": [],
        "findings": dict(findings.counts),
        "examples": findings.examples,
        "repaired": 0,
        "ok": False,
    }
