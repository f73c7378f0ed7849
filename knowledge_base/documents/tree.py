"""Looking at folders, in threads and in bounded time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from knowledge_base.connection.worker_threads import WorkerThreads
from knowledge_base.documents.files import FoundFile, RefusedFile, find_files

LISTED_AT_ONCE = 500
"""Files that are looked at in one go, within the limit of one read."""

THREADS = 2
WAITING = 64
STEP = "looking at a folder"


class Listing(NamedTuple):
    """The files below a root."""

    root: Path
    files: list[FoundFile]
    refused: list[RefusedFile]


class FolderTree:
    """Looks at folders that may lie on a slow or hanging disk.

    Args:
        file_seconds: How long one look may take.
    """

    def __init__(self, *, file_seconds: float) -> None:
        self._seconds = file_seconds
        self._threads = WorkerThreads("folders", threads=THREADS, waiting=WAITING, yielding=True)

    async def listed(self, path: Path, pattern: str) -> Listing:
        """Returns the files that a pattern names; of a single file, that one, with its folder as root.

        Args:
            path: The folder or file.
            pattern: Which files.

        Raises:
            InvalidInputError: There is no such folder or file, or the pattern leads out of it.
            OperationTimeoutError: The disk did not answer in time.
        """
        found, is_file = await self._look(_begun, path, pattern)
        listing = Listing(path.parent if is_file else path, [], [])
        while some := await self._look(_next, found):
            for one in some:
                if isinstance(one, FoundFile):
                    listing.files.append(one)
                else:
                    listing.refused.append(one)
        return listing

    async def exists(self, path: Path) -> bool:
        """Tells whether there is a file, or something in its place that cannot be looked at.

        Args:
            path: The file.

        Raises:
            OperationTimeoutError: The disk did not answer in time.
        """
        return bool(await self._look(_exists, path))

    async def close(self, within: float) -> None:
        """Ends the threads.

        Args:
            within: Seconds to wait at most for those that are busy.
        """
        self._threads.close()
        await self._threads.wait_closed(within)

    async def _look(self, function: Any, *args: Any) -> Any:
        return await self._threads.to_thread(function, *args, step=STEP, limit=self._seconds)


def _begun(path: Path, pattern: str) -> tuple[Iterator[FoundFile | RefusedFile], bool]:
    return find_files(path, pattern), path.is_file()


def _next(found: Iterator[FoundFile | RefusedFile]) -> list[FoundFile | RefusedFile]:
    return list(islice(found, LISTED_AT_ONCE))


def _exists(path: Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        # Nobody knows; it counts as there, so that nothing is lost.
        return True
    return True
