"""Documents of a transfer file: restored one by one, as large as they may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from knowledge_base.admin.transfer.claims import ImportPass
from knowledge_base.admin.transfer.fact_import import FactImport
from knowledge_base.admin.transfer.file_memory import FileMemory, WrittenDocument
from knowledge_base.admin.transfer.import_tally import ImportTally
from knowledge_base.admin.transfer.line_format import json_text
from knowledge_base.documents.records import DocumentArchive
from knowledge_base.errors import InvalidInputError, PermissionDeniedError, VersionConflictError
from knowledge_base.index.schema import Generation
from knowledge_base.types import OnConflict

COMPARED = (
    *("content_hash", "title", "version", "created_at", "updated_at"),
    *("metadata", "tags", "source", "principals"),
)
"""What makes two documents of one id the same."""


class DocumentImport:
    """Restores the documents of transfer files.

    Args:
        archive: Restores documents.
        facts: Says where entries go.
    """

    def __init__(self, archive: DocumentArchive, facts: FactImport) -> None:
        self._archive = archive
        self._facts = facts

    async def restore(
        self, line: int, namespace: str, document: Mapping[str, Any], walk: ImportPass, tally: ImportTally
    ) -> None:
        """Restores a document, and counts what became of it.

        Args:
            line: Where it begins.
            namespace: Where it goes.
            document: What the file says of it.
            walk: How.
            tally: Counted on.

        Raises:
            UnavailableError: Redis could not be reached; it may come again.
        """
        generation = await self._facts.generation(namespace, dry_run=walk.dry_run)
        try:
            is_there = await self._is_there(generation, document, walk.on_conflict)
            outcome = await self._archive.restore(
                generation, document, on_conflict=walk.on_conflict, dry_run=walk.dry_run
            )
            if walk.memory is not None:
                outcome, is_there = self._foreseen(walk.memory, namespace, document, walk, outcome, is_there)
        except (InvalidInputError, PermissionDeniedError) as error:
            tally.fail(line, str(error))
            return
        except VersionConflictError as error:
            tally.fail(line, f"the id {error.fact_id!r} is taken, by version {error.found}")
            return
        is_written = outcome == "restored"
        tally.processed += 1
        tally.succeeded += int(is_written)
        tally.replaced += int(is_written and is_there)
        tally.embedded += int(is_written and not _has_vectors(document, generation))
        tally.duplicates += int(not is_written)

    async def _is_there(self, generation: Generation, document: Mapping[str, Any], on_conflict: OnConflict) -> bool:
        if on_conflict not in {"overwrite", "newer"}:
            return False
        return await self._archive.restore(generation, document, on_conflict="skip", dry_run=True) == "skipped"

    def _foreseen(
        self,
        memory: FileMemory,
        namespace: str,
        document: Mapping[str, Any],
        walk: ImportPass,
        outcome: Literal["restored", "skipped"],
        is_there: bool,
    ) -> tuple[Literal["restored", "skipped"], bool]:
        document_id, version = document["id"], document["version"]
        taken = memory.fact_version(namespace, document_id)
        if taken is not None:
            raise VersionConflictError(document_id, 0, taken)
        before = memory.document(namespace, document_id)
        whole = _fingerprint(document)
        if before is not None:
            is_there, outcome = True, _met(before, document, whole, walk.on_conflict)
        if outcome == "restored":
            memory.note_document(namespace, document_id, WrittenDocument(version, document["updated_at"], whole))
        return outcome, is_there


def _met(
    before: WrittenDocument, document: Mapping[str, Any], whole: int, on_conflict: OnConflict
) -> Literal["restored", "skipped"]:
    if on_conflict == "error" and before.whole != whole:
        raise VersionConflictError(document["id"], 0, before.version)
    is_newer = document["updated_at"] > before.updated_at
    replaces = on_conflict == "overwrite" or (on_conflict == "newer" and is_newer)
    return "restored" if replaces else "skipped"


def _fingerprint(document: Mapping[str, Any]) -> int:
    return hash(json_text([document.get(name) for name in COMPARED]))


def _has_vectors(document: Mapping[str, Any], generation: Generation) -> bool:
    vectors = document.get("vectors")
    if not isinstance(vectors, Mapping):
        return False
    return (vectors.get("model"), vectors.get("dimension")) == (generation.model, generation.dimension)
