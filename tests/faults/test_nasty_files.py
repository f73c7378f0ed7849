"""Whatever lies in a folder is read or reported, and leaves neither processes nor memory behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from knowledge_base.documents.extraction import Extractor, UnreadableFileError
from knowledge_base.documents.files import RefusedFile, find_files
from tests.support.nasty_files import LARGE, NASTY, READ, Nasty, add_large, add_traps, made_in

MEGABYTE = 1024 * 1024
SECONDS = 20.0
GROWTH = 300 * MEGABYTE
"""Of our own process: two files of 50 MB and what is made of them."""


@pytest.fixture
async def extractor() -> AsyncIterator[Extractor]:
    extractor = Extractor(
        file_seconds=30, extraction_seconds=SECONDS, max_bytes=50_000_000, max_characters=10_000_000, processes=2
    )
    yield extractor
    await extractor.close(10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


async def outcome(extractor: Extractor, path: Path) -> str:
    try:
        extracted = await extractor.extract_file(path)
    except UnreadableFileError as error:
        return error.problem
    assert extracted.document.blocks
    return READ


def children() -> list[psutil.Process]:
    return list(psutil.Process().children(recursive=True))


@pytest.mark.parametrize("nasty", NASTY, ids=lambda nasty: nasty.name)
async def test_file_is_read_or_reported(nasty: Nasty, extractor: Extractor, folder: Path) -> None:
    path = folder / nasty.name
    path.write_bytes(nasty.content())

    found = await outcome(extractor, path)

    assert nasty.fits(found), found


@pytest.mark.timeout(400)
async def test_whole_corpus_fills_no_memory_and_leaves_no_process(
    extractor: Extractor, folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    made_in(folder)
    await asyncio.to_thread(add_large, folder)
    add_traps(folder, outside)
    before = children()
    idle = psutil.Process().memory_info().rss
    peak = 0

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, psutil.Process().memory_info().rss)
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    found = list(find_files(folder))
    files = [item for item in found if not isinstance(item, RefusedFile)]
    outcomes = dict(
        zip(
            (item.name for item in files),
            await asyncio.gather(*(outcome(extractor, item.path) for item in files)),
            strict=True,
        )
    )
    watching.cancel()
    started = time.monotonic()
    await extractor.close(5)

    assert time.monotonic() - started < 5
    assert children() == before
    assert peak - idle < GROWTH, f"{(peak - idle) / MEGABYTE:.0f} MB"
    expected = {nasty.name: nasty for nasty in NASTY} | {name: Nasty(name, bytes, fits) for name, fits in LARGE.items()}
    assert outcomes.keys() == expected.keys()
    assert {name: found for name, found in outcomes.items() if not expected[name].fits(found)} == {}


def test_traps_are_refused_one_by_one(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    reasons = add_traps(folder, outside)
    (folder / "sound.txt").write_text("sound")

    found = list(find_files(folder))

    refused = {item.name: item.reason for item in found if isinstance(item, RefusedFile)}
    assert [item.name for item in found if not isinstance(item, RefusedFile)] == ["sound.txt"]
    assert refused.keys() == reasons.keys()
    assert {name: reason for name, reason in refused.items() if reasons[name] not in reason} == {}
