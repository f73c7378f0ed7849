"""The calls that take everything out of a base, and bring it into one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from knowledge_base.admin.transfer.exporter import ExportRequest
from knowledge_base.admin.transfer.importer import ImportRequest
from knowledge_base.calls.base import Calls, checked_path
from knowledge_base.errors import InvalidInputError
from knowledge_base.facts import validation
from knowledge_base.keyspace import EVERY_NAMESPACE
from knowledge_base.types import ExportFormat, ExportReport, ImportReport, OnConflict, Progress

if TYPE_CHECKING:
    from llama_index.core.vector_stores.types import MetadataFilters


class TransferCalls(Calls):
    """Export and import; both are for whoever runs the base, and know no principals."""

    async def export_all_data(
        self,
        path: str | os.PathLike[str],
        *,
        format: ExportFormat = "jsonl",  # noqa: A002 - the public contract
        namespace: str | None = None,
        include_vectors: bool = False,
        filters: Mapping[str, Any] | MetadataFilters | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> ExportReport:
        """Writes facts and documents, with all that is kept of them, into a file; whoever may see them.

        The file is moved into place when it is whole. What was interrupted goes on where it stopped when the same
        call is made again. A name that ends in ``.gz`` or ``.zst`` has it compressed.

        Args:
            path: The file; an old one is replaced, and stays as it is until then.
            format: ``"jsonl"``, ``"csv"`` or ``"markdown"``; each can be imported.
            namespace: One namespace, or ``"*"`` for all.
            include_vectors: Whether vectors are written as well, so that the import needs no model.
            progress: Called with how many entries are written and how many there are.

        Returns:
            What was written, and the checksum that stands in the file's last line.

        Raises:
            InvalidInputError: The path is a symbolic link, a folder, or cannot be written to.
            UnavailableError: There is no room, or Redis cannot be reached; the same call goes on later.
        """
        validation.checked_choice("format", format, get_args(ExportFormat))
        request = ExportRequest(
            path=_checked_file(path),
            format=format,
            namespace=None if namespace == EVERY_NAMESPACE else self._namespace(namespace),
            include_vectors=bool(include_vectors),
            clause=self._filters.clause(filters),
        )
        async with self._services.call("export_all_data", timeout, self.settings.timeouts.job) as services:
            return await services.transfer.exporter.run(request, progress)

    async def import_data(
        self,
        path: str | os.PathLike[str],
        *,
        on_conflict: OnConflict = "skip",
        dry_run: bool = False,
        namespace: str | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> ImportReport:
        """Reads a file that an export has written, or plain JSON Lines like ``{"content": "…"}``.

        Format and compression are told by the content. A file with a header is checked as a whole before anything is
        written. Vectors are used when model, dimension and passages are those of this base; the others are made.

        Args:
            path: The file.
            on_conflict: What becomes of a fact or document whose id is taken: ``"skip"`` it, ``"overwrite"`` the old
                one, keep the ``"newer"`` one, or count it as an ``"error"``.
            dry_run: Whether to check everything, say what would happen, and change nothing.
            namespace: Where everything goes, or ``"*"`` for each entry's own namespace.
            progress: Called with how many entries are done and how many there are.

        Returns:
            The counts, and for each entry that failed its line and why.

        Raises:
            InvalidInputError: The file cannot be read, or is damaged; nothing was changed.
            IndexMismatchError: The namespace was built with another embedding model.
        """
        validation.checked_choice("on_conflict", on_conflict, get_args(OnConflict))
        request = ImportRequest(
            path=_checked_file(path),
            namespace=None if namespace == EVERY_NAMESPACE else self._namespace(namespace),
            default_namespace=self.settings.namespace,
            on_conflict=on_conflict,
            dry_run=bool(dry_run),
        )
        async with self._services.call("import_data", timeout, self.settings.timeouts.job) as services:
            return await services.transfer.importer.run(request, progress)


def _checked_file(path: Any) -> Path:
    found = checked_path(path)
    if not found.name:
        raise InvalidInputError("path", "must be the name of a file")
    return found
