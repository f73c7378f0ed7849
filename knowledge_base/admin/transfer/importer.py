"""Import: a file's entries into the base, each whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Container, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from knowledge_base.admin.transfer.claims import Claim, ImportPass, displaced_owners
from knowledge_base.admin.transfer.document_import import DocumentImport
from knowledge_base.admin.transfer.fact_import import FactImport, PreparedFact, ReadFact
from knowledge_base.admin.transfer.file_memory import FileMemory
from knowledge_base.admin.transfer.import_file import ImportFile, RawEntry, Survey
from knowledge_base.admin.transfer.import_tally import ImportJournal, ImportTally
from knowledge_base.admin.transfer.imported_fact import ImportedFact, imported_fact
from knowledge_base.admin.transfer.line_format import json_text
from knowledge_base.admin.transfer.patience import patiently
from knowledge_base.admin.transfer.read_ahead import read_ahead
from knowledge_base.clock import now_ms
from knowledge_base.connection.admission import Admission
from knowledge_base.connection.giving_way import giving_way
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import WorkloadThreads, call_outside, job
from knowledge_base.errors import InvalidInputError, UnavailableError
from knowledge_base.facts import validation
from knowledge_base.settings import Limits, Timeouts
from knowledge_base.types import ImportReport, OnConflict, Progress

Result = TypeVar("Result")
STEP = "reading the import"
WORK_SECONDS = 25.0
"""What a step may take beside the file: its thread lets everybody else go first."""

UTF8_BYTES = 4
SLACK = 10_000_000

CHARACTERS_PER_VALUE = 2
CHARACTERS_PER_BLOCK = 20
VALUES_PER_BLOCK = 5


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """The checked arguments of one import."""

    path: Path
    namespace: str | None
    """Where everything goes; None for each entry's own namespace."""
    default_namespace: str
    """For entries that name none."""
    on_conflict: OnConflict
    dry_run: bool


class _Checked(NamedTuple):
    line: int
    namespace: str
    own_namespace: str | None
    content: ImportedFact | dict[str, Any] | str
    """A fact, a document, or why there is neither."""


def longest_entry(limits: Limits) -> int:
    """Returns how many bytes an entry may have: as many as one that was exported under these limits.

    Args:
        limits: The limits.
    """
    versions = limits.history + 1
    fact = versions * (UTF8_BYTES * limits.content_chars + limits.metadata_bytes)
    return max(fact, 2 * UTF8_BYTES * limits.document_chars) + SLACK


def most_values(limits: Limits) -> int:
    """Returns how many values the JSON of an entry may hold.

    As many as that of a fact under these limits has, or of a document whose blocks have twenty characters each.

    Args:
        limits: The limits.
    """
    fact = (limits.history + 1) * limits.metadata_bytes // CHARACTERS_PER_VALUE + limits.content_chars
    return max(fact, VALUES_PER_BLOCK * limits.document_chars // CHARACTERS_PER_BLOCK)


class Importer:
    """Reads transfer files.

    Args:
        facts: Prepares and restores facts.
        documents: Restores documents.
        manager: Where the journal is.
        admission: The places of jobs.
        threads: Where files are read.
        timeouts: The caps of the steps.
        limits: The limits.
        now: The time in milliseconds since 1970; tests bring their own.
    """

    def __init__(
        self,
        facts: FactImport,
        documents: DocumentImport,
        manager: AsyncRedisManager,
        admission: Admission,
        threads: WorkloadThreads,
        timeouts: Timeouts,
        limits: Limits,
        *,
        now: Callable[[], int] = now_ms,
    ) -> None:
        self._facts = facts
        self._documents = documents
        self._manager = manager
        self._admission = admission
        self._threads = threads
        self._timeouts = timeouts
        self._limits = limits
        self._now = now

    async def run(self, request: ImportRequest, progress: Progress | None) -> ImportReport:
        """Imports a file, or goes on with an import of the same file and options that was interrupted.

        Args:
            request: What to read, and how.
            progress: Called after each batch.

        Returns:
            The counts; ``completed`` is False when Redis could not be reached in between.

        Raises:
            InvalidInputError: The file cannot be read, is damaged, or is of several namespaces; nothing was changed.
            IndexMismatchError: The namespace was built with another embedding model than is configured.
            UnavailableError: Redis could not be reached before anything was imported.
        """
        async with self._admission.place(self._timeouts.job):
            with job():
                file = await self._in_thread(
                    ImportFile, request.path, longest_entry(self._limits), most_values(self._limits)
                )
                try:
                    return await self._run(request, file, progress)
                finally:
                    file.close()

    async def _run(self, request: ImportRequest, file: ImportFile, progress: Progress | None) -> ImportReport:
        survey = await self._surveyed(file)
        if request.namespace is not None and survey.header is not None:
            _refuse_several(survey.header)
        walk = ImportPass(request.on_conflict, request.dry_run, FileMemory() if request.dry_run else None)
        journal = self._journal(request, survey)
        tally = ImportTally() if request.dry_run else await journal.read()
        try:
            tally = await self._walked(request, file, survey, walk, journal, tally, progress)
            if walk.deferred:
                walk = replace(walk, displaced=await self._displaced(request, file, survey, walk))
                tally = await self._walked(request, file, survey, walk, journal, tally, progress)
        except UnavailableError as error:
            if not tally.processed:
                raise
            return tally.report(stopped_by=str(error), dry_run=request.dry_run)
        if not request.dry_run:
            await journal.end()
        return tally.report(stopped_by=None, dry_run=request.dry_run)

    def _journal(self, request: ImportRequest, survey: Survey) -> ImportJournal:
        options = [survey.digest, request.namespace, request.on_conflict]
        name = hashlib.sha256(json_text(options).encode()).hexdigest()
        # What replaces others looks at every entry again: what was replaced may have been changed since.
        keeps = request.on_conflict in {"skip", "error"} and not request.dry_run
        return ImportJournal(self._manager, request.namespace if keeps else None, name)

    async def _walked(
        self,
        request: ImportRequest,
        file: ImportFile,
        survey: Survey,
        walk: ImportPass,
        journal: ImportJournal,
        tally: ImportTally,
        progress: Progress | None,
    ) -> ImportTally:
        wanted = None if walk.displaced is None else walk.deferred
        line = tally.line if wanted is None else 0
        async with aclosing(read_ahead(self._prepared(request, file, survey, line, wanted))) as ahead:
            async for run in ahead:
                tally = await patiently(partial(self._counted, walk, journal, run, tally))
                _report(progress, tally.processed, survey.records)
        return tally

    async def _displaced(
        self, request: ImportRequest, file: ImportFile, survey: Survey, walk: ImportPass
    ) -> dict[int, str]:
        claims: dict[int, Claim] = {}

        async def claimed(facts: list[PreparedFact], _: bool) -> dict[int, Claim]:
            return await self._facts.claims(facts, walk)

        async with aclosing(read_ahead(self._prepared(request, file, survey, 0, walk.deferred))) as ahead:
            async for run in ahead:
                facts = [one for one in run if isinstance(one, PreparedFact)]
                if facts:
                    claims |= await patiently(partial(claimed, facts))
        return displaced_owners(claims)

    async def _counted(
        self,
        walk: ImportPass,
        journal: ImportJournal,
        run: Sequence[_Checked | PreparedFact],
        tally: ImportTally,
        again: bool,
    ) -> ImportTally:
        counted = tally.copy()
        await self._import(walk, run, counted, again=again)
        counted.line = run[-1].line
        await journal.write(counted)
        return counted

    async def _surveyed(self, file: ImportFile) -> Survey:
        steps = file.survey()
        survey: Survey | None = None
        while survey is None:
            survey = await self._in_thread(file.next_of, steps, None)
        return survey

    async def _prepared(
        self, request: ImportRequest, file: ImportFile, survey: Survey, line: int, wanted: Container[int] | None
    ) -> AsyncIterator[list[_Checked | PreparedFact]]:
        models = (survey.header or {}).get("models")
        batches = file.batches(wanted)
        while (batch := await self._in_thread(file.next_of, batches, None)) is not None:
            batch = [raw for raw in batch if raw.line > line]
            checked = await self._in_thread(self._checked, request, batch)
            # What follows in the same namespace is written together; each document by itself, as large as it may be.
            for _, run in groupby(checked, key=_run_of):
                others: list[_Checked | PreparedFact] = []
                facts: list[ReadFact] = []
                for one in run:
                    if isinstance(one.content, ImportedFact):
                        model = models.get(one.own_namespace) if isinstance(models, dict) else None
                        facts.append(ReadFact(one.line, one.namespace, one.content, model))
                    else:
                        others.append(one)
                prepared = await self._facts.prepared(facts[0].namespace, facts) if facts else []
                yield sorted([*others, *prepared], key=lambda one: one.line)

    def _checked(self, request: ImportRequest, batch: Sequence[RawEntry]) -> list[_Checked]:
        return [self._check(request, raw) for raw in giving_way(batch)]

    def _check(self, request: ImportRequest, raw: RawEntry) -> _Checked:
        own = raw.entry.get("namespace")
        namespace = request.namespace or request.default_namespace
        try:
            if raw.problem is not None:
                raise InvalidInputError("entry", raw.problem)
            if request.namespace is None and own is not None:
                namespace = validation.checked_namespace(own)
            content = self._content(raw.entry)
        except InvalidInputError as error:
            return _Checked(raw.line, namespace, None, str(error))
        return _Checked(raw.line, namespace, own if isinstance(own, str) else None, content)

    def _content(self, entry: dict[str, Any]) -> ImportedFact | dict[str, Any]:
        kind = entry.get("kind", "fact")
        if kind == "fact":
            return imported_fact(entry, self._limits, self._now())
        document = entry.get("document")
        if kind != "document" or not isinstance(document, dict):
            raise InvalidInputError("kind", "must be fact, or document with the document itself")
        return document

    async def _import(
        self, walk: ImportPass, run: Sequence[_Checked | PreparedFact], tally: ImportTally, *, again: bool
    ) -> None:
        facts: list[PreparedFact] = []
        for one in run:
            if isinstance(one, PreparedFact):
                facts.append(one)
            elif isinstance(one.content, str):
                tally.fail(one.line, one.content)
            elif isinstance(one.content, dict):
                await self._documents.restore(one.line, one.namespace, one.content, walk, tally)
        if facts:
            await self._facts.restore(facts, walk, tally, again=again)

    async def _in_thread(self, function: Callable[..., Result], *args: Any) -> Result:
        return await self._threads.to_thread(function, *args, step=STEP, limit=self._timeouts.file + WORK_SECONDS)


def _run_of(checked: _Checked) -> tuple[str, int]:
    is_document = isinstance(checked.content, dict)
    return checked.namespace, checked.line if is_document else 0


def _refuse_several(header: dict[str, Any]) -> None:
    namespaces = header.get("namespaces")
    if isinstance(namespaces, list) and len(namespaces) > 1:
        raise InvalidInputError(
            "namespace", f"the file is of {len(namespaces)} namespaces; give '*' to import each into its own"
        )


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        call_outside(progress, done, max(done, total))
