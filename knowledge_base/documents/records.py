"""Documents as plain records, for those who take them out of a base and bring them into one."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from knowledge_base.clock import iso_time
from knowledge_base.connection.hashes import read_bytes
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.documents.blocks import Block, ExtractedDocument
from knowledge_base.documents.draft import DocumentDraft, DocumentLabels
from knowledge_base.documents.entries import entry_draft, entry_vectors
from knowledge_base.documents.repository import DocumentRepository
from knowledge_base.documents.staging import PartsLostError
from knowledge_base.documents.stored import DocumentState, StoredDocument
from knowledge_base.documents.writer import DocumentWriter, Written
from knowledge_base.errors import UnavailableError, VersionConflictError
from knowledge_base.index.schema import VECTOR_FIELD, Generation
from knowledge_base.settings import Limits

VECTORS_AT_ONCE = 256
"""Passages whose vectors one round trip brings."""

RACES = 5
ENCODING_SECONDS = 60.0

OnConflict: TypeAlias = Literal["skip", "overwrite", "newer", "error"]
Outcome: TypeAlias = Literal["restored", "skipped"]


class DocumentPage(NamedTuple):
    """Some documents, the oldest first."""

    entries: list[dict[str, Any]]
    """Each ready for JSON: id, title, media_type, pages, metadata, tags, source, principals, version, created_at,
    updated_at, content_hash, file, blocks (kind, text, level and page of each) and, where they were asked for,
    vectors: model, dimension, and per passage its text and its vector (float32, little-endian, base64; None where it
    has none yet)."""
    next_seq: float | None
    """Where to go on; None at the end."""


class DocumentArchive:
    """Reads documents with everything that it takes to restore them, and restores them.

    Args:
        manager: The connections.
        repository: Where they are kept.
        writer: Stores them.
        threads: Where what takes long is done.
        limits: What may be restored.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        repository: DocumentRepository,
        writer: DocumentWriter,
        threads: WorkloadThreads,
        limits: Limits,
    ) -> None:
        self._manager = manager
        self._repository = repository
        self._writer = writer
        self._threads = threads
        self._limits = limits

    async def read(
        self, namespace: str, after_seq: float, limit: int, *, vectors_of: Generation | None = None
    ) -> DocumentPage:
        """Returns the next documents, the oldest first, whoever may see them.

        Args:
            namespace: Where they are.
            after_seq: Where the page before ended; 0 to begin.
            limit: How many at most; each may have megabytes of text.
            vectors_of: The generation whose vectors are wanted as well; None for none.
        """
        found = await self._repository.after(namespace, after_seq, limit)
        entries: list[dict[str, Any]] = []
        for document_id, _ in found:
            entry = await self._entry(namespace, document_id, vectors_of)
            if entry is not None:
                entries.append(entry)
        return DocumentPage(entries, found[-1][1] if found else None)

    async def restore(
        self,
        generation: Generation,
        entry: Mapping[str, Any],
        *,
        on_conflict: OnConflict = "skip",
        dry_run: bool = False,
    ) -> Outcome:
        """Restores a document with its id, version and times; its passages are cut anew, as is configured now.

        Args:
            generation: Where its parts go.
            entry: What ``read`` gave.
            on_conflict: What to do when it is there already, whoever may see it: leave it (``"skip"``), replace it
                (``"overwrite"``), replace an older one (``"newer"``) or raise, unless it is the same (``"error"``).
            dry_run: Whether to check only.

        Returns:
            "restored" (or, in a dry run, would be) or "skipped".

        Raises:
            InvalidInputError: The entry is damaged; nothing was changed.
            VersionConflictError: It is there already and must not be, or a fact has its id.
            UnavailableError: Redis could not be reached, or it was changed all the time.
        """
        draft, state = await self._threads.to_thread(
            entry_draft,
            entry,
            generation.namespace,
            self._limits,
            step="reading a document's record",
            limit=ENCODING_SECONDS,
        )
        vectors = await self._threads.to_thread(
            entry_vectors, entry, generation, step="reading a document's vectors", limit=ENCODING_SECONDS
        )
        for _ in range(RACES):
            old = await self._writer.readable(draft, whoever_sees=True)
            if old is not None and not _replaces(old, draft, state, on_conflict):
                return "skipped"
            if dry_run:
                return "restored"
            try:
                written = await self._writer.replace(generation, draft, old, state, vectors)
            except (VersionConflictError, PartsLostError):
                continue
            await self._writer.index(generation, [written])
            return "restored"
        raise UnavailableError(f"document {draft.document_id!r} is being changed; retry")

    async def remake(self, generation: Generation, document_id: str) -> bool:
        """Makes the parts of a document anew from its text: same version, cut as is configured now.

        Args:
            generation: Where its parts are.
            document_id: The document.

        Returns:
            Whether it was there.

        Raises:
            UnavailableError: Redis could not be reached, or it was changed all the time.
        """
        for _ in range(RACES):
            written = await self._remade(generation, document_id)
            if written is None:
                return False
            if isinstance(written, Written):
                await self._writer.index(generation, [written])
                return True
        raise UnavailableError(f"document {document_id!r} is being changed; retry")

    async def _remade(self, generation: Generation, document_id: str) -> Written | Literal["changed"] | None:
        found = (await self._repository.read(generation.namespace, [document_id]))[0]
        if found is None:
            return None
        blocks = await self._repository.blocks(generation.namespace, found)
        if blocks is None:
            return "changed"
        record = found.record
        draft = DocumentDraft(
            namespace=generation.namespace,
            document_id=document_id,
            labels=DocumentLabels(record.metadata, record.tags, record.source, record.principals),
            extracted=ExtractedDocument(found.title, found.media_type, blocks, found.pages),
            title=found.title,
            content_hash=found.content_hash,
            file=found.file,
        )
        state = DocumentState(record.version, record.created_at, record.updated_at)
        try:
            return await self._writer.replace(generation, draft, found, state, {})
        except (VersionConflictError, PartsLostError):
            return "changed"

    async def _entry(self, namespace: str, document_id: str, vectors_of: Generation | None) -> dict[str, Any] | None:
        for _ in range(RACES):
            found = (await self._repository.read(namespace, [document_id]))[0]
            if found is None:
                return None
            blocks = await self._repository.blocks(namespace, found)
            if blocks is not None:
                return _entry_of(found, blocks) | await self._vectors(vectors_of, found)
        raise UnavailableError(f"document {document_id!r} is being changed; retry")

    async def _vectors(self, generation: Generation | None, found: StoredDocument) -> dict[str, Any]:
        if generation is None:
            return {}
        client = await self._manager.main()
        prefix = f"{generation.passage_prefix}:{found.document_id}:{found.record.revision}"
        passages: list[list[str | None]] = []
        for begin in range(0, found.passages, VECTORS_AT_ONCE):
            some = range(begin, min(found.passages, begin + VECTORS_AT_ONCE))
            rows = await read_bytes(client, [(f"{prefix}:{at}", ["text", VECTOR_FIELD]) for at in some])
            for text, vector in rows:
                if text is not None:
                    passages.append([text.decode(), None if vector is None else base64.b64encode(vector).decode()])
        return {"vectors": {"model": generation.model, "dimension": generation.dimension, "passages": passages}}


def _entry_of(found: StoredDocument, blocks: Sequence[Block]) -> dict[str, Any]:
    record = found.record
    return {
        "id": found.document_id,
        "title": found.title,
        "media_type": found.media_type,
        "pages": found.pages,
        "metadata": record.metadata,
        "tags": record.tags,
        "source": record.source,
        "principals": record.principals,
        "version": record.version,
        "created_at": iso_time(record.created_at),
        "updated_at": iso_time(record.updated_at),
        "content_hash": found.content_hash,
        "file": None if found.file is None else found.file._asdict(),
        "blocks": [list(block) for block in blocks],
    }


def _replaces(old: StoredDocument, draft: DocumentDraft, state: DocumentState, on_conflict: OnConflict) -> bool:
    if on_conflict == "error":
        if _is_same(old, draft, state):
            return False
        raise VersionConflictError(old.document_id, 0, old.record.version)
    if on_conflict == "newer":
        return state.updated_at > old.record.updated_at
    return on_conflict == "overwrite"


def _is_same(old: StoredDocument, draft: DocumentDraft, state: DocumentState) -> bool:
    record, labels = old.record, draft.labels
    is_as_old = (record.version, record.created_at, record.updated_at) == state
    says_the_same = (old.content_hash, old.title) == (draft.content_hash, draft.title)
    stored = DocumentLabels(record.metadata, record.tags, record.source, record.principals)
    return is_as_old and says_the_same and stored.digest("") == labels.digest("")
