"""Export: everything of a namespace into one file."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from knowledge_base.admin.transfer.compression import DamagedFileError, compression_of
from knowledge_base.admin.transfer.entries import StoredFact, fact_entry, header, trailer
from knowledge_base.admin.transfer.export_file import ExportFile, Place, Written
from knowledge_base.admin.transfer.fact_pages import FactPage, FactPages
from knowledge_base.admin.transfer.formats import FormatName, format_named
from knowledge_base.admin.transfer.line_format import FORMAT_VERSION, TransferFormat, json_text
from knowledge_base.admin.transfer.patience import patiently
from knowledge_base.admin.transfer.read_ahead import read_ahead
from knowledge_base.clock import iso_time, now_ms
from knowledge_base.connection.admission import Admission
from knowledge_base.connection.giving_way import giving_way
from knowledge_base.connection.workload import WorkloadThreads, call_outside, job
from knowledge_base.documents.records import DocumentArchive, DocumentPage
from knowledge_base.index.generations import Generations
from knowledge_base.index.schema import Generation
from knowledge_base.settings import Timeouts
from knowledge_base.types import ExportReport, Progress

Result = TypeVar("Result")
STEP = "writing the export"

GOES_ON_MS = 6 * 3_600_000
"""How long an export that was interrupted is gone on with; what it has is as old as that."""

WORK_SECONDS = 25.0
"""What a step may take beside the file: its thread lets everybody else go first."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """The checked arguments of one export."""

    path: Path
    format: FormatName
    namespace: str | None
    """None for all."""
    include_vectors: bool
    clause: str
    """Compiled filter text; empty for all."""

    @property
    def options(self) -> str:
        """Names what is exported and how."""
        parts = [FORMAT_VERSION, self.format, self.namespace, self.include_vectors, self.clause]
        return hashlib.sha256(json_text(parts).encode()).hexdigest()


@dataclass(slots=True)
class _Position:
    """Where an export is: what it has written, and after which entry it goes on."""

    models: dict[str, Any]
    total: int
    facts: int = 0
    documents: int = 0
    namespace: str = ""
    kind: str = "fact"
    seq: float = 0.0
    began: int = 0
    last: list[Any] | None = None
    """What was written last: namespace, id, sequence number, and the time when it was made."""

    def to_place(self) -> Place:
        return [
            *(self.models, self.total, self.facts, self.documents, self.namespace, self.kind, self.seq, self.began),
            self.last,
        ]

    def wrote(self, entry_id: str, seq: float, created_at: str) -> None:
        """Notes what was written last."""
        self.seq = seq
        self.last = [self.namespace, entry_id, seq, created_at]

    def begin(self, namespace: str, kind: str) -> bool:
        """Moves on to a kind of entries of a namespace; False when it is done already."""
        if (namespace, kind == "document") < (self.namespace, self.kind == "document"):
            return False
        if (namespace, kind) != (self.namespace, self.kind):
            self.namespace, self.kind, self.seq = namespace, kind, 0.0
        return True


class Exporter:
    """Writes export files.

    Args:
        pages: Reads facts.
        documents: Reads documents.
        generations: Says which namespaces there are, and what their vectors were made with.
        admission: The places of jobs.
        threads: Where files are written.
        timeouts: The caps of the steps.
        now: The time in milliseconds since 1970; tests bring their own.
    """

    def __init__(
        self,
        pages: FactPages,
        documents: DocumentArchive,
        generations: Generations,
        admission: Admission,
        threads: WorkloadThreads,
        timeouts: Timeouts,
        *,
        now: Callable[[], int] = now_ms,
    ) -> None:
        self._pages = pages
        self._documents = documents
        self._generations = generations
        self._admission = admission
        self._threads = threads
        self._timeouts = timeouts
        self._now = now

    async def run(self, request: ExportRequest, progress: Progress | None) -> ExportReport:
        """Writes a file, or goes on with one that was begun for the same request.

        Args:
            request: What to write where.
            progress: Called after each page.

        Raises:
            InvalidInputError: The path must not be written to.
            UnavailableError: Redis could not be reached or there was no room; the same call goes on.
        """
        began = time.monotonic()
        async with self._admission.place(self._timeouts.job):
            with job():
                return await self._run(request, progress, began)

    async def _run(self, request: ExportRequest, progress: Progress | None, began: float) -> ExportReport:
        line_format = format_named(request.format)
        async with self._opened(request) as (file, place):
            position = await self._position(request, file, line_format, place)
            for namespace in sorted(position.models):
                generation = await self._generations.current(namespace)
                if generation is None:
                    continue
                writing = _Writing(request, line_format, file, position, generation)
                if position.begin(namespace, "fact"):
                    await self._write_facts(writing, progress)
                if position.begin(namespace, "document"):
                    await self._write_documents(writing, progress)
            counts = {"facts": position.facts, "documents": position.documents}
            written: Written = await self._in_thread(
                file.finish, lambda checksum: line_format.encoded(trailer(counts, checksum))
            )
        done = position.facts + position.documents
        _report(progress, done, done)
        return {
            "path": str(request.path),
            "facts": position.facts,
            "documents": position.documents,
            "bytes": written.size,
            "checksum": written.checksum,
            "took_s": time.monotonic() - began,
        }

    @asynccontextmanager
    async def _opened(self, request: ExportRequest) -> AsyncIterator[tuple[ExportFile, Place | None]]:
        file = ExportFile(request.path, compression_of(request.path), request.options)
        try:
            place = await self._in_thread(file.open)
            if place is not None and not await self._recollected(file):
                place = None
            yield file, place
        finally:
            file.close()

    async def _recollected(self, file: ExportFile) -> bool:
        steps = file.recollect()
        try:
            while await self._in_thread(next, steps, True) is None:
                continue
        except DamagedFileError:
            await self._in_thread(file.begin_anew)
            return False
        finally:
            steps.close()
        return True

    async def _position(
        self, request: ExportRequest, file: ExportFile, line_format: TransferFormat, place: Place | None
    ) -> _Position:
        models, counts = await self._described(request)
        if place is not None:
            position = _Position(*place)
            is_same_model = position.models == models or not request.include_vectors
            if is_same_model and await self._is_of_this_base(position):
                return position
            # Neither vectors of two models nor entries of two bases may stand in one file.
            await self._in_thread(file.begin_anew)
        known = {} if request.clause else {"facts": counts[0], "documents": counts[1]}
        position = _Position(models, sum(counts), began=self._now())
        position.namespace = min(models, default="")
        first = line_format.preamble + line_format.encoded(
            header(sorted(models), {"facts": None, "documents": None} | known, models)
        )
        await self._in_thread(file.add, [first], position.to_place)
        return position

    async def _is_of_this_base(self, position: _Position) -> bool:
        if not 0 <= self._now() - position.began <= GOES_ON_MS:
            return False
        if position.last is None:
            return True
        namespace, entry_id, seq, written = position.last
        # Another server, or a namespace that was dropped and filled again, has not made the same entry at that moment.
        created_at = await self._pages.created_at(namespace, entry_id, seq)
        return created_at is not None and iso_time(created_at) == written

    async def _described(self, request: ExportRequest) -> tuple[dict[str, Any], tuple[int, int]]:
        wanted = await self._generations.namespaces() if request.namespace is None else [request.namespace]
        models: dict[str, Any] = {}
        facts = documents = 0
        for namespace in wanted:
            generation = await self._generations.current(namespace)
            models[namespace] = generation and {"model": generation.model, "dimension": generation.dimension}
            some_facts, some_documents = await self._pages.count(namespace)
            facts, documents = facts + some_facts, documents + some_documents
        return models, (facts, documents)

    async def _write_facts(self, writing: _Writing, progress: Progress | None) -> None:
        request, position = writing.request, writing.position
        pages = self._pages.pages(
            writing.generation, request.clause, position.seq, with_vectors=request.include_vectors
        )
        async with aclosing(read_ahead(pages)) as ahead:
            async for page in ahead:
                await self._in_thread(writing.facts, page, self._now())
                _report(progress, position.facts + position.documents, position.total)

    async def _write_documents(self, writing: _Writing, progress: Progress | None) -> None:
        request, position = writing.request, writing.position
        namespace = writing.generation.namespace
        vectors_of = writing.generation if request.include_vectors else None
        place: float | None = position.seq
        while place is not None:
            # One at a time: each may have megabytes.
            page = await patiently(partial(self._document_page, namespace, place, vectors_of))
            place = page.next_seq
            for entry in page.entries:
                matching = partial(self._matches, writing.generation, request.clause, entry["id"])
                if place is not None and await patiently(matching):
                    await self._in_thread(writing.document, entry, place)
                    _report(progress, position.facts + position.documents, position.total)

    async def _document_page(self, namespace: str, seq: float, vectors_of: Generation | None, _: bool) -> DocumentPage:
        return await self._documents.read(namespace, seq, 1, vectors_of=vectors_of)

    async def _matches(self, generation: Generation, clause: str, document_id: str, _: bool) -> bool:
        return await self._pages.matches(generation, clause, document_id)

    async def _in_thread(self, function: Callable[..., Result], *args: Any) -> Result:
        return await self._threads.to_thread(function, *args, step=STEP, limit=self._timeouts.file + WORK_SECONDS)


class _Writing:
    """Makes entries and adds them to the file, in a worker thread."""

    def __init__(
        self,
        request: ExportRequest,
        line_format: TransferFormat,
        file: ExportFile,
        position: _Position,
        generation: Generation,
    ) -> None:
        self.request = request
        self.position = position
        self.generation = generation
        self._format = line_format
        self._file = file

    def facts(self, page: FactPage, now: int) -> None:
        """Adds the facts of a page that are there still and have not expired."""
        self._file.add(self._fact_lines(page, now), self.position.to_place)

    def document(self, entry: dict[str, Any], seq: float) -> None:
        """Adds a document."""
        self.position.documents += 1
        self.position.wrote(entry["id"], seq, entry["created_at"])
        named = {"kind": "document", "namespace": self.generation.namespace, "id": entry["id"], "document": entry}
        self._file.add([self._format.encoded(named)], self.position.to_place)

    def _fact_lines(self, page: FactPage, now: int) -> Iterator[bytes]:
        namespace, with_vectors = self.generation.namespace, self.request.include_vectors
        for fact_id, row in giving_way(zip(page.fact_ids, page.rows, strict=True)):
            fact = None if row is None else StoredFact(*row)
            if fact is not None and fact.is_exported(now):
                entry = fact_entry(namespace, fact_id, fact, with_vectors=with_vectors)
                self.position.facts += 1
                self.position.wrote(fact_id, float(fact.seq), entry["created_at"])
                yield self._format.encoded(entry)


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        call_outside(progress, done, max(done, total))
