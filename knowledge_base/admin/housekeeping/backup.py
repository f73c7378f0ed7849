"""Whether a backup can be restored: it is, somewhere else, and written once more."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from knowledge_base.admin.transfer.compression import LONGEST_MAGIC, compression_in, unpacked
from knowledge_base.connection.deadline import forget_deadline
from knowledge_base.connection.workload import WorkloadThreads, job
from knowledge_base.errors import InvalidInputError
from knowledge_base.types import BackupCheck, ExportReport, ImportReport

_Name: TypeAlias = tuple[str, str, str]
"""Kind, namespace and id of an entry."""

Restore: TypeAlias = Callable[[Path, Path], Awaitable[tuple[ImportReport, ExportReport]]]
"""Restores a file into an empty base that keeps its data in a folder, and exports everything to a second file."""

LINES_AT_ONCE = 200
"""Lines of both files that are compared before others get the thread."""

PROBLEMS_TOLD = 20
FOLDER_SECONDS = 60.0
NOT_COMPARED = ("header", "trailer")
HEADER = b'{"kind":"header",'
NAMED = re.compile(rb'\{"kind":"(fact|document)","namespace":"([A-Za-z0-9_.:-]+)","id":"([A-Za-z0-9_.:-]+)",')
DIFFERENT = "was restored differently"
MADE_ANEW = ("passages", "vectors")
"""Fields with vectors, which another model than the one of the backup makes anew."""


class BackupTest:
    """Restores backups to see whether they are whole.

    Args:
        threads: Where files are compared.
        file_seconds: Seconds that one step of reading may take.
    """

    def __init__(self, threads: WorkloadThreads, *, file_seconds: float) -> None:
        self._threads = threads
        self._file_seconds = file_seconds

    async def run(self, path: Path, restore: Restore) -> BackupCheck:
        """Restores a backup into a folder of its own, which is removed again.

        Args:
            path: The file.
            restore: Restores it, and exports what is there then.

        Raises:
            InvalidInputError: The file cannot be read, is no backup, or is damaged.
            UnavailableError: There is no room for it, or it took too long.
        """
        begun = time.monotonic()
        with job():
            await self._threads.to_thread(
                _refuse_what_is_no_backup, path, step="looking at a backup", limit=self._file_seconds
            )
            folder = await self._threads.to_thread(_new_folder, step="making a folder", limit=self._file_seconds)
            try:
                again = folder / "again.jsonl"
                imported, exported = await restore(path, again)
                comparison = _Comparison(path, again)
                try:
                    while await self._threads.to_thread(
                        comparison.advance, step="comparing a backup", limit=self._file_seconds
                    ):
                        continue
                finally:
                    comparison.close()
            finally:
                # In a context of its own: the call's budget may be spent, and the folder must go all the same.
                await asyncio.shield(asyncio.create_task(self._remove(folder)))
        problems = [
            f"line {one['line']}: {one['error']}" for one in imported["failed"][:PROBLEMS_TOLD] if "line" in one
        ]
        problems += comparison.problems
        if not imported["completed"]:
            problems.append("the restore was cut short")
        return {
            "path": str(path),
            "ok": not problems,
            "facts": exported["facts"],
            "documents": exported["documents"],
            "expired": comparison.expired,
            "checksum": comparison.checksum,
            "problems": problems,
            "took_s": round(time.monotonic() - begun, 3),
        }

    async def _remove(self, folder: Path) -> None:
        forget_deadline()
        await self._threads.to_thread(shutil.rmtree, folder, True, step="removing a folder", limit=FOLDER_SECONDS)


class _Waiting(NamedTuple):
    """An entry whose other half has not come yet, or never will."""

    number: int
    digest: bytes
    expired: bool


class _Comparison:
    """Compares the entries of two files by what they are called, some at a time.

    Both have the same order. Where one lacks an entry they are no longer side by side: what is read too early waits.
    """

    def __init__(self, path: Path, again: Path) -> None:
        self.problems: list[str] = []
        self.expired = 0
        self._digest = hashlib.sha256()
        self._paths = path, again
        self._files: list[Iterator[bytes]] = []
        self._old: dict[_Name, _Waiting] = {}
        self._new: dict[_Name, _Waiting] = {}
        self._ahead: bytes | None = None
        self._number = 0

    @property
    def checksum(self) -> str:
        """SHA-256 of the entries that were restored, in hexadecimal."""
        return self._digest.hexdigest()

    def advance(self) -> bool:
        """Compares the next entries; returns whether there were any. Takes a thread."""
        if not self._files:
            self._files = [_entries(path) for path in self._paths]
            self._ahead = next(self._files[1], None)
        some = list(islice(self._files[0], LINES_AT_ONCE))
        for old in some:
            self._number += 1
            self._compare(old)
        for _ in range(0 if some else LINES_AT_ONCE):
            self._take_new()
        if not some and self._ahead is None:
            self._end()
            return False
        return True

    def close(self) -> None:
        """Closes both files."""
        for file in self._files:
            with suppress(RuntimeError):
                file.close()  # type: ignore[attr-defined]

    def _compare(self, old: bytes) -> None:
        name, new = _name(old), self._ahead
        if new is not None and _name(new) == name:
            self._step()
            if old != new and _read(old, self._number).digest != _read(new, 0).digest:
                self._tell(self._number, name, DIFFERENT)
            return
        waiting = _read(old, self._number)
        if name in self._new:
            self._meet(name, waiting, self._new.pop(name))
            return
        self._old[name] = waiting
        # What has expired is missing rightly, and holds nothing up.
        if not waiting.expired:
            self._take_new()

    def _take_new(self) -> None:
        if self._ahead is None:
            return
        name, waiting = _name(self._ahead), _read(self._ahead, 0)
        self._step()
        if name in self._old:
            self._meet(name, self._old.pop(name), waiting)
        else:
            self._new[name] = waiting

    def _step(self) -> None:
        assert self._ahead is not None
        self._digest.update(self._ahead)
        self._ahead = next(self._files[1], None)

    def _meet(self, name: _Name, old: _Waiting, new: _Waiting) -> None:
        if old.digest != new.digest:
            self._tell(old.number, name, DIFFERENT)

    def _end(self) -> None:
        for name, old in self._old.items():
            if old.expired:
                self.expired += 1
            else:
                self._tell(old.number, name, "was not restored")
        for name in self._new:
            self._tell(0, name, "is more than what is in the file")

    def _tell(self, number: int, name: _Name, what: str) -> None:
        if len(self.problems) < PROBLEMS_TOLD:
            kind, namespace, own = name
            place = f"entry {number}" if number else "an entry"
            self.problems.append(f"{place} ({kind} {own[:64]} of {namespace}) {what}")


def _refuse_what_is_no_backup(path: Path) -> None:
    try:
        # Opening a pipe must not wait for its writer.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidInputError("path", f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise InvalidInputError("path", "is no valid path") from None
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise InvalidInputError("path", "is no regular file")
    with open(opened, "rb", buffering=0) as file:
        compression = compression_in(file.read(LONGEST_MAGIC))
        file.seek(0)
        with unpacked(file, compression, os.fstat(opened).st_size) as stream:
            beginning = stream.read(len(HEADER))
    if beginning != HEADER:
        raise InvalidInputError("path", "is no backup: it must be JSON Lines that begin with a header")


def _new_folder() -> Path:
    try:
        # Short, for the name of the socket in it.
        return Path(tempfile.mkdtemp(prefix="kb-"))
    except OSError as error:
        raise InvalidInputError("path", f"there is no room for a test: {error.strerror}") from None


def _entries(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        compression = compression_in(file.read(LONGEST_MAGIC))
        file.seek(0)
        with unpacked(file, compression, path.stat().st_size) as stream:
            for line in stream:
                if not line.startswith(tuple(f'{{"kind":"{kind}"'.encode() for kind in NOT_COMPARED)):
                    yield line


def _name(line: bytes) -> _Name:
    found = NAMED.match(line)
    if found is not None:
        kind, namespace, own = (part.decode() for part in found.groups())
        return kind, namespace, own
    entry = _parsed(line)
    return str(entry.get("kind")), str(entry.get("namespace")), str(entry.get("id"))


def _read(line: bytes, number: int) -> _Waiting:
    entry = _parsed(line)
    for holder in (entry, entry.get("document")):
        if isinstance(holder, dict):
            for field in MADE_ANEW:
                holder.pop(field, None)
    digest = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).digest()
    return _Waiting(number, digest, _has_expired(entry.get("expires_at")))


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    # The import has named it already.
    return entry if isinstance(entry, dict) else {"unreadable": hashlib.sha256(line).hexdigest()}


def _has_expired(expires_at: Any) -> bool:
    try:
        return bool(datetime.fromisoformat(expires_at) <= datetime.now(UTC))
    except (TypeError, ValueError, OverflowError):
        return False
