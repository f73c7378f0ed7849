"""The file that an import reads: first as a whole, to see that it is sound, then entry by entry."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from knowledge_base.admin.transfer.compression import (
    LONGEST_MAGIC,
    DamagedFileError,
    compression_in,
    unpacked,
)
from knowledge_base.admin.transfer.formats import BYTE_ORDER_MARK, format_of
from knowledge_base.admin.transfer.line_format import (
    FORMAT,
    FORMAT_VERSION,
    RECORD_TICK,
    TICK,
    BadEntryError,
    Line,
    TransferFormat,
)
from knowledge_base.errors import InvalidInputError, KnowledgeBaseError

Result = TypeVar("Result")

READ_AT_ONCE = 1_000_000
LINES_AT_ONCE = 10_000
"""Bytes, unpacked, and lines that one step reads."""

SNIFFED = 65_536
BATCH_RECORDS = 256
BATCH_BYTES = 1_000_000
"""What is imported together; one entry may have more."""


class Survey(NamedTuple):
    """What a file is."""

    header: dict[str, Any] | None
    """Its first entry; None for a plain file, which has neither header nor trailer."""
    records: int
    """Entries, those that cannot be read included, header and trailer not."""
    digest: str
    """SHA-256 of all of it, unpacked."""


class RawEntry(NamedTuple):
    """An entry, or why there is none."""

    line: int
    entry: dict[str, Any]
    problem: str | None = None


class ImportFile:
    """A file to be read; all methods block, and threads call them.

    Args:
        path: The file.
        most: Bytes that an entry may have.
        most_values: Values that the JSON of an entry may hold, those within others included.
    """

    def __init__(self, path: Path, most: int, most_values: int) -> None:
        self._most = most
        self._most_values = most_values
        self._file = self._open(path)
        self._stat = os.fstat(self._file)
        self._compression = compression_in(os.pread(self._file, LONGEST_MAGIC, 0))
        self._stream: BinaryIO | None = None
        self._lock = threading.Lock()
        self._given_up = False

    def next_of(self, steps: Iterator[Result], default: Result) -> Result:
        """Takes one step of ``survey`` or ``batches``.

        Args:
            steps: What one of them gave.
            default: Returned at the end.

        Raises:
            DamagedFileError: The file is cut off, was changed, or cannot be unpacked.
            InvalidInputError: It is no transfer file, or one of a later version.
        """
        with self._lock:
            if self._given_up:
                raise KnowledgeBaseError("the import was given up")
            try:
                return next(steps, default)
            except OSError as error:
                raise InvalidInputError("path", f"cannot be read: {os.strerror(error.errno or 0)}") from error
            finally:
                if self._given_up:
                    self._close()

    def survey(self) -> Iterator[Survey | None]:
        """Reads the file as a whole; yields None with each step, and the survey with the last one."""
        sums = _Sums()
        line_format, lines = self._lines(sums)
        sums.line_format = line_format
        header: dict[str, Any] | None = None
        count = 0
        try:
            for record in line_format.records(lines, self._most):
                if record is RECORD_TICK:
                    yield None
                    continue
                count += 1
                if count == 1:
                    header = _header_in(line_format, record.data)
        except BadEntryError as error:
            raise InvalidInputError("path", str(error)) from None
        if not count:
            raise InvalidInputError("path", "holds no entries")
        if header is not None:
            sums.refuse_damage(line_format)
            count -= 2
        yield Survey(header, count, sums.digest)

    def batches(self, wanted: Container[int] | None = None) -> Iterator[list[RawEntry] | None]:
        """Yields the entries, some at a time, header and trailer left out; lists may be empty.

        Args:
            wanted: The lines of those that are read; None for all.
        """
        line_format, lines = self._lines(None)
        batch: list[RawEntry] = []
        size = 0
        for record in line_format.records(lines, self._most):
            if record is not RECORD_TICK and (wanted is None or record.number in wanted):
                raw = self._decoded(line_format, record.number, record.data)
                if raw.entry.get("kind") not in ("header", "trailer"):
                    batch.append(raw)
                    size += len(record.data or b"")
            if record is RECORD_TICK or len(batch) >= BATCH_RECORDS or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        now = os.fstat(self._file)
        if (now.st_size, now.st_mtime_ns) != (self._stat.st_size, self._stat.st_mtime_ns):
            raise DamagedFileError("was changed while it was imported; what came before is there, import it again")
        yield batch

    def close(self) -> None:
        """Closes the file, at once or when the step under way in another thread ends."""
        self._given_up = True
        if self._lock.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._lock.release()

    def _decoded(self, line_format: TransferFormat, number: int, data: bytes | None) -> RawEntry:
        if data is None:
            return RawEntry(number, {}, f"is longer than {self._most} bytes")
        try:
            return RawEntry(number, line_format.decoded(data, self._most_values))
        except BadEntryError as error:
            return RawEntry(number, {}, str(error))

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _lines(self, sums: _Sums | None) -> tuple[TransferFormat, Iterator[Line]]:
        if self._stream is not None:
            self._stream.close()
        file = open(os.dup(self._file), "rb", buffering=0)  # noqa: SIM115 - closed with its stream
        file.seek(0)
        stream = self._stream = unpacked(file, self._compression, self._stat.st_size)
        return format_of(stream.peek(SNIFFED)), _read_lines(stream, self._most, sums)

    @staticmethod
    def _open(path: Path) -> int:
        try:
            # Opening a pipe must not wait for its writer.
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidInputError("path", f"cannot be read: {os.strerror(error.errno or 0)}") from error
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise InvalidInputError("path", "is no regular file; it is read twice, which pipes do not allow")
        return file


class _Sums:
    """What is found out about a file while its lines go by."""

    def __init__(self) -> None:
        self.line_format: TransferFormat | None = None
        self._hash = hashlib.sha256()
        self._before_trailer = ""
        self._trailer: bytes | None = None

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def add(self, data: bytes, *, is_line: bool) -> None:
        if is_line and self.line_format is not None and self.line_format.is_trailer(data):
            self._before_trailer = self._hash.hexdigest()
            self._trailer = data
        elif data.strip():
            self._trailer = None
        self._hash.update(data)

    def refuse_damage(self, line_format: TransferFormat) -> None:
        if self._trailer is None or not self._trailer.endswith(b"\n"):
            raise DamagedFileError("is cut off: its trailer is missing")
        try:
            trailer = line_format.decoded(self._trailer)
        except BadEntryError as error:
            raise DamagedFileError(f"is damaged: its trailer {error}") from None
        if trailer.get("sha256") != self._before_trailer:
            raise DamagedFileError("is damaged, or was changed by hand: its checksum is another one")


def _read_lines(stream: BinaryIO, most: int, sums: _Sums | None) -> Iterator[Line]:
    number = size = 0
    while data := stream.readline(most + 1):
        number += 1
        size += len(data)
        if number == 1:
            data = data.removeprefix(BYTE_ORDER_MARK)
        is_whole = len(data) <= most
        if sums is not None:
            sums.add(data, is_line=is_whole)
        if not is_whole:
            yield from _skipped(stream, data, sums)
        yield Line(number, data if is_whole else None)
        if number % LINES_AT_ONCE == 0 or size >= READ_AT_ONCE:
            size = 0
            yield TICK


def _skipped(stream: BinaryIO, data: bytes, sums: _Sums | None) -> Iterator[Line]:
    while not data.endswith(b"\n") and (data := stream.readline(READ_AT_ONCE)):
        if sums is not None:
            sums.add(data, is_line=False)
        yield TICK


def _header_in(line_format: TransferFormat, data: bytes | None) -> dict[str, Any] | None:
    try:
        entry = {} if data is None else line_format.decoded(data)
    except BadEntryError:
        return None
    if entry.get("kind") != "header":
        return None
    if entry.get("format") != FORMAT or entry.get("format_version") != FORMAT_VERSION:
        raise InvalidInputError("path", f"is no {FORMAT} file of format version {FORMAT_VERSION}")
    return entry
