"""Folders into documents: what is unchanged costs a look, what has changed is read anew, and each file stands alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from knowledge_base.connection.admission import Admission
from knowledge_base.connection.deadline import share_of_deadline
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import call_outside, job
from knowledge_base.documents.blocks import ExtractedDocument
from knowledge_base.documents.draft import (
    DocumentDraft,
    DocumentFile,
    DocumentLabels,
    made_id,
    path_as_source,
    short_title,
)
from knowledge_base.documents.extraction import Extractor, UnreadableFileError
from knowledge_base.documents.files import FoundFile
from knowledge_base.documents.index_queue import IndexQueue, OpenQueue
from knowledge_base.documents.repository import PAGE, DocumentRepository
from knowledge_base.documents.service import Documents
from knowledge_base.documents.staging import DocumentStaging
from knowledge_base.documents.stored import StoredDocument
from knowledge_base.documents.tree import FolderTree
from knowledge_base.documents.writer import DocumentWriter
from knowledge_base.errors import (
    InvalidInputError,
    KnowledgeBaseError,
    OperationTimeoutError,
    PermissionDeniedError,
    ServerRequirementError,
    UnavailableError,
    VersionConflictError,
)
from knowledge_base.types import Failure, IngestResult, Progress

INGESTING_SHARE = 0.98
"""Share of the call's budget for the files, so that it can still say what became of them."""

FILES_IN_FLIGHT = 4
"""Files that are read and stored at the same time, so that the embedding model has always something to do."""

EVERYTHING = "**/*"

CHECKED_AT_ONCE = 100
"""Files that are looked up with one round trip."""


@dataclass(frozen=True, slots=True)
class IngestRequest:
    """The checked arguments of one ingestion."""

    namespace: str
    path: Path
    pattern: str
    labels: DocumentLabels
    """Of all files; each has its path as its source."""
    name: str | None
    delete_missing: bool
    force: bool
    """Whether files are read that look unchanged."""


class _Tree(NamedTuple):
    """A tree of files, as its documents know it."""

    request: IngestRequest
    root: Path
    name: str
    signature: str

    def labels(self, relative: str) -> DocumentLabels:
        return replace(self.request.labels, source=path_as_source(relative))

    def document_id(self, relative: str) -> str:
        # Not of principals: a file that others may see from now on must not stay visible to those before.
        return made_id(relative, "tree", self.name, relative)

    def file(self, found: FoundFile) -> DocumentFile:
        return DocumentFile(self.name, str(self.root), *found[1:])


class _Changed(NamedTuple):
    """A file that is new or was changed."""

    found: FoundFile
    document_id: str
    old: StoredDocument | None


class Ingestion:
    """Ingests folders.

    Args:
        manager: The connections.
        extractor: Reads files.
        folders: Finds files.
        writer: Stores documents.
        repository: Where they are kept.
        staging: Removes what was left over.
        documents: Deletes documents.
        queue: Makes the queues to the embedding model.
        admission: The places of jobs.
        wait: Seconds to wait for such a place at most.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        extractor: Extractor,
        folders: FolderTree,
        writer: DocumentWriter,
        repository: DocumentRepository,
        staging: DocumentStaging,
        documents: Documents,
        queue: IndexQueue,
        admission: Admission,
        *,
        wait: float,
    ) -> None:
        self._manager = manager
        self._extractor = extractor
        self._folders = folders
        self._writer = writer
        self._repository = repository
        self._staging = staging
        self._documents = documents
        self._queue = queue
        self._admission = admission
        self._wait = wait

    async def run(self, request: IngestRequest, progress: Progress | None) -> IngestResult:
        """Ingests a folder or a single file.

        Args:
            request: What is wanted.
            progress: Called after each file.

        Returns:
            The counts; ``completed`` is False when the call's budget or Redis cut it short.

        Raises:
            InvalidInputError: There is no such folder or file, or it is empty and its documents would be deleted.
            IndexMismatchError: The namespace was built with another model.
            UnavailableError: Redis could not be reached before anything was done.
        """
        async with self._admission.place(self._wait):
            with job():
                run = _Run(self, request, progress)
                await self._staging.collect(request.namespace)
                return await run.whole()


class _Run:
    """One ingestion."""

    def __init__(self, ingestion: Ingestion, request: IngestRequest, progress: Progress | None) -> None:
        self._of = ingestion
        self._request = request
        self._progress = progress
        self._total = 0
        self._waiting: asyncio.Queue[_Changed | None] = asyncio.Queue(2 * FILES_IN_FLIGHT)
        self._stopped = False
        self.result: IngestResult = {
            "processed": 0,
            "succeeded": 0,
            "duplicates": 0,
            "failed": [],
            "completed": True,
            "deleted": 0,
            "passages": 0,
            "embedded": 0,
        }

    async def whole(self) -> IngestResult:
        of, request = self._of, self._request
        listing = await of._folders.listed(request.path, request.pattern)
        root = listing.root
        tree = _Tree(request, root, request.name or root.name or str(root), await of._writer.signature())
        if request.delete_missing and not listing.files:
            await self._refuse_empty_folder(tree)
        self._total = len(listing.files) + len(listing.refused)
        for refused in listing.refused:
            self._fail(refused.name, refused.reason)
        try:
            async with share_of_deadline("ingesting files", INGESTING_SHARE):
                await self._all(tree, listing.files)
        except OperationTimeoutError:
            if not self.result["processed"]:
                raise
            self._stop()
        if request.delete_missing and self.result["completed"]:
            await self._delete_missing(tree, {file.name for file in listing.files})
        return self.result

    async def _all(self, tree: _Tree, files: Sequence[FoundFile]) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                queue = self._of._queue.opened(self._request.namespace, tasks)
                workers = [tasks.create_task(self._work(tree, queue)) for _ in range(FILES_IN_FLIGHT)]
                await self._check(tree, files)
                for _ in workers:
                    await self._waiting.put(None)
                await asyncio.wait(workers)
                self.result["embedded"] += await queue.closed()
        except* KnowledgeBaseError as group:
            raise _first(group) from None

    async def _check(self, tree: _Tree, files: Sequence[FoundFile]) -> None:
        for begin in range(0, len(files), CHECKED_AT_ONCE):
            if self._stopped:
                return
            some = files[begin : begin + CHECKED_AT_ONCE]
            ids = [tree.document_id(found.name) for found in some]
            try:
                stored = await self._of._repository.read(self._request.namespace, ids)
            except UnavailableError:
                self._stop()
                return
            for found, document_id, old in zip(some, ids, stored, strict=True):
                if old is not None and not self._request.force and _is_as_before(old, tree, found):
                    self._done("duplicates")
                else:
                    await self._waiting.put(_Changed(found, document_id, old))
                # Looking at labels takes up to a millisecond.
                await asyncio.sleep(0)

    async def _work(self, tree: _Tree, queue: OpenQueue) -> None:
        while (changed := await self._waiting.get()) is not None:
            if self._stopped:
                continue
            try:
                try:
                    await self._ingest(tree, changed, queue)
                except (UnreadableFileError, ServerRequirementError):
                    await self._relabel(tree, changed, queue)
                    raise
            except (InvalidInputError, VersionConflictError, PermissionDeniedError, ServerRequirementError) as error:
                self._fail(changed.found.name, _reason(error))
            except UnavailableError as error:
                self._fail(changed.found.name, str(error))
                if not await self._is_redis_there():
                    self._stop()

    async def _ingest(self, tree: _Tree, changed: _Changed, queue: OpenQueue) -> None:
        of, found, old = self._of, changed.found, changed.old
        if old is not None:
            await self._refuse_another_tree(tree, old)
        read = await of._extractor.extract_file(found.path, root=tree.root)
        draft = DocumentDraft(
            namespace=self._request.namespace,
            document_id=changed.document_id,
            labels=tree.labels(found.name),
            extracted=read.document,
            title=short_title(read.document.title),
            content_hash=read.content_hash,
            file=DocumentFile(tree.name, str(tree.root), found.name, *read.fingerprint),
            whoever_sees=True,
        )
        written = await of._writer.write(draft)
        if isinstance(written, StoredDocument):
            await of._documents.note_file(written, draft)
            self._done("duplicates")
            return
        self.result["passages"] += written.document.passages
        self.result["embedded"] += written.embedded
        await queue.put(written)
        self._done("succeeded")

    async def _relabel(self, tree: _Tree, changed: _Changed, queue: OpenQueue) -> None:
        """Gives a document whose file cannot be read its new principals all the same."""
        old, principals = changed.old, list(self._request.labels.principals)
        if old is None or old.record.principals == principals:
            return
        blocks = await self._of._repository.blocks(self._request.namespace, old)
        if blocks is None:
            return
        draft = DocumentDraft(
            namespace=self._request.namespace,
            document_id=old.document_id,
            labels=DocumentLabels(old.record.metadata, old.record.tags, old.record.source, principals),
            extracted=ExtractedDocument(old.title, old.media_type, blocks, old.pages),
            title=old.title,
            content_hash=old.content_hash,
            file=old.file,
            whoever_sees=True,
        )
        written = await self._of._writer.write(draft)
        if not isinstance(written, StoredDocument):
            await queue.put(written)

    async def _refuse_another_tree(self, tree: _Tree, old: StoredDocument) -> None:
        file = old.file
        if file is None or file.root == str(tree.root) or self._request.name is not None:
            return
        problem = f"belongs to another folder of the same name, {file.root}; give each tree a name of its own"
        if old.record.principals != list(self._request.labels.principals):
            raise InvalidInputError("path", f"{problem}, or name={tree.name!r} to replace what others may see")
        if await self._of._folders.exists(Path(file.root) / file.path):
            raise InvalidInputError("path", problem)

    async def _refuse_empty_folder(self, tree: _Tree) -> None:
        # Most likely a drive that is not there.
        listing = await self._of._folders.listed(self._request.path, EVERYTHING)
        if listing.files or listing.refused:
            return
        async for document in self._documents_of(tree):
            raise InvalidInputError(
                "delete_missing",
                f"is refused: the folder holds no file, and {document.document_id!r} and maybe more would be deleted; "
                "if they shall go, put any file into it or use delete_document",
            )

    async def _delete_missing(self, tree: _Tree, present: set[str]) -> None:
        try:
            async for document in self._documents_of(tree):
                assert document.file is not None
                relative = document.file.path
                if relative in present or await self._of._folders.exists(tree.root / relative):
                    continue
                record = document.record
                if await self._of._documents.delete(
                    self._request.namespace, record.fact_id, record.principals, record.version, record.created_at
                ):
                    self.result["deleted"] += 1
        except (UnavailableError, VersionConflictError):
            self.result["completed"] = False

    async def _documents_of(self, tree: _Tree) -> AsyncIterator[StoredDocument]:
        repository, namespace = self._of._repository, self._request.namespace
        principals = list(self._request.labels.principals)
        seq = 0.0
        while page := await repository.after(namespace, seq, PAGE):
            for document in await repository.read(namespace, [document_id for document_id, _ in page]):
                if document is None or document.file is None or document.file.tree != tree.name:
                    continue
                # Under a name that was given, others may keep files of their own.
                is_named = self._request.name is not None and document.record.principals == principals
                if is_named or document.file.root == str(tree.root):
                    yield document
            seq = page[-1][1]

    async def _is_redis_there(self) -> bool:
        try:
            client = await self._of._manager.main()
            await client.ping()
        except UnavailableError:
            return False
        return True

    def _stop(self) -> None:
        self._stopped = True
        self.result["completed"] = False

    def _fail(self, path: str, reason: str) -> None:
        failure: Failure = {"path": path, "error": reason}
        self.result["failed"].append(failure)
        self.result["processed"] += 1
        self._report()

    def _done(self, what: str) -> None:
        self.result["succeeded" if what == "succeeded" else "duplicates"] += 1
        self.result["processed"] += 1
        self._report()

    def _report(self) -> None:
        if self._progress is not None:
            call_outside(self._progress, self.result["processed"], self._total)


def _is_as_before(old: StoredDocument, tree: _Tree, found: FoundFile) -> bool:
    if old.file != tree.file(found):
        return False
    return old.made == tree.labels(found.name).digest(tree.signature)


def _reason(error: KnowledgeBaseError) -> str:
    return error.problem if isinstance(error, InvalidInputError) and error.field == "path" else str(error)


def _first(group: BaseExceptionGroup[KnowledgeBaseError]) -> KnowledgeBaseError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, KnowledgeBaseError)
    return error
