"""Files are parsed in processes that are bounded in time and memory, reused, and gone in the end."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from knowledge_base.connection.deadline import deadline
from knowledge_base.documents import extraction, worker_process
from knowledge_base.documents.extraction import Extractor, UnreadableFileError
from knowledge_base.documents.worker import RETIRING_BYTES
from knowledge_base.errors import OperationTimeoutError, ServerRequirementError, UnavailableError
from tests.support.nasty_files import endless_pdf
from tests.support.polling import eventually

PAGE = "<h1>Machines</h1><p>They hum."


def an_extractor(*, extraction_seconds: float = 60.0, processes: int = 1) -> Extractor:
    return Extractor(
        file_seconds=20.0,
        extraction_seconds=extraction_seconds,
        max_bytes=1_000_000,
        max_characters=1_000_000,
        processes=processes,
    )


@pytest.fixture
async def extractor() -> AsyncIterator[Extractor]:
    extractor = an_extractor()
    yield extractor
    await extractor.close(10)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    path.write_text(PAGE)
    os.utime(path, (1_500_000_000.25, 1_500_000_000.25))
    return path


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    path = tmp_path / "endless.pdf"
    path.write_bytes(endless_pdf())
    return path


def children() -> list[psutil.Process]:
    """The workers of this process, which may have started a server as well."""
    return [child for child in psutil.Process().children(recursive=True) if is_worker(child)]


def is_worker(process: psutil.Process) -> bool:
    try:
        return any("knowledge_base" in word for word in process.cmdline())
    except psutil.Error:
        return False


@pytest.fixture
def worker_says(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets a worker run some code in place of its reader."""

    def says(code: str) -> None:
        stub = f"import knowledge_base.documents.worker as w\ndef read(data, request):\n {code}\nw.read_document = read"
        start = worker_process._START.replace("main()", f"exec({stub!r}); main()")
        monkeypatch.setattr(worker_process, "_START", start)

    return says


async def test_file_comes_with_its_blocks_hash_size_and_time(extractor: Extractor, page: Path) -> None:
    found = await extractor.extract_file(page)

    assert [(block.kind, block.text) for block in found.document.blocks] == [
        ("heading", "Machines"),
        ("paragraph", "They hum."),
    ]
    assert found.content_hash == hashlib.sha256(PAGE.encode()).hexdigest()
    status = os.stat(page)
    assert found.fingerprint == (len(PAGE), 1_500_000_000.25, status.st_ctime, status.st_ino)
    assert await extractor.fingerprint(page) == found.fingerprint


async def test_process_is_reused_and_no_more_than_allowed_are_started(page: Path) -> None:
    extractor = an_extractor(processes=2)
    seen: set[int] = set()

    for _ in range(3):
        await asyncio.gather(*(extractor.extract_file(page) for _ in range(5)))
        seen |= {child.pid for child in children()}

    assert len(seen) <= 2
    await extractor.close(10)
    assert children() == []


async def test_worn_process_is_replaced(extractor: Extractor, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "MAX_FILES", 2)

    pids = []
    for _ in range(4):
        await extractor.extract_file(page)
        pids.append([worker.process_id for worker in extractor._idle])

    assert pids[0] != []
    assert pids[1] == []
    assert pids[2] not in ([], pids[0])


async def test_process_is_reused_however_large_the_one_is_that_asks(extractor: Extractor, page: Path) -> None:
    # Read and written, so that it counts.
    large = bytearray(b"x") * (450 * 1024 * 1024)

    await extractor.extract_file(page)
    (first,) = (worker.process_id for worker in extractor._idle)
    await extractor.extract_file(page)

    assert [worker.process_id for worker in extractor._idle] == [first]
    assert len(large) > RETIRING_BYTES


async def test_idle_process_ends(extractor: Extractor, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "IDLE_SECONDS", 0.05)

    await extractor.extract_file(page)

    await eventually(lambda: children() == [])
    assert (await extractor.extract_file(page)).document.blocks


async def test_file_that_hangs_its_parser_is_reported_and_the_next_one_read(endless: Path, page: Path) -> None:
    extractor = an_extractor(extraction_seconds=2)

    with pytest.raises(UnreadableFileError, match="takes longer than 2 s") as caught:
        await extractor.extract_file(endless)

    assert caught.value.limit == 2
    await extractor.close(10)
    assert children() == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import ctypes; ctypes.string_at(0)", "crash"),
        ("bytearray(10**12)", "memory"),
        ("import os; os._exit(0)", "crash"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "too much memory"),
        ("raise OSError('secret content')", "OSError"),
        ("return read(data, request)", "RecursionError"),
        ("raise SystemExit", "crash"),
    ],
)
async def test_parser_that_fails_is_the_end_of_its_file_only(
    code: str,
    reason: str,
    extractor: Extractor,
    page: Path,
    worker_says: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker_says(code)
    with pytest.raises(UnreadableFileError, match=reason) as caught:
        await extractor.extract_file(page)
    monkeypatch.undo()

    found = await extractor.extract_file(page)

    assert "secret" not in str(caught.value)
    assert found.document.blocks


async def test_parser_that_prints_disturbs_nothing(
    extractor: Extractor, page: Path, worker_says: Callable[[str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    worker_says(
        "import os, sys; print('x' * 100_000); os.write(1, b'y'); print('e', file=sys.stderr); "
        "raise w.UnreadableFileError('is odd')"
    )

    with pytest.raises(UnreadableFileError, match="is odd"):
        await extractor.extract_file(page)

    assert capfd.readouterr() == ("", "")


async def test_missing_library_is_named_with_the_command_that_installs_it(
    extractor: Extractor, page: Path, worker_says: Callable[[str], None]
) -> None:
    worker_says("import nowhere_to_be_found")

    with pytest.raises(ServerRequirementError, match=r"nowhere_to_be_found.*pip install 'knowledge-base\[documents\]'"):
        await extractor.extract_file(page)


async def test_parser_sees_no_secret_of_the_environment_and_writes_no_file(
    extractor: Extractor,
    page: Path,
    tmp_path: Path,
    worker_says: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KB_LLM__API_KEY", "secret")
    worker_says(
        f"import os; raise w.UnreadableFileError('KB_LLM__API_KEY' in os.environ and 'sees' or 'sees nothing; ' + "
        f"str(open({str(tmp_path / 'made')!r}, 'wb', buffering=0).write(b'x')))"
    )

    with pytest.raises(UnreadableFileError, match="OSError"):
        await extractor.extract_file(page)


async def test_cancelled_caller_leaves_no_process_at_work(extractor: Extractor, endless: Path, page: Path) -> None:
    reading = asyncio.create_task(extractor.extract_file(endless))
    await eventually(children)

    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading

    await eventually(lambda: children() == [])
    assert (await extractor.extract_file(page)).document.blocks


async def test_deadline_of_the_call_ends_the_process_too(extractor: Extractor, endless: Path) -> None:
    with pytest.raises(OperationTimeoutError, match="add_document"):
        async with deadline("add_document", 1.0):
            await extractor.extract_file(endless)

    await eventually(lambda: children() == [])


async def test_closing_ends_a_hanging_parser_within_its_time(extractor: Extractor, endless: Path) -> None:
    reading = asyncio.create_task(extractor.extract_file(endless))
    await eventually(children)
    threads = {thread for thread in threading.enumerate() if thread.name.startswith("kb-")}
    started = time.monotonic()

    await extractor.close(5)

    assert time.monotonic() - started < 5
    with pytest.raises(UnavailableError, match="closed"):
        await reading
    assert children() == []
    assert threads
    assert not any(thread.is_alive() for thread in threads)


async def test_nothing_is_read_after_closing(extractor: Extractor, page: Path) -> None:
    await extractor.close(5)

    with pytest.raises(UnavailableError):
        await extractor.extract_file(page)
    with pytest.raises(UnavailableError):
        await extractor.extract_text("text")


async def test_process_that_was_killed_while_idle_is_replaced(extractor: Extractor, page: Path) -> None:
    await extractor.extract_file(page)
    (worker,) = extractor._idle
    assert worker._process is not None
    os.kill(worker._process.pid, signal.SIGKILL)
    await asyncio.to_thread(worker._process.wait, 20)

    assert (await extractor.extract_file(page)).document.blocks


async def test_orphaned_worker_ends_itself(page: Path, worker_says: Callable[[str], None]) -> None:
    extractor = an_extractor()
    await extractor.extract_file(page)
    (worker,) = extractor._idle
    assert worker._process is not None
    assert worker._process.stdin is not None

    # What the end of the process that asked does.
    worker._process.stdin.close()

    await asyncio.to_thread(worker._process.wait, 20)
    await extractor.close(5)


async def test_no_module_is_imported_from_the_current_folder(
    extractor: Extractor, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lxml", "json"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'taken')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")

    await extractor.extract_file(page)

    assert not (tmp_path / "taken").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing", "does not exist"), ("folder", "is a folder"), ("pipe", "no regular file"), ("x\x00", "valid path")],
)
async def test_path_that_is_no_file_is_reported(extractor: Extractor, tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")

    for call in (extractor.extract_file, extractor.fingerprint):
        with pytest.raises(UnreadableFileError, match=reason):
            await call(tmp_path / name)


async def test_file_over_the_limit_is_reported_before_it_is_read(extractor: Extractor, tmp_path: Path) -> None:
    with (tmp_path / "large.txt").open("wb") as target:
        target.truncate(1 << 40)

    with pytest.raises(UnreadableFileError, match="larger than") as caught:
        await extractor.extract_file(tmp_path / "large.txt")

    assert caught.value.limit == 1_000_000


async def test_link_out_of_the_root_is_refused_when_it_is_opened(extractor: Extractor, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "root" / "link.txt").symlink_to(tmp_path / "secret.txt")

    with pytest.raises(UnreadableFileError, match="out of the folder"):
        await extractor.extract_file(tmp_path / "root" / "link.txt", root=tmp_path / "root")
    assert (await extractor.extract_file(tmp_path / "root" / "link.txt")).fingerprint.size == 6


async def test_short_text_needs_no_process(extractor: Extractor) -> None:
    document = await extractor.extract_text("# Machines\n\nThey hum.")

    assert [block.kind for block in document.blocks] == ["heading", "paragraph"]
    assert children() == []


async def test_long_or_other_text_is_parsed_in_a_process(extractor: Extractor) -> None:
    long = await extractor.extract_text("# Machines\n\n" + "They hum. " * 10_000)
    page = await extractor.extract_text("<h1>Machines</h1>", "text/html")

    assert long.title == "Machines"
    assert page.blocks[0].kind == "heading"
    assert len(children()) == 1


@pytest.mark.parametrize(
    ("content", "reason"), [("", "no text"), (" \n", "no text"), ("x" * 1_000_001, "characters"), ("\x00", "no text")]
)
async def test_text_that_is_none_or_too_long_names_its_field(extractor: Extractor, content: str, reason: str) -> None:
    with pytest.raises(UnreadableFileError, match=reason) as caught:
        await extractor.extract_text(content)

    assert caught.value.field == "content"


async def test_half_pairs_in_a_text_do_no_harm(extractor: Extractor) -> None:
    assert (await extractor.extract_text("half \ud83d pair")).blocks[0].text.startswith("half")
