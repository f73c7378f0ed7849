"""Users of the embedded server in processes of their own, and a look at what runs for a directory."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import redis

from knowledge_base.connection.embedded_server import EmbeddedServer
from tests.support.polling import eventually

WITHIN = 30.0

USER = """
import sys
from pathlib import Path
from knowledge_base.connection.embedded_server import EmbeddedServer

server = EmbeddedServer(Path(sys.argv[1]))
print(server.open(), flush=True)
sys.stdin.read()
server.close()
"""

OpenServer = Callable[..., EmbeddedServer]


class User:
    """A process that uses the server until it is told to leave, or killed."""

    def __init__(self, folder: Path, program: str = USER) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the user process ended"
        return line

    def leave(self) -> int:
        self._process.communicate(timeout=WITHIN)
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=WITHIN)


def process_text(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def parent_of(pid: int) -> int:
    lines = process_text(pid, "status").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("PPid:")), 0)


def working_folder(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def processes_of(folder: Path) -> dict[int, str]:
    """Servers and supervisors of a directory and those below; ended processes that nobody reaped have no command."""
    found = {}
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        command = process_text(pid, "cmdline")
        is_server = "valkey-server" in command and working_folder(pid).startswith(str(folder))
        if is_server or ("embedded_supervisor" in command and str(folder) in command):
            found[pid] = command
    return found


@contextmanager
def client_of(url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(url, socket_timeout=WITHIN, decode_responses=True)
    with closing(client):
        yield client


def info(url: str) -> dict[str, Any]:
    with client_of(url) as client:
        return cast("dict[str, Any]", client.info("server"))


def pid_of(url: str) -> int:
    return int(info(url)["process_id"])


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def assert_nothing_runs(folder: Path) -> None:
    await eventually(lambda: not processes_of(folder), WITHIN)


NewUser = Callable[..., User]
