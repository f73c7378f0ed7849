"""Compressed files: written block by block, so that a file can be gone on with, and read within bounds."""

from __future__ import annotations

import io
import zlib
from pathlib import PurePath
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias

from knowledge_base.errors import InvalidInputError, ServerRequirementError
from knowledge_base.heavy_imports import import_heavy

Compression: TypeAlias = Literal["none", "gzip", "zstd"]

SUFFIXES: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
LONGEST_MAGIC = 4

GZIP_LEVEL = 6
ZSTD_LEVEL = 3
WITH_GZIP_HEADER = 31

MOST_WINDOW = 2**26
"""Bytes of memory that a zstd file may ask for."""

FED_AT_ONCE = {"gzip": 16_384, "zstd": 1_024}
"""Compressed bytes that are taken at a time: these give 17 and 32 MB at most."""

MOST_RATIO = 200
SMALL = 20_000_000
"""A file may give so many times its size, and so many bytes in any case; more is a bomb."""


class DamagedFileError(InvalidInputError):
    """A file cannot be read to its end, or does not say what was written into it."""

    def __init__(self, problem: str) -> None:
        super().__init__("path", problem)

    def __reduce__(self) -> tuple[object, ...]:
        return DamagedFileError, (self.problem,)


def compression_of(path: PurePath) -> Compression:
    """Returns how a file of this name is compressed.

    Args:
        path: Its name.
    """
    return SUFFIXES.get(path.suffix.lower(), "none")


def compression_in(beginning: bytes) -> Compression:
    """Returns how a file is compressed that begins like this.

    Args:
        beginning: Its first bytes, ``LONGEST_MAGIC`` of them where it has so many.
    """
    for magic, compression in MAGIC.items():
        if beginning.startswith(magic):
            return compression
    return "none"


def compressed(block: bytes, compression: Compression) -> bytes:
    """Returns a block that stands for itself; blocks after one another make a valid file.

    The bytes depend on the block alone, so that going on with a file gives what writing it at once would have given.

    Args:
        block: The bytes.
        compression: How to compress them.
    """
    if compression == "gzip":
        packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, WITH_GZIP_HEADER)
        return packer.compress(block) + packer.flush()
    if compression == "zstd":
        packed: bytes = _zstandard().ZstdCompressor(level=ZSTD_LEVEL).compress(block)
        return packed
    return block


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class Unpacked(io.RawIOBase):
    """What a compressed file holds, as a stream; of several blocks one after the other.

    Args:
        file: The file.
        compression: How it is compressed.
        most: Bytes that it may hold.

    Raises:
        DamagedFileError: While reading: it ends early, is no such file, or holds more than that.
    """

    def __init__(self, file: BinaryIO, compression: Compression, most: int) -> None:
        self._file = file
        self._compression = compression
        self._left = most
        self._unpacker: _Unpacker | None = None
        self._fed = b""
        self._ready = b""

    def readable(self) -> bool:
        """Tells that it can be read."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fills a buffer, or a part of it.

        Args:
            buffer: The buffer.
        """
        while not self._ready:
            if not self._advance():
                return 0
        given = self._ready[: len(buffer)]
        self._ready = self._ready[len(given) :]
        buffer[: len(given)] = given
        return len(given)

    def close(self) -> None:
        """Closes the file as well."""
        self._file.close()
        super().close()

    def _advance(self) -> bool:
        fed = self._fed or self._file.read(FED_AT_ONCE[self._compression])
        self._fed = b""
        if not fed:
            if self._unpacker is not None:
                raise DamagedFileError(f"ends in the middle of its {self._compression} data")
            return False
        if self._unpacker is None:
            self._unpacker = _unpacker(self._compression)
        try:
            self._ready = self._unpacker.decompress(fed)
        except (zlib.error, _zstd_error(self._compression)) as error:
            raise DamagedFileError(f"is damaged: its {self._compression} data cannot be read") from error
        if self._unpacker.eof:
            self._fed = self._unpacker.unused_data
            self._unpacker = None
        self._left -= len(self._ready)
        if self._left < 0:
            raise DamagedFileError(f"holds more than {MOST_RATIO} times its size; it was made to fill memory or disk")
        return True


def unpacked(file: BinaryIO, compression: Compression, size: int) -> io.BufferedReader:
    """Returns what a file holds, as a buffered stream.

    Args:
        file: The file, at its beginning.
        compression: How it is compressed.
        size: Its size in bytes.
    """
    if compression == "none":
        return io.BufferedReader(file)  # type: ignore[arg-type]
    return io.BufferedReader(Unpacked(file, compression, size * MOST_RATIO + SMALL), 65_536)


def _unpacker(compression: Compression) -> _Unpacker:
    if compression == "gzip":
        return zlib.decompressobj(WITH_GZIP_HEADER)
    made: _Unpacker = _zstandard().ZstdDecompressor(max_window_size=MOST_WINDOW).decompressobj()
    return made


def _zstd_error(compression: Compression) -> type[Exception]:
    if compression != "zstd":
        return zlib.error
    error: type[Exception] = _zstandard().ZstdError
    return error


def _zstandard() -> Any:
    try:
        return import_heavy("zstandard")
    except ImportError as error:
        raise ServerRequirementError("zstd files need the package zstandard; pip install zstandard") from error
