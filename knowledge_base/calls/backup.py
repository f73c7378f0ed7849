"""The calls that make a backup of everything, and see whether it can be restored."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from knowledge_base.calls.base import checked_path
from knowledge_base.calls.transfer import TransferCalls
from knowledge_base.keyspace import EVERY_NAMESPACE
from knowledge_base.settings import Settings
from knowledge_base.types import BackupCheck, ExportReport, ImportReport, Progress


class BackupCalls(TransferCalls, ABC):
    """Backups: an export of all namespaces with vectors, history and documents."""

    @abstractmethod
    def _beside(self, settings: Settings) -> Any:
        """Returns another base with the same models; only a whole base can make one."""

    async def backup(
        self, path: str | os.PathLike[str], *, progress: Progress | None = None, timeout: float | None = None
    ) -> ExportReport:
        """Writes everything of all namespaces into a file: facts, history, documents and vectors.

        Bring it back with ``import_data(path, namespace="*")``. What was interrupted goes on where it stopped when the
        same call is made again.

        Args:
            path: The file; with ``.gz`` or ``.zst`` at its end it is compressed.
            progress: Called with how many entries are written and how many there are.

        Returns:
            What was written, and its checksum.

        Raises:
            InvalidInputError: The path is a symbolic link, a folder, or cannot be written to.
            UnavailableError: There is no room, or Redis cannot be reached; the same call goes on later.
        """
        return await self.export_all_data(
            path, namespace=EVERY_NAMESPACE, include_vectors=True, progress=progress, timeout=timeout
        )

    async def verify_backup(
        self, path: str | os.PathLike[str], *, progress: Progress | None = None, timeout: float | None = None
    ) -> BackupCheck:
        """Restores a backup into an embedded server of its own, writes it once more, and compares both.

        Nothing of this base is touched; server and data are gone afterwards.

        Args:
            path: The file, as ``backup`` or an export with ``format="jsonl"`` has written it; others are refused.
            progress: Called with how many entries are restored and how many there are.

        Returns:
            Whether each entry came back as it was, and what is wrong where one did not. Facts that have expired since
            are counted, and wrong with nothing.

        Raises:
            InvalidInputError: The file cannot be read, is no backup, or is damaged.
            ServerRequirementError: The embedded server cannot run here.
        """
        file = checked_path(path)

        async def restore(source: Path, again: Path) -> tuple[ImportReport, ExportReport]:
            changes = {"redis_url": None, "data_dir": again.parent / "data"}
            async with self._beside(self.settings.model_copy(update=changes)) as scratch:
                imported = await scratch.import_data(source, namespace=EVERY_NAMESPACE, progress=progress)
                exported = await scratch.export_all_data(again, namespace=EVERY_NAMESPACE, include_vectors=True)
                return imported, exported

        async with self._services.call("verify_backup", timeout, self.settings.timeouts.job) as services:
            return await services.backup_test.run(file, restore)
