"""Storing and changing documents: written beside what is there, then switched to in one step."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from knowledge_base.connection.deadline import share_of_deadline
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.documents.blocks import Block
from knowledge_base.documents.chunker import DocumentChunker, DocumentCut
from knowledge_base.documents.draft import DocumentDraft
from knowledge_base.documents.repository import DocumentRepository, DocumentSwitch
from knowledge_base.documents.staging import DocumentStaging, Leftover, PartsLostError, StagedParts
from knowledge_base.documents.stored import DocumentState, StoredDocument
from knowledge_base.documents.texts import packed
from knowledge_base.embedding.embeddings import Embeddings
from knowledge_base.errors import (
    InvalidInputError,
    KnowledgeBaseError,
    PermissionDeniedError,
    UnavailableError,
    VersionConflictError,
)
from knowledge_base.facts.draft import revision
from knowledge_base.facts.parts import labels
from knowledge_base.facts.records import FactRecord
from knowledge_base.index.background import BackgroundIndexer
from knowledge_base.index.indexer import Indexer, PassageSet
from knowledge_base.index.namespace_languages import NamespaceLanguages
from knowledge_base.index.schema import Generation

INDEXING_SHARE = 0.8
"""Share of what is left of a call's budget for vectors, so that it can still say what became of the document."""

RACES = 25
"""How often a document is stored anew when it was changed meanwhile."""

MOST_LABEL_CHARS = 100_000_000
"""Characters of labels that one document may have over all its parts."""

TAKING_BACK_SECONDS = 2.0
CUTTING_SECONDS = 300.0
PACKING_SECONDS = 60.0


class Written(NamedTuple):
    """A document that was stored."""

    document: StoredDocument
    passages: PassageSet
    embedded: int
    """Passages that got a new vector."""
    without_vector: int
    """Passages that have no vector yet."""


class DocumentWriter:
    """Stores and changes documents.

    Args:
        repository: Where documents are kept.
        staging: Writes and removes their parts.
        chunker: Cuts them.
        embeddings: Say how long passages may be.
        indexer: Gives passages their vectors.
        background: Completes what has to wait for them.
        threads: Where what takes long is done.
        languages: Knows the languages of namespaces.
    """

    def __init__(
        self,
        repository: DocumentRepository,
        staging: DocumentStaging,
        chunker: DocumentChunker,
        embeddings: Embeddings,
        indexer: Indexer,
        background: BackgroundIndexer,
        threads: WorkloadThreads,
        languages: NamespaceLanguages,
    ) -> None:
        self._repository = repository
        self._staging = staging
        self._chunker = chunker
        self._embeddings = embeddings
        self._indexer = indexer
        self._background = background
        self._threads = threads
        self._languages = languages

    async def signature(self) -> str:
        """Returns what changes with the way that documents are cut; see ``DocumentLabels.digest``."""
        model = await self._embeddings.current.load()
        return self._chunker.signature(model.tokens)

    async def write(self, draft: DocumentDraft, *, embed_ahead: bool = True) -> Written | StoredDocument:
        """Stores a document, or the next version of it; the old one is found until the new one is.

        Args:
            draft: The document.
            embed_ahead: Whether the vectors of a changed document are made before it is switched to.

        Returns:
            What was written, or the document as it is when nothing of it has changed.

        Raises:
            InvalidInputError: It has no text, or too many labels for so long a text.
            VersionConflictError: A fact has its id, or others changed it all the time.
            PermissionDeniedError: Its id belongs to a document of other principals.
            IndexMismatchError: The namespace was built with another model.
            UnavailableError: Redis could not be reached; what was there is still there.
        """
        made = draft.labels.digest(await self.signature())
        cut: DocumentCut | None = None
        conflict: Exception | None = None
        for _ in range(RACES):
            old = await self.readable(draft)
            if old is not None and _is_unchanged(old, draft, made):
                return old
            cut = cut or await self.cut(draft.namespace, draft.extracted.blocks)
            put = partial(self._put, draft=draft, old=old, cut=cut, made=made, ahead=embed_ahead)
            try:
                return await self._indexer.in_generation(draft.namespace, put)
            except (VersionConflictError, PartsLostError) as error:
                conflict = error
        if isinstance(conflict, VersionConflictError):
            raise conflict
        raise UnavailableError(f"document {draft.document_id!r} was written too slowly; retry")

    async def cut(self, namespace: str, blocks: Sequence[Block]) -> DocumentCut:
        """Returns the parts of a document.

        Args:
            namespace: Where it goes.
            blocks: Its blocks.

        Raises:
            InvalidInputError: It has no text.
        """
        model = await self._embeddings.current.load()
        cut = await self._chunker.cut(
            blocks,
            tokenizer=model.tokenizer,
            model_tokens=model.tokens,
            limit=CUTTING_SECONDS,
            likely=await self._languages.likely(namespace),
        )
        if not cut.passages:
            raise InvalidInputError("content", "has no text")
        self._languages.note(namespace, cut.sections)
        return cut

    async def readable(self, draft: DocumentDraft, *, whoever_sees: bool = False) -> StoredDocument | None:
        """Returns the document that a draft would replace.

        Args:
            draft: The draft.
            whoever_sees: Whether it may be one of other principals.

        Raises:
            VersionConflictError: A fact has its id.
            PermissionDeniedError: It belongs to other principals.
        """
        old = (await self._repository.read(draft.namespace, [draft.document_id]))[0]
        if old is None:
            fact_version = await self._repository.taken_by_fact(draft.namespace, draft.document_id)
            if fact_version is not None:
                raise VersionConflictError(draft.document_id, 0, fact_version)
        elif not (whoever_sees or _takes_over(old, draft)) and old.record.principals != list(draft.labels.principals):
            raise PermissionDeniedError(f"document_id {draft.document_id!r} is taken by a document of other principals")
        return old

    async def replace(
        self,
        generation: Generation,
        draft: DocumentDraft,
        old: StoredDocument | None,
        state: DocumentState,
        vectors: Mapping[str, bytes],
    ) -> Written:
        """Stores a document as it was elsewhere, or anew from its blocks.

        Args:
            generation: Where its parts go.
            draft: The document.
            old: What is there now, or None.
            state: What is kept as it was.
            vectors: The vectors that are known, by the text of the passage.

        Raises:
            VersionConflictError: It was changed meanwhile.
        """
        cut = await self.cut(draft.namespace, draft.extracted.blocks)
        made = draft.labels.digest(await self.signature())
        return await self._put(
            generation, draft=draft, old=old, cut=cut, made=made, ahead=False, state=state, vectors=vectors
        )

    async def index(self, generation: Generation, written: Sequence[Written]) -> list[bool]:
        """Gives passages the vectors that they have not; what fails is left to the background.

        Args:
            generation: Where the passages are.
            written: The documents.

        Returns:
            For each, whether it is indexed now.
        """
        ids = [one.document.document_id for one in written]
        indexed = [False] * len(written)
        try:
            whole = [one.passages for one in written]
            some_have = any(one.without_vector < len(one.passages.texts) for one in written)
            indexed = await self._indexer.index(generation, whole, only_missing=some_have)
        except UnavailableError:
            pass
        finally:
            # Whatever ends it: what is stored gets its vectors soon.
            waiting = [one for one, is_indexed in zip(ids, indexed, strict=True) if not is_indexed]
            if waiting:
                self._background.leave(generation.namespace, waiting)
        return indexed

    async def _put(
        self,
        generation: Generation,
        *,
        draft: DocumentDraft,
        old: StoredDocument | None,
        cut: DocumentCut,
        made: str,
        ahead: bool,
        state: DocumentState | None = None,
        vectors: Mapping[str, bytes] | None = None,
    ) -> Written:
        document = await self._document(draft, old, made, len(cut.passages), state)
        record = document.record
        known = vectors or {}
        parts = StagedParts(
            document_id=record.fact_id,
            revision=record.revision,
            seq=record.seq,
            created_at=record.created_at,
            updated_at=record.updated_at,
            labels=await self._threads.to_thread(
                _labels, draft, cut, step="labelling a document", limit=PACKING_SECONDS
            ),
            cut=cut,
            base="" if old is None else old.record.revision,
            reused={} if old is None else await self._reused(generation, old, cut),
            vectors={at: known[one.text] for at, one in enumerate(cut.passages) if one.text in known},
        )
        texts = [passage.text for passage in cut.passages]
        passages = PassageSet(record.fact_id, record.revision, texts)
        staged = await self._staging.begin(generation, record.fact_id, record.revision)
        try:
            pieces = await self._threads.to_thread(
                packed, draft.extracted.blocks, step="packing a document", limit=PACKING_SECONDS
            )
            await self._staging.write_text(draft.namespace, record.fact_id, record.revision, pieces)
            missing = len(texts) - await self._staging.write(generation, parts)
            embedded = 0
            if ahead and old is not None and missing and await self._embed_ahead(generation, staged, passages):
                embedded, missing = missing, 0
            digest = _digest(draft)
            await self._repository.switch(generation, old, DocumentSwitch(document, digest, len(cut.sections), staged))
        except BaseException:
            await self._take_back(draft.namespace, staged)
            raise
        if old is not None:
            gone = staged._replace(revision=old.record.revision)
            # It is on record, and removed later if not now.
            with contextlib.suppress(UnavailableError):
                await self._staging.drop(draft.namespace, gone)
        return Written(document, passages, embedded, missing)

    async def _document(
        self, draft: DocumentDraft, old: StoredDocument | None, made: str, passages: int, state: DocumentState | None
    ) -> StoredDocument:
        now = self._repository.now()
        if state is None:
            version, created = (1, now) if old is None else (old.record.version + 1, old.record.created_at)
            state = DocumentState(version, created, now)
        seq = await self._repository.next_seq(draft.namespace) if old is None else old.record.seq
        record = FactRecord(
            fact_id=draft.document_id,
            content="",
            metadata=dict(draft.labels.metadata),
            tags=list(draft.labels.tags),
            source=draft.labels.source,
            principals=list(draft.labels.principals),
            document_id=draft.document_id,
            version=state.version,
            # No two attempts share one: what one of them takes back is nobody else's.
            revision=revision(state.version, secrets.token_hex(6), passages),
            seq=seq,
            created_at=state.created_at,
            updated_at=state.updated_at,
            expires_at=None,
            indexed=False,
        )
        return StoredDocument(
            record=record,
            title=draft.title,
            media_type=draft.extracted.media_type,
            pages=draft.extracted.pages,
            characters=sum(len(block.text) for block in draft.extracted.blocks),
            passages=passages,
            content_hash=draft.content_hash,
            made=made,
            file=draft.file,
        )

    async def _reused(self, generation: Generation, old: StoredDocument, cut: DocumentCut) -> dict[int, int]:
        texts = await self._repository.passage_texts(generation, old)
        places = {text: place for place, text in enumerate(texts) if text is not None}
        return {at: places[one.text] for at, one in enumerate(cut.passages) if one.text in places}

    async def _embed_ahead(self, generation: Generation, staged: Leftover, passages: PassageSet) -> bool:
        # Without a model there is no point in waiting: the new text is found by words at once and its vectors follow.
        is_embedded = True
        try:
            async with share_of_deadline("embedding the new text", INDEXING_SHARE):
                await self._indexer.embed(generation, [passages], only_missing=True)
        except UnavailableError:
            is_embedded = False
        await self._staging.keep(generation, staged)
        return is_embedded

    async def _take_back(self, namespace: str, staged: Leftover) -> None:
        # It is on record: if not now, it is removed later. A cancellation must not be held up by it for long.
        with contextlib.suppress(KnowledgeBaseError, TimeoutError):
            async with asyncio.timeout(TAKING_BACK_SECONDS):
                await self._staging.drop(namespace, staged)


def _is_unchanged(old: StoredDocument, draft: DocumentDraft, made: str) -> bool:
    same_title = old.title == draft.title
    same_origin = draft.file is None or (old.file is not None and old.file.path == draft.file.path)
    return old.content_hash == draft.content_hash and old.made == made and same_title and same_origin


def _takes_over(old: StoredDocument, draft: DocumentDraft) -> bool:
    if not draft.whoever_sees or old.file is None or draft.file is None:
        return False
    return (old.file.tree, old.file.path) == (draft.file.tree, draft.file.path)


def _labels(draft: DocumentDraft, cut: DocumentCut) -> dict[str, str]:
    own = draft.labels
    made = labels(own.metadata, own.tags, own.source, own.principals)
    if sum(map(len, made.values())) * (len(cut.passages) + len(cut.sections)) > MOST_LABEL_CHARS:
        raise InvalidInputError(
            "metadata",
            "has too many values to filter on for so long a document (tags and principals count); shorten either",
            limit=MOST_LABEL_CHARS,
        )
    return made


def _digest(draft: DocumentDraft) -> str:
    return hashlib.sha256(f"{draft.document_id}\x00{draft.content_hash}".encode()).hexdigest()
