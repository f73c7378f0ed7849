"""Every fault: how it begins and ends, and what no call may pretend while it lasts."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import redis

from tests.faults.matrix.calls import Call
from tests.faults.matrix.stage import PASSWORD, Stage
from tests.support.fault_proxy import Mood
from tests.support.server import RedisServer, free_port

BALLAST = 20_000
BALLAST_BYTES = 1_024
LOAD_DELAY_US = "2000"
"""Microseconds for each key: loading the ballast takes longer than all the calls."""
WITHIN = 20.0

Step = Callable[[Stage], None]
Refuses = Callable[[Call], bool]


def everything(_: Call) -> bool:
    return True


def nothing(_: Call) -> bool:
    return False


def writes(call: Call) -> bool:
    return call.kind in {"add", "remove"}


def growth(call: Call) -> bool:
    return call.kind == "add"


def removal(call: Call) -> bool:
    return call.kind == "remove"


def searches(call: Call) -> bool:
    return call.by_index or call.kind == "health"


def what_may_repeat(call: Call) -> bool:
    return call.kind != "remove"


def idle(_: Stage) -> None:
    return


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        name: As the table shows it.
        about: What happens.
        begin: Brings it about.
        end: Ends it; the server answers when it returns.
        renew: Brings it about again, before each cell, where the calls themselves mend it.
        refuses: Which calls cannot succeed while it lasts.
        repeats: Which calls must not so much as notice it.
        opens: Whether it is for the breaker to open.
        error: The error with which refused calls tell of it.
        proxied: Whether it is the proxy's.
        elsewhere: Whether calls reach another server meanwhile, so that what they write is not found afterwards.
    """

    name: str
    about: str
    begin: Step
    end: Step
    renew: Step = field(default=idle)
    refuses: Refuses = field(default=everything)
    repeats: Refuses = field(default=nothing)
    opens: bool = False
    error: str = "UnavailableError"
    proxied: bool = False
    elsewhere: bool = False


def of_proxy(
    name: str,
    about: str,
    mood: Mood,
    amount: float | None = None,
    *,
    refuses: Refuses = everything,
    error: str = "UnavailableError",
) -> Fault:
    return Fault(
        name,
        f"the proxy {about}",
        begin=lambda stage: stage.proxy.become(mood, amount),
        end=lambda stage: stage.proxy.become("pass"),
        refuses=refuses,
        opens=refuses is everything,
        error=error,
        proxied=True,
    )


class Pause:
    """CLIENT PAUSE, ended by a connection that MONITOR has made exempt from it."""

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._exempt: socket.socket | None = None

    def begin(self, stage: Stage) -> None:
        self._exempt = socket.create_connection(("127.0.0.1", stage.server.port), timeout=WITHIN)
        self._say("AUTH root root")
        self._say("MONITOR")
        self._say(f"CLIENT PAUSE {60_000} {self._mode}")

    def end(self, _: Stage) -> None:
        assert self._exempt is not None
        self._exempt.sendall(b"CLIENT UNPAUSE\r\n")
        seen = b""
        while b"+OK" not in seen:
            seen += self._exempt.recv(65_536)
        self._exempt.close()

    def _say(self, command: str) -> None:
        assert self._exempt is not None
        self._exempt.sendall(command.encode() + b"\r\n")
        assert b"+OK" in self._exempt.recv(1_024)


def kill(stage: Stage) -> None:
    stage.server.kill()


def start(stage: Stage) -> None:
    stage.server.start()


def kill_and_start(stage: Stage) -> None:
    stage.server.kill()
    stage.server.start()


def become_replica(stage: Stage) -> None:
    stage.control.run("REPLICAOF", "127.0.0.1", free_port())


def become_primary(stage: Stage) -> None:
    stage.control.run("REPLICAOF", "NO", "ONE")
    stage.control.run("CONFIG", "SET", "replica-serve-stale-data", "yes")


def become_stale_replica(stage: Stage) -> None:
    stage.control.run("CONFIG", "SET", "replica-serve-stale-data", "no")
    become_replica(stage)


def begin_loading(stage: Stage) -> None:
    client = redis.Redis.from_url(stage.server.url)
    with client, client.pipeline(transaction=False) as pipeline:
        for number in range(BALLAST):
            pipeline.set(f"ballast:{number}", os.urandom(BALLAST_BYTES))
        pipeline.execute()
    # Keys are only delayed in the snapshot with which the append-only file begins.
    stage.control.run("BGREWRITEAOF")
    wait_for(lambda: not rewriting(stage))
    stage.server.kill()
    stage.server.begin("--key-load-delay", LOAD_DELAY_US, "--loading-process-events-interval-bytes", "1024")
    wait_for(lambda: is_loading(stage))


def end_loading(stage: Stage) -> None:
    stage.control.run("CONFIG", "SET", "key-load-delay", 0)
    wait_for(lambda: not is_loading(stage))


def rewriting(stage: Stage) -> bool:
    state: Any = stage.control.run("INFO", "persistence")
    return bool(state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])


def is_loading(stage: Stage) -> bool:
    try:
        return not stage.control.ping()
    except redis.BusyLoadingError:
        return True
    except redis.ConnectionError:
        return False


def wait_for(predicate: Callable[[], bool]) -> None:
    ends = time.monotonic() + WITHIN
    while not predicate():
        assert time.monotonic() < ends
        time.sleep(0.01)


def change_password(stage: Stage) -> None:
    stage.control.run("CONFIG", "SET", "requirepass", "second")
    # Who has logged in stays logged in.
    stage.control.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def restore_password(stage: Stage) -> None:
    stage.control.run("CONFIG", "SET", "requirepass", PASSWORD)


def revoke_rights(stage: Stage) -> None:
    stage.control.run("ACL", "SETUSER", "default", "-@all")


def grant_rights(stage: Stage) -> None:
    stage.control.run("ACL", "SETUSER", "default", "+@all")


def drop_indices(stage: Stage) -> None:
    for name in stage.control.run("FT._LIST"):
        stage.control.run("FT.DROPINDEX", name)


class ServerWithoutModule:
    """A server with the same keys and without the search module, which the address leads to."""

    def __init__(self) -> None:
        self._server: RedisServer | None = None

    def begin(self, stage: Stage) -> None:
        self._server = RedisServer(tcp=True, password=PASSWORD, search=False).start()
        source = redis.Redis.from_url(stage.server.url)
        target = redis.Redis.from_url(self._server.url)
        with source, target, target.pipeline(transaction=False) as pipeline:
            for key in source.scan_iter(count=1_000):
                pipeline.execute_command("RESTORE", key, 0, source.dump(key))
            pipeline.execute()
        stage.proxy.lead_to(self._server.port)

    def end(self, stage: Stage) -> None:
        stage.proxy.lead_to(stage.server.port)
        assert self._server is not None
        self._server.remove()


def reach_memory_limit(stage: Stage) -> None:
    stage.control.run("CONFIG", "SET", "maxmemory", "1")


def lift_memory_limit(stage: Stage) -> None:
    stage.control.run("CONFIG", "SET", "maxmemory", "0")


def lose_one_reply(stage: Stage) -> None:
    stage.proxy.lose(1)


def lose_nothing(stage: Stage) -> None:
    stage.proxy.lose(0)


def freeze(stage: Stage) -> None:
    stage.server.freeze()


def thaw(stage: Stage) -> None:
    stage.server.thaw()


LATE = "OperationTimeoutError"
DENIED = "PermissionDeniedError"


def faults_of_the_network() -> Iterator[Fault]:
    """Yields what the proxy does."""
    yield of_proxy("delay of 20 ms", "holds back each chunk of a reply", "delay", 0.02, refuses=nothing)
    yield of_proxy("delay of 500 ms", "holds back each chunk of a reply", "delay", 0.5, error=LATE)
    yield of_proxy("blackhole", "accepts connections, takes everything and answers nothing", "blackhole", error=LATE)
    yield of_proxy("reset", "ends every connection with RST, new ones too", "reset")
    yield Fault(
        "one reply lost",
        "the proxy loses a reply, and ends its connection with RST, once in each cell: what may be repeated is",
        idle,
        lose_nothing,
        renew=lose_one_reply,
        refuses=nothing,
        repeats=what_may_repeat,
        proxied=True,
    )
    yield of_proxy("reply cut in half", "sends half of a reply and closes", "cut")
    yield of_proxy("one byte at a time", "sends a byte each millisecond", "drip", refuses=nothing)
    yield of_proxy("10 kB/s", "sends so much a second on each connection", "bandwidth", refuses=nothing)
    yield of_proxy("garbage", "answers what is not Redis' protocol", "garbage")
    yield of_proxy("port closed", "refuses connections", "refuse")


def faults_of_the_process() -> Iterator[Fault]:
    """Yields what happens to the server's process."""
    pause, pause_writes = Pause("ALL"), Pause("WRITE")
    again = "it is killed, and started on the same data, before each cell: pooled connections are dead"
    yield Fault("SIGSTOP", "the server stands still", freeze, thaw, opens=True, error=LATE)
    yield Fault("kill -9", "the server is gone, and started on the same data at the end", kill, start, opens=True)
    yield Fault("kill -9 and restart", again, idle, idle, renew=kill_and_start, refuses=nothing)
    yield Fault(
        "CLIENT PAUSE", "the server takes commands and runs none", pause.begin, pause.end, opens=True, error=LATE
    )
    yield Fault(
        "CLIENT PAUSE WRITE",
        "the server runs no command that may write",
        pause_writes.begin,
        pause_writes.end,
        refuses=writes,
        error=LATE,
    )
    yield Fault("LOADING", "the server was started again and loads its data", begin_loading, end_loading)


def faults_of_the_server() -> Iterator[Fault]:
    """Yields what the server refuses."""
    module = ServerWithoutModule()
    stale = "the same, with `replica-serve-stale-data no` (`MASTERDOWN`)"
    elsewhere = "the address leads to a server with the same keys and without the search module"
    yield Fault(
        "maxmemory reached",
        "`OOM`, with `noeviction`; what makes room must go on",
        reach_memory_limit,
        lift_memory_limit,
        refuses=growth,
        repeats=removal,
    )
    yield Fault("READONLY replica", "the server is a replica now", become_replica, become_primary, refuses=writes)
    yield Fault("replica without primary", stale, become_stale_replica, become_primary)
    yield Fault("password changed", "and every connection ended", change_password, restore_password, error=DENIED)
    yield Fault("rights revoked", "the user may run nothing any more", revoke_rights, grant_rights, error=DENIED)
    yield Fault(
        "index dropped", "every search index, before each cell", idle, idle, renew=drop_indices, refuses=nothing
    )
    yield Fault(
        "module missing",
        elsewhere,
        module.begin,
        module.end,
        refuses=searches,
        error="ServerRequirementError",
        proxied=True,
        elsewhere=True,
    )


def faults() -> tuple[Fault, ...]:
    """Returns all of them."""
    return (*faults_of_the_network(), *faults_of_the_process(), *faults_of_the_server())
