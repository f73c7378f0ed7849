"""Files that are damaged, made to hurt, half written or in the way."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from knowledge_base.admin.transfer import export_file, importer
from knowledge_base.admin.transfer.export_file import ExportFile
from knowledge_base.errors import InvalidInputError, UnavailableError
from tests.support.facts import ids
from tests.support.many_facts import populate
from tests.support.transfer_files import fill, plain, write_lines

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.conftest import OpenKnowledgeBase
    from tests.support.control import Control

FACTS = 900


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_file, "BLOCK", 20_000)


class StoppedError(Exception):
    """Stands for whatever ends a process."""


def stop_after(monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
    """Ends the export when so many blocks are written."""
    written = 0
    end_block = ExportFile._end_block

    def end(self: ExportFile) -> None:
        nonlocal written
        if written == blocks:
            os.write(self._file, b"half a block")
            raise StoppedError
        written += 1
        end_block(self)

    monkeypatch.setattr(ExportFile, "_end_block", end)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Lets no file of this process grow beyond a size, as a full disk would."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
async def test_interrupted_export_goes_on_and_gives_the_same_bytes(
    stub_kb: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None, suffix: str
) -> None:
    await populate(stub_kb, FACTS)
    await fill(stub_kb)
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"path{suffix}"
    await stub_kb.export_all_data(whole, include_vectors=True)
    with monkeypatch.context() as stopping:
        stop_after(stopping, 3)
        with pytest.raises(StoppedError):
            await stub_kb.export_all_data(path, include_vectors=True)
    assert not path.exists()
    read: list[float] = []
    pages = stub_kb._services._collaborators.transfer.exporter._pages  # type: ignore[union-attr]
    walk = pages.pages

    def noted(*args: Any, **named: Any) -> Any:
        read.append(args[2])
        return walk(*args, **named)

    monkeypatch.setattr(pages, "pages", noted)

    report = await stub_kb.export_all_data(path, include_vectors=True)

    assert path.read_bytes() == whole.read_bytes()
    assert (report["facts"], report["documents"]) == (FACTS + 6, 1)
    assert read[0] > 0, "it began anew"
    assert set(os.listdir(tmp_path)) == {whole.name, path.name}


async def test_partial_file_that_was_changed_is_begun_anew(
    stub_kb: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None
) -> None:
    await populate(stub_kb, FACTS)
    whole, path = tmp_path / "whole", tmp_path / "path"
    await stub_kb.export_all_data(whole)
    with monkeypatch.context() as stopping:
        stop_after(stopping, 3)
        with pytest.raises(StoppedError):
            await stub_kb.export_all_data(path)
    partial = tmp_path / ".path.partial"
    partial.write_bytes(b"X" + partial.read_bytes()[1:])

    await stub_kb.export_all_data(path)

    assert path.read_bytes() == whole.read_bytes()


async def test_partial_file_of_other_options_is_begun_anew(
    stub_kb: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None
) -> None:
    await populate(stub_kb, FACTS)
    with monkeypatch.context() as stopping:
        stop_after(stopping, 3)
        with pytest.raises(StoppedError):
            await stub_kb.export_all_data(tmp_path / "path", include_vectors=True)

    await stub_kb.export_all_data(tmp_path / "path")
    await stub_kb.export_all_data(tmp_path / "whole")

    assert (tmp_path / "path").read_bytes() == (tmp_path / "whole").read_bytes()


async def test_cancelled_export_leaves_the_old_file_and_nothing_open(
    stub_kb: KnowledgeBase, tmp_path: Path, small_blocks: None
) -> None:
    await populate(stub_kb, FACTS)
    path = tmp_path / "path"
    path.write_text("old")
    begun = asyncio.Event()
    before = len(os.listdir("/proc/self/fd"))
    export = asyncio.create_task(stub_kb.export_all_data(path, include_vectors=True, progress=lambda *_: begun.set()))
    await begun.wait()

    export.cancel()

    with pytest.raises(asyncio.CancelledError):
        await export
    assert path.read_text() == "old"
    assert len(os.listdir("/proc/self/fd")) <= before + 1


async def test_full_disk_leaves_the_old_file_and_the_same_call_goes_on(
    stub_kb: KnowledgeBase, tmp_path: Path, small_blocks: None
) -> None:
    await populate(stub_kb, FACTS)
    path = tmp_path / "path"
    path.write_text("old")
    with file_size_limit(150_000), pytest.raises(UnavailableError, match="make room"):
        await stub_kb.export_all_data(path)
    assert path.read_text() == "old"

    await stub_kb.export_all_data(path)

    assert len(path.read_text().splitlines()) == FACTS + 2


async def test_two_exports_to_one_file_do_not_meet(stub_kb: KnowledgeBase, tmp_path: Path) -> None:
    await populate(stub_kb, FACTS)

    outcomes = await asyncio.gather(
        *(stub_kb.export_all_data(tmp_path / "path") for _ in range(2)), return_exceptions=True
    )

    refused = [outcome for outcome in outcomes if isinstance(outcome, InvalidInputError)]
    assert len(refused) <= 1
    assert all("another export" in str(error) for error in refused)
    assert len((tmp_path / "path").read_text().splitlines()) == FACTS + 2


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "no folder"])
async def test_export_writes_to_regular_files_only(stub_kb: KnowledgeBase, tmp_path: Path, kind: str) -> None:
    await stub_kb.store_fact("one")
    path, other = tmp_path / "path", tmp_path / "other"
    other.write_text("untouched")
    if kind == "link":
        path.symlink_to(other)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = tmp_path / "none" / "path"

    with pytest.raises(InvalidInputError) as refused:
        await stub_kb.export_all_data(path)

    assert refused.value.field == "path"
    assert other.read_text() == "untouched"


async def test_partial_file_that_is_a_link_is_not_followed(stub_kb: KnowledgeBase, tmp_path: Path) -> None:
    await stub_kb.store_fact("one")
    (tmp_path / "other").write_text("untouched")
    (tmp_path / ".path.partial").symlink_to(tmp_path / "other")

    with pytest.raises(InvalidInputError):
        await stub_kb.export_all_data(tmp_path / "path")

    assert (tmp_path / "other").read_text() == "untouched"


async def test_facts_that_are_there_all_the_while_are_in_the_file_once(
    stub_kb: KnowledgeBase, tmp_path: Path, small_blocks: None
) -> None:
    kept = set(await populate(stub_kb, FACTS))
    is_over = False

    async def write() -> None:
        number = 0
        while not is_over:
            number += 1
            await stub_kb.store_fact(f"new {number}", fact_id=f"n{number}", wait_indexed=False)
            await stub_kb.update_fact(f"f{number % FACTS}", metadata={"touched": number})
            await stub_kb.update_fact(f"f{(number * 7) % FACTS}", content=f"new content {number}")
            await stub_kb.delete_fact(f"n{number - 1}")

    writers = [asyncio.create_task(write())]
    try:
        for turn in range(3):
            await stub_kb.export_all_data(tmp_path / f"path{turn}", include_vectors=True)
    finally:
        is_over = True
        await asyncio.gather(*writers)

    for turn in range(3):
        entries = [json.loads(line) for line in (tmp_path / f"path{turn}").read_text().splitlines()][1:-1]
        names = [entry["id"] for entry in entries]
        assert len(names) == len(set(names))
        assert kept <= set(names)
        # Passages are those of the content that they stand with.
        assert all(part["text"] == entry["content"] for entry in entries for part in entry["passages"])


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("format_name", ["jsonl", "csv", "markdown"])
@pytest.mark.parametrize("damage", ["cut", "changed", "line gone", "no trailer", "more behind"])
async def test_damaged_file_is_refused_as_a_whole(
    stub_kb: KnowledgeBase, control: Control, namespace: str, tmp_path: Path, format_name: Any, suffix: str, damage: str
) -> None:
    for number in range(5):
        await stub_kb.store_fact(f"content number {number}", namespace=f"{namespace}-source")
    path = tmp_path / f"file{suffix}"
    await stub_kb.export_all_data(path, format=format_name, namespace=f"{namespace}-source")
    path.write_bytes(_damaged(path, damage))

    with pytest.raises(InvalidInputError) as refused:
        await stub_kb.import_data(path)

    assert refused.value.field == "path"
    assert control.keys(stub_kb.settings.namespace) == set()


def _damaged(path: Path, damage: str) -> bytes:
    raw, text = path.read_bytes(), plain(path)
    if damage == "cut":
        return raw[: len(raw) * 2 // 3]
    lines = text.splitlines(keepends=True)
    trailer = max(at for at, line in enumerate(lines) if b"trailer" in line)
    changed = {
        "changed": text.replace(b"number 3", b"number 9"),
        "line gone": b"".join(line for line in lines if b"number 3" not in line),
        "no trailer": b"".join(lines[:trailer]),
        "more behind": text + lines[trailer - 1] + b"more\n",
    }[damage]
    if path.suffix == ".gz":
        return gzip.compress(changed)
    return zstandard.ZstdCompressor().compress(changed) if path.suffix == ".zst" else changed


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
async def test_file_that_unpacks_to_far_too_much_is_refused(
    stub_kb: KnowledgeBase, control: Control, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"bomb{suffix}"
    held = b'{"content": "x"}\n' + (b" " * 999_999 + b"\n") * 100
    path.write_bytes(gzip.compress(held) if suffix == ".gz" else zstandard.ZstdCompressor().compress(held))

    with pytest.raises(InvalidInputError, match="times its size"):
        await stub_kb.import_data(path)

    assert control.keys(stub_kb.settings.namespace) == set()


async def test_line_that_is_too_long_is_reported_alone(
    stub_kb: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "longest_entry", lambda limits: 100_000)
    path = tmp_path / "long.jsonl"
    long = b'{"content": "' + b"x" * 5_000_000 + b'"}\n'
    path.write_bytes(b'{"content": "a", "id": "a"}\n' + long + b'{"content": "b", "id": "b"}\n')

    result = await stub_kb.import_data(path)

    assert [(failure["line"], failure["error"]) for failure in result["failed"]] == [
        (2, "entry: is longer than 100000 bytes")
    ]
    assert await ids(stub_kb) == {"a", "b"}


async def test_magic_bytes_win_over_the_name(stub_kb: KnowledgeBase, tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl.zst"
    path.write_bytes(gzip.compress(b'{"content": "a", "id": "a"}\n'))

    assert (await stub_kb.import_data(path))["succeeded"] == 1


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "empty", "binary", "header of later version"])
async def test_what_cannot_be_imported_is_refused(stub_kb: KnowledgeBase, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "empty":
        path.write_bytes(b"\n\n")
    elif kind == "binary":
        path.write_bytes(bytes(range(256)) * 100)
    elif kind.startswith("header"):
        write_lines(path, {"kind": "header", "format": "knowledge_base", "format_version": 99})

    with pytest.raises(InvalidInputError) as refused:
        await stub_kb.import_data(path)

    assert refused.value.field == "path"


async def test_interrupted_import_goes_on_and_counts_all(
    open_kb: OpenKnowledgeBase, namespace: str, tmp_path: Path, control: Control
) -> None:
    kb, other = open_kb(), open_kb(namespace=f"{namespace}-other")
    await populate(kb, FACTS)
    await kb.export_all_data(tmp_path / "file", include_vectors=True)
    begun = asyncio.Event()
    importing = asyncio.create_task(other.import_data(tmp_path / "file", progress=lambda *_: begun.set()))
    await begun.wait()
    importing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await importing
    assert [key for key in control.keys(f"{namespace}-other") if ":import:" in key]
    done: list[int] = []

    result = await other.import_data(
        tmp_path / "file", on_conflict="skip", progress=lambda count, _: done.append(count)
    )

    assert (result["processed"], result["failed"], result["completed"]) == (FACTS, [], True)
    assert result["succeeded"] + result["duplicates"] == FACTS
    assert done[0] > 256, "it began anew"
    assert (await other.get_stats())["facts"] == FACTS
    assert not [key for key in control.keys(f"{namespace}-other") if ":import:" in key]
    again = await kb.export_all_data(tmp_path / "again", namespace=f"{namespace}-other", include_vectors=True)
    assert again["facts"] == FACTS
    assert _entries(tmp_path / "again", f"{namespace}-other") == _entries(tmp_path / "file", namespace)


async def test_import_outlasts_a_server_that_restarts(
    new_server: Any, open_kb: OpenKnowledgeBase, namespace: str, tmp_path: Path
) -> None:
    server = new_server(fsync="always").start()
    kb, other = open_kb(), open_kb(redis_url=server.url)
    await populate(kb, FACTS)
    await kb.export_all_data(tmp_path / "file", include_vectors=True)
    restarts: list[asyncio.Future[Any]] = []

    def restart_once(*_: int) -> None:
        if not restarts:
            server.kill()
            restarts.append(asyncio.get_running_loop().run_in_executor(None, server.start))

    result = await other.import_data(tmp_path / "file", progress=restart_once)

    await restarts[0]
    assert (result["processed"], result["succeeded"], result["completed"]) == (FACTS, FACTS, True)
    assert (await other.get_stats())["facts"] == FACTS


async def test_import_that_is_out_of_time_goes_on_with_the_next_call(
    open_kb: OpenKnowledgeBase, namespace: str, tmp_path: Path
) -> None:
    kb, other = open_kb(), open_kb(namespace=f"{namespace}-other")
    await populate(kb, FACTS)
    await kb.export_all_data(tmp_path / "file", include_vectors=True)

    budget, interruptions, completed = 0.02, 0, False
    while not completed:
        # Out of time, or the thread of the call before is busy still.
        with suppress(UnavailableError):
            completed = (await other.import_data(tmp_path / "file", timeout=budget))["completed"]
        interruptions += not completed
        budget *= 1.2

    assert interruptions
    assert (await other.get_stats())["facts"] == FACTS


def _entries(path: Path, namespace: str) -> list[str]:
    return [line.replace(f'"{namespace}"', '""') for line in path.read_text().splitlines()[1:-1]]
