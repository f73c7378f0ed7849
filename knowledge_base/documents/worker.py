"""The process that parses files, one after the other, and may hang or crash for all we care.

It is started by ``worker_process.WorkerProcess``, reads requests from its standard input and answers on its standard
output; ``frames`` describes both.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from typing import IO, Any

from knowledge_base.documents.blocks import Block, ExtractedDocument
from knowledge_base.documents.frames import BrokenFrameError, read_exactly, read_frame, write_frame
from knowledge_base.documents.readers.registry import read_document
from knowledge_base.documents.readers.request import ReadRequest
from knowledge_base.documents.unreadable import UnreadableFileError

MEMORY_BYTES = 1536 * 1024 * 1024
"""Address space that a worker may use."""

RETIRING_BYTES = 384 * 1024 * 1024
"""A worker that once held more is not used again: it would never give the memory back."""

MAX_FILES = 500
"""After so many files a worker is not used again."""

GRACE = 5.0
"""Seconds after the limit at which a worker ends itself; who asked has ended it long before, if it is alive."""

NICENESS = 5
"""A worker lets the event loop go first, but is not starved where much else runs."""

FRAME_CHARACTERS = 65_536


def main() -> None:
    """Serves requests until the standard input ends."""
    requests, answers = _take_pipes()
    _limit_process()
    write_frame(answers, {"ready": True})
    answers.flush()
    for _ in range(MAX_FILES):
        try:
            header = read_frame(requests)
            data = read_exactly(requests, int(header["size"]))
        except BrokenFrameError:
            return
        _limit_time(float(header["seconds"]))
        for message in _answer(header, data):
            write_frame(answers, message)
        answers.flush()
        del data
        signal.setitimer(signal.ITIMER_REAL, 0)


def _take_pipes() -> tuple[IO[bytes], IO[bytes]]:
    # What a library prints must not come between the answers.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)
    return requests, answers


def _limit_process() -> None:
    # A terminal's Ctrl-C is for the process that asked; it ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.dont_write_bytecode = True
    os.nice(NICENESS)
    # No parser needs it, and it would fill half of the address space.
    sys.modules["numpy"] = None  # type: ignore[assignment]
    for kind, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _limit_time(seconds: float) -> None:
    # The kernel ends the process, also when a parser never comes back to Python.
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds + GRACE) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + GRACE)


def _answer(header: dict[str, Any], data: bytes) -> Iterator[dict[str, Any]]:
    request = ReadRequest(str(header["name"]), header["media_type"], int(header["max_characters"]))
    try:
        document = read_document(data, request)
    except UnreadableFileError as error:
        yield {"reason": error.problem, "limit": error.limit, "retire": _is_worn()}
    except ImportError as error:
        yield {"missing": error.name or "a library", "retire": True}
    except MemoryError:
        megabytes = MEMORY_BYTES // 1024**2
        yield {"reason": f"needs more than {megabytes} MB of memory", "limit": MEMORY_BYTES, "retire": True}
    except Exception as error:  # noqa: BLE001 - whatever a parser raises is the end of this file only
        # The message of a foreign error may quote the file.
        yield {"reason": f"is broken: its reader failed ({type(error).__name__})", "limit": None, "retire": True}
    else:
        yield from _frames(document)


def _frames(document: ExtractedDocument) -> Iterator[dict[str, Any]]:
    batch: list[Block] = []
    characters = 0
    for block in document.blocks:
        batch.append(block)
        characters += len(block.text) + 32
        if characters > FRAME_CHARACTERS:
            yield {"blocks": batch}
            batch, characters = [], 0
    yield {"blocks": batch}
    yield {
        "title": document.title,
        "media_type": document.media_type,
        "pages": document.pages,
        "retire": _is_worn(),
    }


def _most_memory() -> int:
    # Kilobytes, but bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


_INHERITED = _most_memory()
"""What the process that started this one had taken is counted as this one's."""


def _is_worn() -> bool:
    return _most_memory() > max(RETIRING_BYTES, _INHERITED)


if __name__ == "__main__":
    main()
