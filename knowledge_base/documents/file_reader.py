"""Reads the bytes of files in threads, each read in bounded time."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from knowledge_base.connection.worker_threads import WorkerThreads
from knowledge_base.documents.unreadable import UnreadableFileError
from knowledge_base.errors import OperationTimeoutError

CHUNK_BYTES = 8 * 1024 * 1024
"""Read at a time, within the limit of one read."""

READERS = 4
WAITING = 256
STEP = "the read of a file"

_CHANGED = "was changed while it was read; try again"
Result = TypeVar("Result")


class FileFingerprint(NamedTuple):
    """What tells cheaply whether a file has changed.

    Attributes:
        size: In bytes.
        modified: When it was last written, in seconds since 1970; whoever writes can set it back.
        changed: When it or anything about it was last changed.
        inode: Its number on its disk.
    """

    size: int
    modified: float
    changed: float
    inode: int


class FileContent(NamedTuple):
    """A file as it was read.

    Attributes:
        data: Its bytes.
        content_hash: Their SHA-256 in hexadecimal digits.
        fingerprint: Its size, its times and its number.
    """

    data: bytes
    content_hash: str
    fingerprint: FileFingerprint


class FileReader:
    """Reads files that may lie on a slow or hanging disk.

    Args:
        file_seconds: How long one read may take.
        max_bytes: How large a file may be.
    """

    def __init__(self, *, file_seconds: float, max_bytes: int) -> None:
        self._seconds = file_seconds
        self._max_bytes = max_bytes
        self._threads = WorkerThreads("file", threads=READERS, waiting=WAITING, yielding=True)

    async def fingerprint(self, path: Path) -> FileFingerprint:
        """Returns size, times and number of a regular file.

        Args:
            path: The file.

        Raises:
            UnreadableFileError: There is no such file, or it is too large.
        """
        return await self._in_thread(self._checked_fingerprint, path)

    async def read(self, path: Path, root: Path | None = None) -> FileContent:
        """Reads a regular file.

        Args:
            path: The file.
            root: A folder that the file must lie in after all links.

        Raises:
            UnreadableFileError: It cannot be read, is too large, lies outside, or changed meanwhile.
        """
        digest = hashlib.sha256()
        chunks: list[bytes] = []
        first: os.stat_result | None = None
        size = 0
        while True:
            # No handle outlives a read, so an abandoned one leaves nothing open; the next read looks at whether
            # it is still the same file.
            status, chunk = await self._in_thread(self._read_chunk, path, root, size)
            if first is not None and not _is_unchanged(first, status):
                raise UnreadableFileError(_CHANGED)
            first = status
            if chunk:
                await self._in_thread(digest.update, chunk)
                chunks.append(chunk)
                size += len(chunk)
            if size >= status.st_size or not chunk:
                break
        if size != status.st_size:
            raise UnreadableFileError(_CHANGED)
        data = chunks[0] if len(chunks) == 1 else await self._in_thread(b"".join, chunks)
        return FileContent(data, digest.hexdigest(), _fingerprint(status))

    async def close(self, within: float) -> None:
        """Ends the threads.

        Args:
            within: Seconds to wait at most for those that are busy.
        """
        self._threads.close()
        await self._threads.wait_closed(within)

    async def _in_thread(self, function: Callable[..., Result], *args: object) -> Result:
        try:
            return await self._threads.to_thread(function, *args, step=STEP, limit=self._seconds)
        except OperationTimeoutError as error:
            if error.operation != STEP:
                raise
            raise UnreadableFileError(
                f"took longer than {self._seconds:.3g} s to read from its disk", limit=self._seconds
            ) from None

    def _checked_fingerprint(self, path: Path) -> FileFingerprint:
        try:
            status = os.stat(path)
        except (OSError, ValueError) as error:
            raise _refusal(error) from None
        self._check(status)
        return _fingerprint(status)

    def _read_chunk(self, path: Path, root: Path | None, offset: int) -> tuple[os.stat_result, bytes]:
        try:
            # Opening a pipe waits for its other end, and a device may act on being opened.
            self._check(os.stat(path))
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            try:
                status = os.fstat(handle)
                self._check(status)
                if root is not None:
                    _check_inside(path, root, status)
                left = min(CHUNK_BYTES, status.st_size - offset)
                chunk = os.pread(handle, left, offset) if left > 0 else b""
            finally:
                os.close(handle)
        except (OSError, ValueError) as error:
            if isinstance(error, UnreadableFileError):
                raise
            raise _refusal(error) from None
        return status, chunk

    def _check(self, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            raise UnreadableFileError("is a folder")
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableFileError("is no regular file")
        if status.st_size > self._max_bytes:
            raise UnreadableFileError(f"is larger than {self._max_bytes:,} bytes", limit=self._max_bytes)


def _fingerprint(status: os.stat_result) -> FileFingerprint:
    return FileFingerprint(status.st_size, status.st_mtime, status.st_ctime, status.st_ino)


def _is_unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    was, now = [(one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in (before, after)]
    return os.path.samestat(before, after) and was == now


def _check_inside(path: Path, root: Path, opened: os.stat_result) -> None:
    # The file that is open now, not the one that the folder showed a while ago.
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)) or not os.path.samestat(os.lstat(real), opened):
        raise UnreadableFileError("is a link that leads out of the folder")


def _refusal(error: OSError | ValueError) -> UnreadableFileError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return UnreadableFileError("does not exist")
    if isinstance(error, PermissionError):
        return UnreadableFileError("may not be read by this user")
    if isinstance(error, OSError):
        return UnreadableFileError(f"cannot be opened or read: {error.strerror}")
    return UnreadableFileError("is no valid path")
