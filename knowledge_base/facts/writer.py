"""Storing and changing single facts: durable first, then indexed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from knowledge_base.connection.admission import Admission
from knowledge_base.connection.deadline import share_of_deadline
from knowledge_base.errors import (
    FactNotFoundError,
    InvalidInputError,
    PermissionDeniedError,
    UnavailableError,
    VersionConflictError,
)
from knowledge_base.facts import validation
from knowledge_base.facts.draft import FactDraft, checked_source, revision
from knowledge_base.facts.parts import FactParts, PartMaker
from knowledge_base.facts.records import FactRecord
from knowledge_base.facts.repository import FactRepository, Stored
from knowledge_base.index.background import BackgroundIndexer
from knowledge_base.index.generations import GenerationMovedError, Generations
from knowledge_base.index.indexer import Indexer, PassageSet
from knowledge_base.index.schema import Generation
from knowledge_base.settings import Limits, Timeouts
from knowledge_base.types import Fact, StoreResult

INDEXING_SHARE = 0.7
"""Share of what is left of a call's budget for its vectors, so that it can still say what became of the fact."""

RACES = 20
"""How often an update without an expected version is tried again when others were faster."""


@dataclass(frozen=True, slots=True)
class FactChange:
    """The checked arguments of one update; None leaves a field as it is."""

    content: str | None = None
    metadata: Mapping[str, Any] | None = None
    tags: Sequence[str] | None = None
    source: str | None = None
    principals: Sequence[str] | None = None
    """Who the caller means to show it to; a fact that is shown to others is refused."""

    @classmethod
    def checked(cls, limits: Limits, *, content: Any, metadata: Any, tags: Any, source: Any) -> FactChange:
        """Checks the arguments of one update.

        Args:
            limits: The limits.
            content: The new content, or None.
            metadata: The new metadata, or None.
            tags: The new tags, or None.
            source: The new source, or None.

        Raises:
            InvalidInputError: An argument is refused, or all are None.
        """
        if content is None and metadata is None and tags is None and source is None:
            raise InvalidInputError("content", "nothing to change; give content, metadata, tags or source")
        return cls(
            None if content is None else validation.checked_text("content", content, limits.content_chars),
            None if metadata is None else validation.checked_metadata(metadata, limits),
            None if tags is None else validation.checked_labels("tags", tags, limits.tags, limits.label_chars),
            checked_source(source, limits),
        )


class FactWriter:
    """Stores and changes facts.

    Args:
        repository: Where facts are kept.
        parts: Makes the parts of facts.
        generations: Which index is live.
        indexer: Gives passages their vectors.
        background: Completes what has to wait for them.
        timeouts: The caps of the steps.
        limits: How many may be stored at once.
    """

    def __init__(
        self,
        repository: FactRepository,
        parts: PartMaker,
        generations: Generations,
        indexer: Indexer,
        background: BackgroundIndexer,
        timeouts: Timeouts,
        limits: Limits,
    ) -> None:
        self._repository = repository
        self._parts = parts
        self._generations = generations
        self._indexer = indexer
        self._background = background
        self._timeouts = timeouts
        self.admission = Admission("stores", limits.concurrent_stores, limits.waiting_stores)

    async def store(self, draft: FactDraft, *, wait_indexed: bool) -> StoreResult:
        """Stores a fact, and waits for its vectors if asked to and possible.

        Args:
            draft: The fact.
            wait_indexed: Whether to wait for the vectors.

        Returns:
            What became of it; ``indexed`` is False when the vectors follow later.

        Raises:
            VersionConflictError: It is there already and must not be, or its id has another content.
            PermissionDeniedError: Its id belongs to a fact of other principals.
            IndexMismatchError: The namespace was built with another model.
            OverloadedError: Too many stores wait already, or its turn did not come in time.
            UnavailableError: Redis could not be reached; it may or may not be stored, and may be stored again.
        """

        async def store(generation: Generation) -> StoreResult:
            return await self._store(generation, draft, wait_indexed=wait_indexed)

        return await self._indexer.in_generation(draft.namespace, store)

    async def _store(self, generation: Generation, draft: FactDraft, *, wait_indexed: bool) -> StoreResult:
        # No place is held while the model is waited for: others can be stored meanwhile, as slow as it may be.
        async with self.admission.place(self._timeouts.store):
            parts = await self._parts.make(
                draft.namespace, draft.content, draft.metadata, draft.tags, draft.source, draft.principals
            )
            stored = (await self._repository.store(generation, [(draft, parts)]))[0]
        if isinstance(stored, Exception):
            raise stored
        if stored.status != "success":
            return await self.resolve_duplicate(draft, stored)
        indexed = wait_indexed and await self._index_now(generation, draft, parts)
        if not wait_indexed:
            self._background.leave(draft.namespace, [draft.fact_id])
        return {"status": "success", "fact_id": draft.fact_id, "version": 1, "indexed": indexed}

    async def resolve_duplicate(self, draft: FactDraft, stored: Stored) -> StoreResult:
        """Does what the caller asked for when a fact is there already.

        Args:
            draft: The fact that was to be stored.
            stored: What was found instead.

        Raises:
            VersionConflictError: It must not be there, or its id has another content.
            PermissionDeniedError: Its id belongs to a fact of other principals.
        """
        if draft.on_duplicate == "update":
            change = FactChange(draft.content, draft.metadata, draft.tags, draft.source, draft.principals)
            try:
                fact = await self._change(draft.namespace, stored.fact_id, change, draft.principals, None)
            except FactNotFoundError:
                raise PermissionDeniedError(
                    f"fact_id {stored.fact_id!r} is taken by a fact of other principals"
                ) from None
            return {"status": "success", "fact_id": fact["id"], "version": fact["version"], "indexed": fact["indexed"]}
        if draft.on_duplicate == "error" or stored.status == "conflict":
            raise VersionConflictError(stored.fact_id, 0, stored.version)
        return {
            "status": "duplicate",
            "fact_id": stored.fact_id,
            "version": stored.version,
            "indexed": stored.indexed,
        }

    async def update(
        self,
        namespace: str,
        fact_id: str,
        change: FactChange,
        principals: Sequence[str],
        expected_version: int | None,
    ) -> Fact:
        """Changes a fact; without an expected version the last writer wins.

        Args:
            namespace: Where it is.
            fact_id: The fact.
            change: What changes.
            principals: Who is asking.
            expected_version: The version that it must have, or None for any.

        Raises:
            FactNotFoundError: It is not there, or not visible.
            VersionConflictError: It has another version, or another fact has the new content.
            OverloadedError: Too many stores wait already, or its turn did not come in time.
            UnavailableError: Redis could not be reached.
        """
        return await self._change(namespace, fact_id, change, principals, expected_version)

    async def delete(
        self,
        namespace: str,
        fact_id: str,
        principals: Sequence[str],
        expected_version: int | None,
        created_at: int | None = None,
    ) -> bool:
        """Deletes a fact.

        Args:
            namespace: Where it is.
            fact_id: The fact.
            principals: Who is asking.
            expected_version: The version that it must have, or None for any.
            created_at: When it must have been stored first, in milliseconds since 1970, or None for any time.

        Returns:
            Whether it was there and visible.

        Raises:
            VersionConflictError: It has another version.
            UnavailableError: Redis could not be reached.
        """

        async def attempt(generation: Generation) -> bool:
            return await self._repository.delete(generation, fact_id, principals, expected_version, created_at)

        return await self._generations.in_live(namespace, attempt, nothing=False)

    async def _change(
        self,
        namespace: str,
        fact_id: str,
        change: FactChange,
        principals: Sequence[str],
        expected_version: int | None,
    ) -> Fact:
        async def attempt(generation: Generation) -> Fact:
            return await self._change_in(generation, fact_id, change, principals, expected_version)

        return await self._indexer.in_generation(namespace, attempt)

    async def _change_in(
        self,
        generation: Generation,
        fact_id: str,
        change: FactChange,
        principals: Sequence[str],
        expected_version: int | None,
    ) -> Fact:
        namespace = generation.namespace
        for _ in range(RACES):
            old = (await self._repository.read(namespace, [fact_id], principals))[0]
            if old is None:
                raise FactNotFoundError(fact_id, namespace)
            if change.principals is not None and list(change.principals) != old.principals:
                raise PermissionDeniedError(f"fact {fact_id!r} belongs to other principals")
            if expected_version is not None and old.version != expected_version:
                raise VersionConflictError(fact_id, expected_version, old.version)
            try:
                return await self._switch(generation, old, change, principals)
            except VersionConflictError as error:
                if expected_version is not None or error.fact_id != fact_id or error.expected == 0:
                    raise
                conflict = error
        raise conflict

    async def _switch(
        self, generation: Generation, old: FactRecord, change: FactChange, principals: Sequence[str]
    ) -> Fact:
        changed = change.content is not None and change.content != old.content
        content = change.content if changed and change.content is not None else old.content
        new = old._replace(
            content=content,
            metadata=old.metadata if change.metadata is None else dict(change.metadata),
            tags=old.tags if change.tags is None else list(change.tags),
            source=old.source if change.source is None else change.source,
        )
        async with self.admission.place(self._timeouts.update):
            parts = await self._parts.make(
                generation.namespace, content, new.metadata, new.tags, new.source, new.principals, cut=changed
            )
        written: PassageSet | None = None
        if changed:
            new = new._replace(revision=revision(old.version + 1, parts.digest, len(parts.passages)))
            written = PassageSet(old.fact_id, new.revision, parts.passages)
            await self._embed_ahead(generation, written)
        try:
            async with self.admission.place(self._timeouts.update):
                stored = await self._repository.update(generation, old, new, parts, principals)
        except (VersionConflictError, FactNotFoundError, GenerationMovedError):
            if written is not None:
                await self._indexer.settle(generation, [written])
            raise
        if not stored.indexed:
            self._background.leave(generation.namespace, [old.fact_id])
        current = (await self._repository.read(generation.namespace, [old.fact_id], principals))[0]
        if current is not None and current.version == stored.version:
            return current.to_fact(generation.namespace)
        now = self._repository.now()
        return new._replace(version=stored.version, updated_at=now, indexed=stored.indexed).to_fact(
            generation.namespace
        )

    async def _embed_ahead(self, generation: Generation, passages: PassageSet) -> None:
        # The old content stays searchable by meaning until the new one is. Without a model there is no point in
        # waiting: the new content is found by words at once and its vectors follow.
        try:
            async with share_of_deadline("embedding the new content", INDEXING_SHARE):
                await self._indexer.embed_ahead(generation, passages)
        except UnavailableError:
            return

    async def _index_now(self, generation: Generation, draft: FactDraft, parts: FactParts) -> bool:
        indexed = False
        try:
            async with share_of_deadline("indexing", INDEXING_SHARE):
                (indexed,) = await self._indexer.index(generation, [first_passages(draft, parts)])
        except UnavailableError:
            return False
        finally:
            # Whatever ends it: what is stored gets its vectors soon.
            if not indexed:
                self._background.leave(draft.namespace, [draft.fact_id])
        return indexed


def first_passages(draft: FactDraft, parts: FactParts) -> PassageSet:
    """Returns the passages of a fact's first version.

    Args:
        draft: The fact.
        parts: Its parts.
    """
    return PassageSet(draft.fact_id, revision(1, parts.digest, len(parts.passages)), parts.passages)
