"""Single documents: added, read, listed and deleted."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from knowledge_base.connection.admission import Admission
from knowledge_base.connection.deadline import share_of_deadline
from knowledge_base.connection.workload import WorkloadThreads, job
from knowledge_base.documents.draft import DocumentDraft, DocumentFile, DocumentLabels, made_id, short_title
from knowledge_base.documents.extraction import Extractor
from knowledge_base.documents.repository import PAGE, DocumentRepository
from knowledge_base.documents.staging import DocumentStaging, Leftover
from knowledge_base.documents.stored import StoredDocument
from knowledge_base.documents.texts import as_text
from knowledge_base.documents.writer import INDEXING_SHARE, DocumentWriter, Written
from knowledge_base.errors import DocumentNotFoundError, OperationTimeoutError, UnavailableError
from knowledge_base.index.generations import GenerationMovedError, Generations
from knowledge_base.index.indexer import Indexer
from knowledge_base.types import Document, DocumentResult, DocumentWithText

ATTEMPTS = 3
"""How often a document is read that is changed meanwhile."""

JOINING_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class NewDocument:
    """The checked arguments of one addition."""

    namespace: str
    document_id: str | None
    content: str | None
    path: Path | None
    media_type: str
    title: str | None
    labels: DocumentLabels


class Documents:
    """The documents of all namespaces.

    Args:
        extractor: Reads files and texts.
        writer: Stores documents.
        repository: Where they are kept.
        staging: Removes what is left of them.
        generations: Which index is live.
        indexer: Does something in the live generation.
        threads: Where long texts are handled.
        admission: The places of jobs.
        wait: Seconds to wait for such a place at most.
    """

    def __init__(
        self,
        extractor: Extractor,
        writer: DocumentWriter,
        repository: DocumentRepository,
        staging: DocumentStaging,
        generations: Generations,
        indexer: Indexer,
        threads: WorkloadThreads,
        admission: Admission,
        *,
        wait: float,
    ) -> None:
        self._extractor = extractor
        self._writer = writer
        self._repository = repository
        self._staging = staging
        self._generations = generations
        self._indexer = indexer
        self._threads = threads
        self._admission = admission
        self._wait = wait

    async def add(self, new: NewDocument) -> DocumentResult:
        """Stores a document, or the next version of it, and gives it its vectors where there is time.

        Args:
            new: The document.

        Raises:
            InvalidInputError: Its file or text cannot be read; an old version stays.
            VersionConflictError: A fact has its id, or others changed it all the time.
            PermissionDeniedError: Its id belongs to a document of other principals.
            IndexMismatchError: The namespace was built with another model.
            UnavailableError: Redis could not be reached; an old version stays.
        """
        async with self._admission.place(self._wait):
            with job():
                await self._staging.collect(new.namespace)
                draft = await self._draft(new)
                written = await self._writer.write(draft)
                if isinstance(written, StoredDocument):
                    await self.note_file(written, draft)
                    return _unchanged(written)
                return await self._indexed(draft.namespace, written)

    async def get(self, namespace: str, document_id: str, principals: Sequence[str]) -> DocumentWithText:
        """Returns a document with its text.

        Args:
            namespace: Where it is.
            document_id: The document.
            principals: Who is asking.

        Raises:
            DocumentNotFoundError: It is not there, or not visible.
            UnavailableError: Redis could not be reached, or the document was changed all the time.
        """
        for _ in range(ATTEMPTS):
            found = (await self._repository.read(namespace, [document_id]))[0]
            if found is None or not found.record.is_visible(principals, self._repository.now()):
                raise DocumentNotFoundError(document_id, namespace)
            blocks = await self._repository.blocks(namespace, found)
            if blocks is not None:
                text = await self._threads.to_thread(
                    as_text, blocks, step="putting a document together", limit=JOINING_SECONDS
                )
                return {**found.to_document(namespace), "text": text}
        raise UnavailableError(f"document {document_id!r} is being changed; retry in a moment")

    async def newest(self, namespace: str, principals: Sequence[str], *, limit: int, offset: int) -> list[Document]:
        """Returns documents, the newest first.

        Args:
            namespace: Where to look.
            principals: Who is asking.
            limit: How many at most.
            offset: How many visible ones to skip.
        """
        now = self._repository.now()
        documents: list[Document] = []
        skipped = place = 0
        while len(documents) < limit:
            ids = await self._repository.newest(namespace, place, PAGE)
            for found in await self._repository.read(namespace, ids):
                if found is None or not found.record.is_visible(principals, now):
                    continue
                if skipped < offset:
                    skipped += 1
                elif len(documents) < limit:
                    documents.append(found.to_document(namespace))
            place += len(ids)
            if len(ids) < PAGE:
                break
        return documents

    async def delete(
        self,
        namespace: str,
        document_id: str,
        principals: Sequence[str],
        expected_version: int | None,
        created_at: int | None = None,
    ) -> bool:
        """Deletes a document. It is found no more at once; its parts are removed then.

        Args:
            namespace: Where it is.
            document_id: The document.
            principals: Who is asking.
            expected_version: The version that it must have, or None for any.
            created_at: When it must have been stored first, in milliseconds since 1970, or None for any time.

        Returns:
            Whether it was there and visible.

        Raises:
            VersionConflictError: It has another version, or is another one by now.
        """
        try:
            gone = await self._taken_away(namespace, document_id, principals, expected_version, created_at)
        except GenerationMovedError:
            self._generations.forget(namespace)
            gone = await self._taken_away(namespace, document_id, principals, expected_version, created_at)
        if gone is not None:
            # It is on record, and removed later if not now.
            with contextlib.suppress(UnavailableError):
                await self._staging.drop(namespace, gone)
        return gone is not None

    async def _taken_away(
        self,
        namespace: str,
        document_id: str,
        principals: Sequence[str],
        expected_version: int | None,
        created_at: int | None,
    ) -> Leftover | None:
        generation = await self._generations.current(namespace)
        if generation is None:
            return None
        return await self._repository.delete(generation, document_id, principals, expected_version, created_at)

    async def _draft(self, new: NewDocument) -> DocumentDraft:
        if new.path is None:
            assert new.content is not None
            content = new.content
            extracted = await self._extractor.extract_text(content, new.media_type)
            content_hash = await self._threads.to_thread(
                _hash, content, new.media_type, step="reading a document", limit=JOINING_SECONDS
            )
            title = new.title or short_title(extracted.title)
            own = new.document_id or made_id(title or "", content_hash, *new.labels.principals)
            return DocumentDraft(new.namespace, own, new.labels, extracted, title, content_hash)
        read = await self._extractor.extract_file(new.path)
        path = new.path
        title = new.title or short_title(read.document.title)
        own = new.document_id or made_id(path.stem, "file", str(path), *new.labels.principals)
        file = DocumentFile("", str(path.parent), path.name, *read.fingerprint)
        return DocumentDraft(new.namespace, own, new.labels, read.document, title, read.content_hash, file)

    async def note_file(self, unchanged: StoredDocument, draft: DocumentDraft) -> None:
        """Notes the time of a file that says what its document says already.

        Args:
            unchanged: The document.
            draft: What was read of the file.
        """
        if draft.file is not None and draft.file != unchanged.file:
            touch = partial(self._repository.touch, document=unchanged, file=draft.file)
            await self._indexer.in_generation(draft.namespace, touch)

    async def _indexed(self, namespace: str, written: Written) -> DocumentResult:
        indexed = False
        with contextlib.suppress(OperationTimeoutError):
            async with share_of_deadline("indexing the document", INDEXING_SHARE):
                (indexed,) = await self._indexer.in_generation(
                    namespace, partial(self._writer.index, written=[written])
                )
        document = written.document
        return {
            "status": "success",
            "document_id": document.document_id,
            "version": document.record.version,
            "passages": document.passages,
            "embedded": written.embedded + (written.without_vector if indexed else 0),
            "indexed": indexed,
        }


def _unchanged(document: StoredDocument) -> DocumentResult:
    return {
        "status": "unchanged",
        "document_id": document.document_id,
        "version": document.record.version,
        "passages": document.passages,
        "embedded": 0,
        "indexed": document.record.indexed,
    }


def _hash(content: str, media_type: str) -> str:
    return hashlib.sha256(f"{media_type}\n{content}".encode()).hexdigest()
