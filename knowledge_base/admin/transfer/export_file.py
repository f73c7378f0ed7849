"""The file that an export writes: beside its target, block by block, so that it can be gone on with."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from knowledge_base.admin.transfer.compression import Compression, DamagedFileError, compressed, unpacked
from knowledge_base.errors import InvalidInputError, KnowledgeBaseError, UnavailableError

BLOCK = 1_000_000
"""Bytes, before compression, after which a block ends and the journal is written."""

HASHED_AT_ONCE = 8_000_000
OWNER_ONLY = 0o600
JOURNAL_VERSION = 2
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

Place: TypeAlias = list[Any]
"""Where an export is, as JSON."""


class Written(NamedTuple):
    """A file that is done."""

    size: int
    checksum: str


def refuse_target(path: Path) -> None:
    """Refuses a path that an export must not write to.

    Args:
        path: The target.

    Raises:
        InvalidInputError: It is a symbolic link, a directory or another special file, or its folder does not exist.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise InvalidInputError("path", "its folder does not exist") from None
        return
    if stat.S_ISLNK(mode):
        raise InvalidInputError("path", "is a symbolic link; name the file itself")
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise InvalidInputError("path", f"is {kind}; name a file")


class ExportFile:
    """Collects lines, and moves the whole file into place when it is done. All methods block; threads call them.

    Beside the target stand, until then, ``.<name>.partial`` and ``.<name>.journal``. The journal says how far the
    partial file is whole; what an interrupted export has written after that is dropped and written again.

    Args:
        target: Where the file goes.
        compression: How it is compressed.
        options: Names what is exported and how; a partial file of other options is begun anew.
    """

    def __init__(self, target: Path, compression: Compression, options: str) -> None:
        self._target = target
        self._partial = target.with_name(f".{target.name}.partial")
        self._journal = target.with_name(f".{target.name}.journal")
        self._compression = compression
        self._options = options
        self._hash = hashlib.sha256()
        self._block = bytearray()
        self._size = 0
        self._expected = ""
        self._file = -1
        self._lock = threading.Lock()
        self._given_up = False

    def open(self) -> Place | None:
        """Opens the partial file.

        Returns:
            Where to go on, or None to begin.

        Raises:
            InvalidInputError: The target must not be written to, or another export is writing to it.
            UnavailableError: There is no room.
        """
        with self._step():
            refuse_target(self._target)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._partial, flags, OWNER_ONLY)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InvalidInputError("path", "another export is writing to it") from None
            os.fchmod(self._file, OWNER_ONLY)
            journal = self._read_journal()
            place: Place | None = None
            if journal is not None and os.fstat(self._file).st_size >= journal["size"]:
                self._size, self._expected, place = journal["size"], journal["checksum"], journal["place"]
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
        return place

    def recollect(self) -> Generator[None, None, None]:
        """Reads again what an earlier attempt has written, a piece with each step.

        Raises:
            DamagedFileError: It is not what the journal says; call ``begin_anew``.
        """
        with open(os.dup(self._file), "rb", buffering=0) as file:
            file.seek(0)
            stream = unpacked(file, self._compression, self._size)
            while True:
                with self._step():
                    piece = stream.read(HASHED_AT_ONCE)
                    self._hash.update(piece)
                if not piece:
                    break
                yield
        os.lseek(self._file, self._size, os.SEEK_SET)
        if self._hash.hexdigest() != self._expected:
            raise DamagedFileError("its partial file is not what its journal says")

    def begin_anew(self) -> None:
        """Drops what an earlier attempt has written."""
        with self._step():
            self._size = 0
            self._hash = hashlib.sha256()
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            self._journal.unlink(missing_ok=True)

    def add(self, entries: Iterable[bytes], place: Callable[[], Place]) -> None:
        """Adds entries.

        Args:
            entries: The lines of each.
            place: Says where the export is after the one that was taken last.

        Raises:
            UnavailableError: There is no room; what is written already is gone on with later.
        """
        with self._step():
            for lines in entries:
                self._block += lines
                if len(self._block) >= BLOCK:
                    self._end_block()
                    self._write_journal(place())

    def finish(self, trailer: Callable[[str], bytes]) -> Written:
        """Writes the trailer, and moves the file into place.

        Args:
            trailer: Makes the trailer of the checksum of all lines before it.

        Raises:
            InvalidInputError: The target must not be written to any more.
            UnavailableError: There is no room.
        """
        with self._step():
            before_trailer = self._hash.copy()
            before_trailer.update(self._block)
            checksum = before_trailer.hexdigest()
            self._block += trailer(checksum)
            self._end_block()
            os.fsync(self._file)
            refuse_target(self._target)
            os.replace(self._partial, self._target)
            self._journal.unlink(missing_ok=True)
            folder = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return Written(self._size, checksum)

    def close(self) -> None:
        """Closes the file, at once or when the step under way in another thread ends; what is partial stays."""
        self._given_up = True
        if self._lock.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._lock.release()

    @contextmanager
    def _step(self) -> Iterator[None]:
        with self._lock:
            if self._given_up:
                raise KnowledgeBaseError("the export was given up")
            try:
                yield
            except OSError as error:
                raise _explained(error, self._partial.name) from error
            finally:
                if self._given_up:
                    self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _end_block(self) -> None:
        block = bytes(self._block)
        self._block.clear()
        self._hash.update(block)
        data = memoryview(compressed(block, self._compression))
        self._size += len(data)
        while data:
            data = data[os.write(self._file, data) :]

    def _read_journal(self) -> dict[str, Any] | None:
        try:
            journal = json.loads(self._journal.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        if not isinstance(journal, dict) or journal.pop("sha256", None) != _digest(journal):
            return None
        known = journal.get("version") == JOURNAL_VERSION
        return journal if known and journal.get("options") == self._options else None

    def _write_journal(self, place: Place) -> None:
        journal = {
            "version": JOURNAL_VERSION,
            "options": self._options,
            "size": self._size,
            "checksum": self._hash.hexdigest(),
            "place": place,
        }
        new = self._journal.with_name(f"{self._journal.name}.new")
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, OWNER_ONLY)
        try:
            # One that is damaged must not be believed.
            os.write(file, json.dumps({**journal, "sha256": _digest(journal)}).encode())
        finally:
            os.close(file)
        os.replace(new, self._journal)


def _digest(journal: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(journal).encode()).hexdigest()


def _explained(error: OSError, partial: str) -> KnowledgeBaseError:
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    if error.errno in NO_ROOM:
        return UnavailableError(
            f"the export could not be written ({reason}); make room and call again to go on, or delete {partial!r}"
        )
    return InvalidInputError("path", f"cannot be written: {reason}")
