"""Files on disks that hang, and files that change under the hand, are reported."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from knowledge_base.documents import file_reader
from knowledge_base.documents.file_reader import FileReader
from knowledge_base.documents.unreadable import UnreadableFileError

CONTENT = bytes(range(256)) * 40


@pytest.fixture
async def reader(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FileReader]:
    monkeypatch.setattr(file_reader, "CHUNK_BYTES", 1000)
    reader = FileReader(file_seconds=20, max_bytes=100_000)
    yield reader
    await reader.close(10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


async def test_file_is_read_in_pieces_and_hashed(reader: FileReader, path: Path) -> None:
    found = await reader.read(path)

    assert found.data == CONTENT
    assert found.content_hash == hashlib.sha256(CONTENT).hexdigest()
    assert found.fingerprint == await reader.fingerprint(path)


async def test_empty_file_is_read(reader: FileReader, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    assert (await reader.read(tmp_path / "empty")).data == b""


@pytest.mark.parametrize("change", ["grows", "shrinks", "is replaced", "is removed"])
async def test_file_that_changes_meanwhile_is_reported(
    reader: FileReader, path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pread

    def pread(handle: int, size: int, offset: int) -> bytes:
        data = real(handle, size, offset)
        if offset == 2000:
            if change == "grows":
                path.write_bytes(CONTENT * 2)
            elif change == "shrinks":
                os.truncate(path, 10)
            else:
                path.unlink()
                if change == "is replaced":
                    path.write_bytes(bytes(len(CONTENT)))
        return data

    monkeypatch.setattr(os, "pread", pread)

    with pytest.raises(UnreadableFileError, match="does not exist" if change == "is removed" else "was changed"):
        await reader.read(path)


async def test_disk_that_hangs_is_reported_in_time_and_others_are_read(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = FileReader(file_seconds=0.5, max_bytes=100_000)
    freed = threading.Event()
    other = tmp_path / "other"
    other.write_bytes(b"text")
    real = os.pread

    def pread(handle: int, size: int, offset: int) -> bytes:
        if os.fstat(handle).st_size == len(CONTENT):
            freed.wait(60)
        return real(handle, size, offset)

    monkeypatch.setattr(os, "pread", pread)

    with pytest.raises(UnreadableFileError, match=r"longer than 0\.5 s") as caught:
        await reader.read(path)

    assert caught.value.limit == 0.5
    assert (await reader.read(other)).data == b"text"
    freed.set()
    await reader.close(10)


async def test_many_files_are_read_at_once(reader: FileReader, path: Path) -> None:
    found = await asyncio.gather(*(reader.read(path) for _ in range(50)))

    assert {content.data for content in found} == {CONTENT}
