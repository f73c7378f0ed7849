"""Turns files of any kind into blocks, in processes that may hang or crash without harm."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import NamedTuple

from knowledge_base.connection.admission import Admission
from knowledge_base.connection.deadline import bounded
from knowledge_base.connection.worker_threads import WorkerThreads
from knowledge_base.documents.blocks import ExtractedDocument
from knowledge_base.documents.file_reader import FileFingerprint, FileReader
from knowledge_base.documents.readers import markdown, plain_text
from knowledge_base.documents.readers.request import ReadRequest
from knowledge_base.documents.unreadable import UnreadableFileError
from knowledge_base.documents.worker_process import WorkerKilledError, WorkerProcess
from knowledge_base.errors import InvalidInputError, ServerRequirementError, UnavailableError

__all__ = ["ExtractedFile", "Extractor", "FileFingerprint", "UnreadableFileError"]

IDLE_SECONDS = 60.0
"""After so long without a file a process ends and gives its memory back."""

LONGEST_WAIT = 86_400.0
"""Seconds to wait for a free process; the caller's deadline is what bounds it."""

SLACK = 5.0
"""Seconds for a killed process to be gone."""

IN_THREAD = {"text/markdown": (markdown.read, 16_000), "text/plain": (plain_text.read, 200_000)}
"""What is parsed without a process, up to so many characters: the worst of texts takes it less than half a second."""


class ExtractedFile(NamedTuple):
    """A file and what it says.

    Attributes:
        document: Its blocks.
        content_hash: SHA-256 of its bytes in hexadecimal digits.
        fingerprint: Its size, its times and its number, as they were when it was read.
    """

    document: ExtractedDocument
    content_hash: str
    fingerprint: FileFingerprint


class Extractor:
    """Reads files and texts, used from one event loop.

    Args:
        file_seconds: How long one read from disk may take.
        extraction_seconds: How long the parsing of one file may take.
        max_bytes: How large a file may be.
        max_characters: How much text one may have.
        processes: How many files are parsed at once.
    """

    def __init__(
        self, *, file_seconds: float, extraction_seconds: float, max_bytes: int, max_characters: int, processes: int = 2
    ) -> None:
        self._files = FileReader(file_seconds=file_seconds, max_bytes=max_bytes)
        self._seconds = extraction_seconds
        self._max_characters = max_characters
        self._admission = Admission("the processes that read files", processes)
        # Twice as many: one that is being killed must not keep the next file waiting.
        self._threads = WorkerThreads("extraction", threads=2 * processes, waiting=64, yielding=True)
        self._idle: list[WorkerProcess] = []
        self._retirements: dict[WorkerProcess, asyncio.TimerHandle] = {}
        self._busy: set[WorkerProcess] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._quiet = asyncio.Event()
        self._closed = False

    async def fingerprint(self, path: Path) -> FileFingerprint:
        """Returns size, times and number of a file, without reading it.

        Args:
            path: The file.

        Raises:
            UnreadableFileError: There is no such file, or it is too large.
        """
        return await self._files.fingerprint(path)

    async def extract_file(self, path: Path, *, root: Path | None = None) -> ExtractedFile:
        """Reads a file.

        Args:
            path: The file.
            root: A folder that the file must lie in after all links; None for any place.

        Raises:
            UnreadableFileError: It is encrypted, broken, binary, empty, too large or too slow to read.
            ServerRequirementError: The extra ``documents`` is not installed, and this format needs it.
            UnavailableError: The extractor is closed, or no process can be started.
        """
        content = await self._files.read(path, root)
        request = ReadRequest(path.name, None, self._max_characters)
        document = await self._parsed(content.data, request)
        return ExtractedFile(document, content.content_hash, content.fingerprint)

    async def extract_text(self, content: str, media_type: str = "text/markdown") -> ExtractedDocument:
        """Finds the structure of a text.

        Args:
            content: The text.
            media_type: Its format.

        Raises:
            UnreadableFileError: It is empty, broken or too long; its field is ``content``.
            ServerRequirementError: The extra ``documents`` is not installed, and this format needs it.
            UnavailableError: The extractor is closed, or no process can be started.
        """
        if not isinstance(content, str):
            raise InvalidInputError("content", "must be a text")
        if len(content) > self._max_characters:
            raise UnreadableFileError(
                f"has more than {self._max_characters:,} characters", limit=self._max_characters, field="content"
            )
        request = ReadRequest("", media_type, self._max_characters)
        reader, most = IN_THREAD.get(media_type, (plain_text.read, -1))
        try:
            if len(content) > most:
                data = await self._threads.to_thread(_encoded, content, step="the extraction", limit=self._seconds)
                return await self._parsed(data, request)
            self._refuse_when_closed()
            return await self._threads.to_thread(
                reader, _encoded(content), request, step="the extraction", limit=self._seconds
            )
        except UnreadableFileError as error:
            raise UnreadableFileError(error.problem, limit=error.limit, field="content") from None

    async def close(self, within: float) -> None:
        """Kills every process, and waits until they and the threads are gone.

        Args:
            within: Seconds to wait at most.
        """
        until = time.monotonic() + within
        self._closed = True
        for worker in self._busy:
            worker.kill()
        for timer in self._retirements.values():
            timer.cancel()
        self._retirements.clear()
        while self._idle:
            self._end(self._idle.pop())
        files = asyncio.ensure_future(self._files.close(within))
        await self._all_ended(until)
        self._threads.close()
        await self._threads.wait_closed(max(0.0, until - time.monotonic()))
        await files

    async def _all_ended(self, until: float) -> None:
        while (self._busy or self._endings) and time.monotonic() < until:
            self._quiet.clear()
            with contextlib.suppress(TimeoutError):
                await bounded(self._quiet.wait(), max(0.0, until - time.monotonic()))

    async def _parsed(self, data: bytes, request: ReadRequest) -> ExtractedDocument:
        async with self._admission.place(LONGEST_WAIT):
            self._refuse_when_closed()
            worker = self._taken()
            late = asyncio.get_running_loop().call_later(self._seconds, worker.kill)
            try:
                return await self._threads.to_thread(
                    worker.parse, data, request, self._seconds, step="the extraction", limit=self._seconds + SLACK
                )
            except WorkerKilledError:
                self._refuse_when_closed()
                raise UnreadableFileError(
                    f"takes longer than {self._seconds:.3g} s to read", limit=self._seconds
                ) from None
            except (UnreadableFileError, ServerRequirementError):
                raise
            except BaseException:
                # Its thread may still be at it, or begin later.
                worker.kill()
                raise
            finally:
                late.cancel()
                self._give_back(worker)

    def _taken(self) -> WorkerProcess:
        worker = self._idle.pop() if self._idle else WorkerProcess()
        timer = self._retirements.pop(worker, None)
        if timer is not None:
            timer.cancel()
        self._busy.add(worker)
        return worker

    def _give_back(self, worker: WorkerProcess) -> None:
        self._busy.discard(worker)
        self._quiet.set()
        if worker.reusable and not self._closed:
            self._idle.append(worker)
            loop = asyncio.get_running_loop()
            self._retirements[worker] = loop.call_later(IDLE_SECONDS, self._retire, worker)
        else:
            self._end(worker)

    def _retire(self, worker: WorkerProcess) -> None:
        self._retirements.pop(worker, None)
        self._idle.remove(worker)
        self._end(worker)

    def _end(self, worker: WorkerProcess) -> None:
        worker.kill()
        if worker.process_id is None:
            return
        ending = asyncio.get_running_loop().create_task(self._stopped(worker), name="kb-extraction-end")
        self._endings.add(ending)
        ending.add_done_callback(self._ended)

    def _ended(self, ending: asyncio.Task[None]) -> None:
        self._endings.discard(ending)
        self._quiet.set()

    async def _stopped(self, worker: WorkerProcess) -> None:
        # What cannot be waited for was killed all the same.
        with contextlib.suppress(UnavailableError):
            await self._threads.to_thread(worker.stop, step="the end of a process", limit=SLACK)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise UnavailableError("the extractor is closed already; open the knowledge base again")


def _encoded(content: str) -> bytes:
    return content.encode("utf-8", "replace")
