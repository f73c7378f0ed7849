"""Finds the files below a folder, and never leaves it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from knowledge_base.errors import InvalidInputError

SKIPPED_FOLDERS = {"CVS", "RCS", "SCCS", "_darcs", "__pycache__"}
"""Of version control, and compiled files; those of other systems are hidden."""

MAX_PATTERN_PARTS = 50
_ANY_FOLDERS = "**"


class FoundFile(NamedTuple):
    """A regular file below the root.

    Attributes:
        path: Where it is.
        name: Its path from the root on, with slashes.
        size: In bytes.
        modified: When it was last written, in seconds since 1970; whoever writes can set it back.
        changed: When it or anything about it was last changed.
        inode: Its number on its disk.
    """

    path: Path
    name: str
    size: int
    modified: float
    changed: float
    inode: int


class RefusedFile(NamedTuple):
    r"""Something that the pattern names and that is not read.

    Attributes:
        name: Its path from the root on; bytes that are no text are written as ``\\\\x..``.
        reason: Why, as the end of a sentence that begins with the name.
    """

    name: str
    reason: str


def find_files(root: Path, pattern: str = "**/*") -> Iterator[FoundFile | RefusedFile]:
    r"""Finds the files that a pattern names, folder by folder in the order of their names; for worker threads.

    Hidden files and the folders of version control are left out, unless the pattern names them with their dot. A link
    to a file of the same root is found under its own name. A link to a folder of the same root is left out, since the
    folder is searched under its own name.

    Args:
        root: The folder, or one file.
        pattern: Parts with ``*``, ``?`` and ``[…]`` between slashes; ``**`` stands for any folders.

    Yields:
        Each file, and each refusal: links that lead out of the root, nowhere or in a circle, what is no regular
        file, names that are no text, folders that may not be read.

    Raises:
        InvalidInputError: There is no such root, or the pattern leads out of it.
    """
    parts = _pattern_parts(pattern)
    try:
        real = Path(os.path.realpath(root, strict=True))
        status = real.stat()
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "is no valid path"
        raise InvalidInputError("path", f"cannot be read: {problem}") from None
    if stat.S_ISREG(status.st_mode):
        return iter([_regular(Path(root), Path(root).name, status)])
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidInputError("path", "is neither a file nor a folder")
    return _Search(Path(root), real, parts).run()


class _Folder(NamedTuple):
    path: str
    name: str
    states: frozenset[int]


class _Search:
    """One walk below a root.

    Args:
        root: The root as it was given.
        real: The same without links.
        parts: The parts of the pattern.
    """

    def __init__(self, root: Path, real: Path, parts: tuple[str, ...]) -> None:
        self._root = str(root)
        self._real = real
        self._parts = parts

    def run(self) -> Iterator[FoundFile | RefusedFile]:
        """Yields what is found; folders wait on a stack, since they can be nested deeper than Python calls."""
        start = _Folder(self._root, "", self._skipping_any(frozenset([0])))
        stack: list[Iterator[FoundFile | RefusedFile | _Folder]] = [self._entries(start)]
        while stack:
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
            elif isinstance(found, _Folder):
                stack.append(self._entries(found))
            else:
                yield found

    def _entries(self, folder: _Folder) -> Iterator[FoundFile | RefusedFile | _Folder]:
        try:
            with os.scandir(folder.path) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            yield RefusedFile(_shown(folder.name or "."), f"is a folder that cannot be read: {error.strerror}")
            return
        for entry in entries:
            after = self._after(folder.states, entry.name)
            if not after:
                continue
            found = self._look_at(entry, f"{folder.name}/{entry.name}" if folder.name else entry.name, after)
            if found is not None:
                yield found

    def _look_at(
        self, entry: os.DirEntry[str], name: str, states: frozenset[int]
    ) -> FoundFile | RefusedFile | _Folder | None:
        is_named = len(self._parts) in states
        try:
            if entry.is_dir(follow_symlinks=False):
                inner = states - {len(self._parts)}
                if not inner or entry.name in SKIPPED_FOLDERS:
                    return None
                return _Folder(entry.path, name, inner) if _is_text(name) else _bad_name(name)
            if not is_named:
                return self._linked_folder(entry, name)
            if not _is_text(name):
                return _bad_name(name)
            if entry.is_symlink():
                return self._linked(entry, name)
            return _file(Path(entry.path), name, entry.stat(follow_symlinks=False))
        except OSError as error:
            return RefusedFile(_shown(name), f"cannot be looked at: {error.strerror}")

    def _linked_folder(self, entry: os.DirEntry[str], name: str) -> RefusedFile | None:
        # A link in place of a folder on the way to what the pattern names.
        if entry.is_symlink() and entry.is_dir():
            found = self._linked(entry, name)
            return found if isinstance(found, RefusedFile) else None
        return None

    def _linked(self, entry: os.DirEntry[str], name: str) -> FoundFile | RefusedFile | None:
        try:
            target = Path(os.path.realpath(entry.path, strict=True))
            status = target.stat()
        except FileNotFoundError:
            return RefusedFile(_shown(name), "is a link that leads nowhere")
        except OSError:
            return RefusedFile(_shown(name), "is a link that leads in a circle, or to what may not be read")
        if not target.is_relative_to(self._real):
            return RefusedFile(_shown(name), "is a link that leads out of the folder")
        if not stat.S_ISDIR(status.st_mode):
            return _file(Path(entry.path), name, status)
        here = Path(os.path.realpath(os.path.dirname(entry.path)))
        if here.is_relative_to(target):
            return RefusedFile(_shown(name), "is a link that leads in a circle")
        if any(_is_hidden(part) or part in SKIPPED_FOLDERS for part in target.relative_to(self._real).parts):
            return RefusedFile(_shown(name), "is a link to a hidden folder")
        return None

    def _after(self, states: frozenset[int], name: str) -> frozenset[int]:
        """Returns how far the pattern has come after one more name; empty when it cannot match any more."""
        after = set()
        for state in states:
            if state == len(self._parts):
                continue
            part = self._parts[state]
            if part == _ANY_FOLDERS:
                if not _is_hidden(name):
                    after.add(state)
            elif fnmatchcase(name, part) and (part.startswith(".") or not _is_hidden(name)):
                after.add(state + 1)
        return self._skipping_any(frozenset(after))

    def _skipping_any(self, states: frozenset[int]) -> frozenset[int]:
        # ``**`` also stands for no folder at all.
        reached = set(states)
        for state in states:
            while state < len(self._parts) and self._parts[state] == _ANY_FOLDERS:
                state += 1
                reached.add(state)
        return frozenset(reached)


def _pattern_parts(pattern: str) -> tuple[str, ...]:
    if not isinstance(pattern, str) or not pattern or "\x00" in pattern:
        raise InvalidInputError("pattern", "must be a text such as **/*.md")
    path = PurePosixPath(pattern)
    if path.is_absolute() or ".." in path.parts:
        raise InvalidInputError("pattern", "must lead to files below the folder: no leading slash, no '..'")
    if not path.parts:
        raise InvalidInputError("pattern", "must name files, such as **/*.md")
    if len(path.parts) > MAX_PATTERN_PARTS:
        raise InvalidInputError("pattern", f"has more than {MAX_PATTERN_PARTS} parts", limit=MAX_PATTERN_PARTS)
    # A trailing ``**`` stands for everything below.
    return (*path.parts, "*") if path.parts[-1] == _ANY_FOLDERS else path.parts


def _file(path: Path, name: str, status: os.stat_result) -> FoundFile | RefusedFile:
    if not stat.S_ISREG(status.st_mode):
        return RefusedFile(_shown(name), f"is {_kind(status.st_mode)}, not a regular file")
    return _regular(path, name, status)


def _regular(path: Path, name: str, status: os.stat_result) -> FoundFile:
    return FoundFile(path, name, status.st_size, status.st_mtime, status.st_ctime, status.st_ino)


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_text(name: str) -> bool:
    # Bytes that are no UTF-8 come as lone surrogates.
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _bad_name(name: str) -> RefusedFile:
    return RefusedFile(_shown(name), "has a name that is no valid UTF-8")


def _shown(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
