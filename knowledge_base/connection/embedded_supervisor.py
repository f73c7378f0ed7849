"""The process that runs the embedded server for as long as somebody uses its directory.

``embedded_server`` starts this file as a program of its own with ``python -I -S``: it uses a few small modules of the
standard library only, so that it is up in an instant and costs little memory.

What belongs to whom is kept in locks on files in the data directory. The kernel frees them however a process ends:

=================== ================================================================================================
``users.lock``      shared by every user; this process waits to have it alone, which means that the last has left
``start.lock``      held by the one user that is just starting this process
``supervisor.lock`` held by this process
``server.lock``     held by this process and by the server, so that no other server touches the data before both ended
=================== ================================================================================================
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import sys
import threading
import time

USERS_LOCK = "users.lock"
START_LOCK = "start.lock"
SUPERVISOR_LOCK = "supervisor.lock"
SERVER_LOCK = "server.lock"

SUPERVISING = b"+"
"""Written to standard output once the supervisor's lock is held; the reason why it gives up may follow."""

TRIES = 5
FIRST_PAUSE = 0.1
STEADY_AFTER = 10.0
"""Seconds after which a server that ends is not taken for one that cannot run."""
STOP_WITHIN = 10.0
LOCK_WITHIN = 5.0
POLL = 0.02

_PR_SET_PDEATHSIG = 1
_OUTPUT = 1
_LOG = 2


def open_lock(folder: str, name: str) -> int:
    """Opens a lock file, made when it is missing; programs that this process starts do not inherit it.

    Args:
        folder: The data directory.
        name: Name of the lock.
    """
    return os.open(os.path.join(folder, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(lock: int, how: int) -> bool:
    """Takes a lock when nobody is in the way.

    Args:
        lock: What ``open_lock`` gave.
        how: ``fcntl.LOCK_EX`` or ``fcntl.LOCK_SH``.
    """
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def ask(socket_path: str, command: bytes, timeout: float) -> bytes | None:
    """Sends one command and returns the first line of the reply; None when nobody answers.

    Args:
        socket_path: The server's socket.
        command: The command without its line end.
        timeout: Seconds that each step may take.

    Raises:
        PermissionError: The socket belongs to somebody else.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(socket_path)
            connection.sendall(command + b"\r\n")
            reply = b""
            while b"\r\n" not in reply:
                part = connection.recv(512)
                if not part:
                    return None
                reply += part
    except PermissionError:
        raise
    except OSError:
        return None
    return reply.partition(b"\r\n")[0]


def last_log_line(log: int, start: int = 0) -> str:
    """Returns the last line that says something.

    Args:
        log: The open log file.
        start: Where to begin; what was logged earlier is not looked at.
    """
    end = os.fstat(log).st_size
    start = max(start, end - 8192)
    lines = os.pread(log, max(end - start, 0), start).decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was logged")


class Supervisor:
    """Runs one server until it is unused.

    Args:
        folder: The data directory.
        socket_path: Where the server listens.
        command: The server's command line.
    """

    def __init__(self, folder: str, socket_path: str, command: list[str]) -> None:
        self._folder = folder
        self._socket_path = socket_path
        self._command = command
        self._ending = False
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)

    def run(self) -> None:
        """Returns when the server has ended and is not to run again."""
        self._heed_signals()
        supervising = open_lock(self._folder, SUPERVISOR_LOCK)
        if not self._lock(supervising, LOCK_WITHIN):
            return
        _tell(SUPERVISING)
        threading.Thread(target=self._await_last_user, daemon=True).start()
        serving = open_lock(self._folder, SERVER_LOCK)
        os.set_inheritable(serving, True)
        if not try_lock(serving, fcntl.LOCK_EX):
            # A server whose supervisor was killed is on its way out; it is asked once more, in case it missed that.
            ask(self._socket_path, b"SHUTDOWN", timeout=1.0)
        if self._lock(serving, None):
            _tell(self._serve().encode(errors="replace"))
        # A user who now gets the users' lock must not take this process for one that will serve it.
        os.close(serving)
        os.close(supervising)

    def _heed_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _await_last_user(self) -> None:
        fcntl.flock(open_lock(self._folder, USERS_LOCK), fcntl.LOCK_EX)
        self._end()

    def _end(self) -> None:
        self._ending = True
        try:
            os.write(self._waker, b"e")
        except BlockingIOError:
            return  # so many wake-ups wait already that this one is not missed

    def _wait(self, timeout: float | None) -> None:
        if select.select([self._woken], [], [], timeout)[0]:
            os.read(self._woken, 4096)

    def _lock(self, lock: int, within: float | None) -> bool:
        ends = None if within is None else time.monotonic() + within
        while not try_lock(lock, fcntl.LOCK_EX):
            if self._ending or (ends is not None and time.monotonic() > ends):
                return False
            self._wait(POLL)
        return True

    def _serve(self) -> str:
        failures = 0
        first = True
        while not self._ending:
            logged, started = os.fstat(_LOG).st_size, time.monotonic()
            server = self._start()
            status = self._status_of(server)
            while status is None and not self._ending:
                self._wait(None)
                status = self._status_of(server)
            if status is None:
                self._stop(server)
                break
            failures = 0 if time.monotonic() - started > STEADY_AFTER else failures + 1
            # A first run that ends by itself would only do so again: a broken module, a damaged file.
            if failures >= TRIES or (first and status > 0):
                return f"the server ended with status {status}: {last_log_line(_LOG, logged)}"
            first = False
            self._pause(FIRST_PAUSE * 2**failures)
        return ""

    def _pause(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while not self._ending and (left := ends - time.monotonic()) > 0:
            self._wait(left)

    def _start(self) -> int:
        # Forking here would be unsafe beside the thread, hence a new interpreter that turns into the server.
        program = [*_interpreter(), __file__, "become", str(os.getpid()), *self._command]
        return os.posix_spawn(
            program[0],
            program,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, _LOG, _OUTPUT)],
            setsigdef=[signal.SIGTERM, signal.SIGCHLD],
        )

    def _status_of(self, server: int) -> int | None:
        ended, status = os.waitpid(server, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if ended else None

    def _stop(self, server: int) -> None:
        ends = time.monotonic() + STOP_WITHIN
        os.kill(server, signal.SIGTERM)
        while self._status_of(server) is None:
            left = ends - time.monotonic()
            if left <= 0:
                os.kill(server, signal.SIGKILL)
                os.waitpid(server, 0)
                return
            self._wait(left)


def _interpreter() -> list[str]:
    return [sys.executable, "-I", "-S"]


def _tell(message: bytes) -> None:
    try:
        os.write(_OUTPUT, message)
    except OSError:
        return  # whoever started this process has gone; others ask themselves


def _become_server(supervisor: int, command: list[str]) -> None:
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    except (ImportError, OSError, AttributeError) as error:
        print(f"the server will outlive a killed supervisor until it is used again: {error}", file=sys.stderr)
    if os.getppid() == supervisor:
        os.execv(command[0], command)  # noqa: S606 - the command was put together by embedded_server


def main(arguments: list[str]) -> None:
    """Runs the part that the first argument names.

    Args:
        arguments: ``supervise FOLDER SOCKET COMMAND…`` or ``become SUPERVISOR COMMAND…``.
    """
    part, about, *rest = arguments
    if part == "become":
        _become_server(int(about), rest)
        return
    if os.fork():
        os._exit(0)  # the starter reaps this process at once; the supervisor is no child of its own
    os.umask(0o077)
    try:
        Supervisor(about, rest[0], rest[1:]).run()
    except Exception as error:
        _tell(f"{type(error).__name__}: {error}".encode(errors="replace"))
        raise
    os._exit(0)  # the users' lock is still held: nobody shall wait for the interpreter to be taken down


if __name__ == "__main__":
    main(sys.argv[1:])
