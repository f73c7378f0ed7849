"""The calls about documents: adding, ingesting, reading, listing and deleting them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from knowledge_base.calls.base import Calls, checked_path
from knowledge_base.documents.draft import checked_document_id, checked_labels, checked_title
from knowledge_base.documents.ingest import IngestRequest
from knowledge_base.documents.service import NewDocument
from knowledge_base.errors import InvalidInputError
from knowledge_base.facts import validation
from knowledge_base.types import Document, DocumentResult, DocumentWithText, IngestResult, Metadata, Progress

LONGEST_PATTERN = 1_024


class DocumentCalls(Calls):
    """Documents; each method checks its arguments, opens the deadline, and asks one collaborator."""

    async def add_document(
        self,
        content: str | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        document_id: str | None = None,
        metadata: Metadata | None = None,
        namespace: str | None = None,
        title: str | None = None,
        tags: Iterable[str] = (),
        source: str | None = None,
        principals: Iterable[str] | None = None,
        media_type: str = "text/markdown",
        timeout: float | None = None,
    ) -> DocumentResult:
        """Adds a document, or the next version of one; the old one is found until the new one is.

        Args:
            content: Its text, 10 000 000 characters at most; or give ``path``.
            path: Its file, 50 MB at most.
            document_id: An id of the caller's, matching ``[A-Za-z0-9_.:-]{1,255}``. Without one, a file's is made of
                its path and a text's of the text itself.
            metadata: A JSON object, 64 KiB at most; copied.
            title: Its title; without one, what the document says itself.
            tags: Labels to filter on.
            source: Where it comes from; without one, the file's name.
            principals: Who may see it; without any, everybody in the namespace.
            media_type: Format of ``content``.

        Returns:
            The status ("success", or "unchanged" when it is there just so), id, version and counts, and whether all of
            it is found by meaning yet.

        Raises:
            InvalidInputError: The file or text cannot be read: the reason is named, and an old version stays.
            VersionConflictError: A fact has the id.
            PermissionDeniedError: The id belongs to a document of other principals.
            IndexMismatchError: The namespace was built with another embedding model.
        """
        limits = self.settings.limits
        where = self._namespace(namespace)
        if (content is None) == (path is None):
            raise InvalidInputError("content", "give either content or path")
        if content is not None:
            validation.checked_text("content", content, limits.document_chars)
        file = None if path is None else _absolute(path)
        own_source = file.name if source is None and file is not None else source
        new = NewDocument(
            namespace=where,
            document_id=None if document_id is None else checked_document_id(document_id),
            content=content,
            path=file,
            media_type=validation.checked_label("media_type", media_type, limits.label_chars),
            title=checked_title(title, limits),
            labels=checked_labels(metadata, tags, own_source, principals, limits),
        )
        async with self._services.call("add_document", timeout, self.settings.timeouts.add_document) as services:
            return await services.documents.add(new)

    async def ingest_path(
        self,
        path: str | os.PathLike[str],
        *,
        pattern: str = "**/*",
        progress: Progress | None = None,
        namespace: str | None = None,
        tags: Iterable[str] = (),
        principals: Iterable[str] | None = None,
        metadata: Metadata | None = None,
        name: str | None = None,
        delete_missing: bool = False,
        force: bool = False,
        timeout: float | None = None,
    ) -> IngestResult:
        """Adds the files of a folder as documents, or what has changed of them since the last time.

        A file whose size, times and number on the disk are as before is not read; of a changed one, only passages that
        are new get new vectors. Each file stands or falls by itself; a changed one that cannot be read keeps its text.

        Args:
            path: The folder, or a single file.
            pattern: Which files, as ``pathlib`` matches them.
            progress: Called with how many files are done and how many there are.
            tags: Labels of all of them.
            principals: Who may see them from now on, whoever could before; without any, everybody in the namespace.
            metadata: A JSON object, for all of them.
            name: Name of the tree; without one, the folder's. Documents are told apart by it and by their path below
                the folder, so a tree that has moved is known again.
            delete_missing: Whether documents go whose files are gone: those of this folder, and those of this ``name``
                and the same principals. A file that is there but does not match the pattern is not gone.
            force: Whether files are read that look unchanged, to compare what they say.

        Returns:
            How many files there were (``processed``), were stored (``succeeded``), were unchanged (``duplicates``) or
            could not be read (``failed``, each with its path and the reason), and how many documents were deleted.
            ``completed`` is False when the call's budget or Redis cut it short: what is done is kept.

        Raises:
            InvalidInputError: There is no such folder or file; or ``delete_missing`` is set, and the folder holds no
                file while there are documents of it.
            IndexMismatchError: The namespace was built with another embedding model.
        """
        limits = self.settings.limits
        request = IngestRequest(
            namespace=self._namespace(namespace),
            path=_absolute(path),
            pattern=_checked_pattern(pattern),
            labels=checked_labels(metadata, tags, None, principals, limits),
            name=None if name is None else validation.checked_label("name", name, limits.label_chars),
            delete_missing=_checked_switch("delete_missing", delete_missing),
            force=_checked_switch("force", force),
        )
        async with self._services.call("ingest_path", timeout, self.settings.timeouts.job) as services:
            return await services.ingestion.run(request, progress)

    async def get_document(
        self,
        document_id: str,
        *,
        namespace: str | None = None,
        principals: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> DocumentWithText:
        """Returns a document with its text.

        Args:
            document_id: The document.

        Raises:
            DocumentNotFoundError: It is not there, or not visible.
        """
        where = self._namespace(namespace)
        who = self._principals(principals)
        checked_document_id(document_id)
        async with self._services.call("get_document", timeout, self.settings.timeouts.update) as services:
            return await services.documents.get(where, document_id, who)

    async def list_documents(
        self,
        *,
        namespace: str | None = None,
        principals: Iterable[str] | None = None,
        limit: int = 100,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Document]:
        """Returns documents without their texts, the newest first.

        Args:
            limit: How many at most.
            offset: How many to skip.
        """
        where = self._namespace(namespace)
        who = self._principals(principals)
        validation.checked_number("limit", limit, 1, self.settings.limits.page)
        validation.checked_number("offset", offset, 0, self.settings.limits.offset)
        async with self._services.call("list_documents", timeout, self.settings.timeouts.get) as services:
            return await services.documents.newest(where, who, limit=limit, offset=offset)

    async def delete_document(
        self,
        document_id: str,
        *,
        expected_version: int | None = None,
        namespace: str | None = None,
        principals: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Deletes a document with its passages. It is found no more as soon as it is gone from the record.

        Args:
            document_id: The document.
            expected_version: The version that it must have.

        Returns:
            Whether it was there and visible.

        Raises:
            VersionConflictError: It has another version.
        """
        where = self._namespace(namespace)
        who = self._principals(principals)
        checked_document_id(document_id)
        self._check_version(expected_version)
        async with self._services.call("delete_document", timeout, self.settings.timeouts.add_document) as services:
            return await services.documents.delete(where, document_id, who, expected_version)


def _absolute(path: Any) -> Path:
    return Path(os.path.abspath(checked_path(path)))


def _checked_pattern(value: Any) -> str:
    pattern = validation.checked_text("pattern", value, LONGEST_PATTERN)
    if pattern.startswith("/") or ".." in pattern.split("/"):
        raise InvalidInputError("pattern", "must stay below the path")
    return pattern


def _checked_switch(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidInputError(field, "must be True or False")
    return value
