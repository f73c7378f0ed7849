"""One worker process, seen from the process that asks it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

from knowledge_base.documents.blocks import Block, ExtractedDocument
from knowledge_base.documents.frames import BrokenFrameError, read_frame, write_frame
from knowledge_base.documents.readers.request import ReadRequest
from knowledge_base.documents.unreadable import UnreadableFileError
from knowledge_base.documents.worker import MAX_FILES
from knowledge_base.errors import ServerRequirementError, UnavailableError

PACKAGE_PARENT = Path(__file__).parents[2]
_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from knowledge_base.documents.worker import main; main()"
)
# What is not here may be a secret, and parsers of hostile files need none.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
_OUT_OF_TIME = {signal.SIGXCPU, signal.SIGALRM}
ENDING_SECONDS = 1.0
_WRITE_BYTES = 1024 * 1024


class WorkerKilledError(Exception):
    """The process was killed by ``kill`` before it had answered."""


class WorkerProcess:
    """A process that parses files; started with the first one. Blocking: for worker threads.

    ``kill`` may be called from any thread, at any moment.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._worn = False
        self._files = 0

    @property
    def reusable(self) -> bool:
        """Whether it may be asked again."""
        return not self._killed and not self._worn

    @property
    def process_id(self) -> int | None:
        """The id of the process; None before the first file."""
        return self._process.pid if self._process is not None else None

    def parse(self, data: bytes, request: ReadRequest, seconds: float) -> ExtractedDocument:
        """Has a file parsed.

        Args:
            data: The bytes of the file.
            request: What is known of it.
            seconds: After which the process ends itself, should nobody have killed it; a little is added.

        Raises:
            UnreadableFileError: The file cannot be read, or its parser crashed.
            ServerRequirementError: A library is not installed.
            UnavailableError: No process could be started.
            WorkerKilledError: The process was killed meanwhile.
        """
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        header = {
            "name": request.name,
            "media_type": request.media_type,
            "max_characters": request.max_characters,
            "seconds": seconds,
            "size": len(data),
        }
        try:
            write_frame(process.stdin, header)
            view = memoryview(data)
            for start in range(0, len(data), _WRITE_BYTES):
                process.stdin.write(view[start : start + _WRITE_BYTES])
            process.stdin.flush()
            document = _read_document(process.stdout, request.max_characters)
            self._after_answer(document)
        except (OSError, BrokenFrameError, ValueError) as error:
            if isinstance(error, UnreadableFileError):
                raise
            status = self._status_of_end(process)
            self.stop()
            if self._killed:
                raise WorkerKilledError from None
            raise _crashed(status) from None
        return _result(document)

    def kill(self) -> None:
        """Ends the process at once; what it was asked ends with ``WorkerKilledError``. Does not wait."""
        with self._guard:
            self._killed = True
            process = self._process
        if process is not None:
            process.kill()

    def stop(self) -> None:
        """Ends the process and waits until nothing is left of it."""
        with self._guard:
            self._worn = True
            process = self._process
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            # What was not written yet has nowhere to go.
            with contextlib.suppress(OSError, ValueError):
                if pipe is not None:
                    pipe.close()

    def _started(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is not None and process.poll() is None and not self._killed:
            return process
        if process is not None:
            # It was ended while it was idle: by us, or by somebody who wanted its memory.
            self.stop()
            self._worn = False
        process = _start()
        with self._guard:
            self._process = process
            is_killed = self._killed
        try:
            if is_killed:
                raise BrokenFrameError("killed while it was started")
            assert process.stdout is not None
            read_frame(process.stdout)
        except (OSError, BrokenFrameError, ValueError):
            self.stop()
            if self._killed:
                raise WorkerKilledError from None
            raise UnavailableError("a process that reads files ended before it could begin") from None
        self._files = 0
        return process

    def _status_of_end(self, process: subprocess.Popen[bytes]) -> int | None:
        # It may have closed its pipes only, and is on its way out; ``stop`` would hide why.
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(ENDING_SECONDS)
        return None

    def _after_answer(self, answer: _Answer) -> None:
        self._files += 1
        self._worn = bool(answer.last.get("retire")) or self._files >= MAX_FILES


class _Answer:
    """The frames of an answer: its blocks, and the last frame."""

    def __init__(self, blocks: list[Block], last: dict[str, Any]) -> None:
        self.blocks = blocks
        self.last = last


def _start() -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise ServerRequirementError("reading files needs a Python interpreter to start processes with")
    # The folder that a program was started in may hold hostile modules, so an empty entry is left out.
    paths = [os.path.abspath(path) for path in sys.path if path] + [str(PACKAGE_PARENT)]
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # Its parser in Python takes three times as long, against what ``archives`` has refused before.
    environment["OPENPYXL_DEFUSEDXML"] = "False"
    try:
        return subprocess.Popen(  # noqa: S603 - our own interpreter with our own code
            [sys.executable, "-I", "-S", "-c", _START, json.dumps(paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
        )
    except OSError as error:
        raise UnavailableError(f"no process that reads files can be started: {error.strerror}") from error


def _read_document(stream: IO[bytes], max_characters: int) -> _Answer:
    blocks: list[Block] = []
    characters = 0
    while True:
        frame = read_frame(stream)
        if "blocks" not in frame:
            return _Answer(blocks, frame)
        for kind, text, level, page in frame["blocks"]:
            blocks.append(Block(kind, text, level, page))
            characters += len(text)
        # A table's header line is repeated, so it may be somewhat more than what was read.
        if characters > max_characters * 4 or len(blocks) > max_characters:
            raise BrokenFrameError("more than was asked for")


def _result(answer: _Answer) -> ExtractedDocument:
    last = answer.last
    if "missing" in last:
        raise ServerRequirementError(
            f"{last['missing']} is not installed, which reads files of this kind: "
            "pip install 'knowledge-base[documents]'"
        )
    if "reason" in last:
        raise UnreadableFileError(str(last["reason"]), limit=last.get("limit"))
    return ExtractedDocument(last["title"], last["media_type"], answer.blocks, last["pages"])


def _crashed(status: int | None) -> UnreadableFileError:
    if status is not None and -status in _OUT_OF_TIME:
        return UnreadableFileError("takes too long to read")
    if status is not None and -status == signal.SIGKILL:
        return UnreadableFileError("needs too much memory: the process that read it was ended by the system")
    return UnreadableFileError("made the process that read it crash")
