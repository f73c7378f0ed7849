"""The embedded server with real processes: who starts it, who shares it, and who is gone when it must be gone."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from knowledge_base.connection.embedded_server import (
    LOG_NAME,
    SOCKET_NAME,
    EmbeddedServer,
    default_data_dir,
)
from knowledge_base.connection.embedded_supervisor import TRIES
from knowledge_base.errors import OperationTimeoutError, UnavailableError
from tests.support.embedded import (
    WITHIN,
    NewUser,
    OpenServer,
    assert_nothing_runs,
    client_of,
    info,
    mode_of,
    parent_of,
    pid_of,
    process_text,
    processes_of,
    working_folder,
)
from tests.support.polling import eventually

PARENT = """
import subprocess, sys
from pathlib import Path
from knowledge_base.connection.embedded_server import EmbeddedServer

EmbeddedServer(Path(sys.argv[1])).open()
child = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_constructor_touches_nothing(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir)
    server.close()

    assert server.url == f"unix://{data_dir}/{SOCKET_NAME}"
    assert not data_dir.exists()


def test_default_directory_is_the_users_own() -> None:
    assert default_data_dir().name == "knowledge_base"
    assert default_data_dir().is_absolute()


def test_first_open_starts_a_private_server_with_search(data_dir: Path, new_embedded: OpenServer) -> None:
    server = new_embedded()
    url = server.open()

    with client_of(url) as client:
        client.execute_command("FT.CREATE", "idx", "SCHEMA", "body", "TEXT")
        client.hset("doc", mapping={"body": "a red kite"})
        found = cast("list[Any]", client.execute_command("FT.SEARCH", "idx", "kite"))
        policy = cast("list[Any]", client.execute_command("FT.CONFIG", "GET", "ON_TIMEOUT"))
        port = cast("dict[str, str]", client.config_get("port"))
    assert url == server.url
    assert found[:2] == [1, "doc"]
    assert policy == [["ON_TIMEOUT", "fail"]]
    assert port == {"port": "0"}
    assert {mode_of(data_dir), mode_of(data_dir / SOCKET_NAME), mode_of(data_dir / "appendonlydir")} == {0o700}
    assert mode_of(data_dir / LOG_NAME) == 0o600


async def test_open_and_close_may_be_repeated(data_dir: Path, new_embedded: OpenServer) -> None:
    server = new_embedded()

    first = info(server.open())["run_id"]
    again = info(server.open())["run_id"]
    server.close()
    server.close()

    assert first == again
    await assert_nothing_runs(data_dir)


async def test_close_of_the_last_user_returns_when_the_server_has_stopped(
    data_dir: Path, new_embedded: OpenServer
) -> None:
    server = new_embedded()
    server.open()

    server.close()

    await eventually(lambda: not (data_dir / SOCKET_NAME).exists(), WITHIN)
    shutil.rmtree(data_dir)


def test_neither_server_nor_supervisor_is_a_child_of_the_user(data_dir: Path, new_embedded: OpenServer) -> None:
    server = pid_of(new_embedded().open())

    assert set(processes_of(data_dir)) == {server, parent_of(server)}
    assert os.getpid() not in {parent_of(pid) for pid in processes_of(data_dir)}


def test_second_process_joins_the_same_server(new_embedded: OpenServer, new_user: NewUser) -> None:
    url = new_embedded().open()
    before = info(url)["run_id"]

    joined = new_user().line()

    assert joined == url
    assert info(joined)["run_id"] == before


async def test_objects_of_one_process_share_the_server(data_dir: Path, new_embedded: OpenServer) -> None:
    one, other = new_embedded(), new_embedded()
    before = info(one.open())["run_id"]
    assert info(other.open())["run_id"] == before

    one.close()

    assert info(other.url)["run_id"] == before
    other.close()
    await assert_nothing_runs(data_dir)


def test_threads_may_open_one_object_at_once(data_dir: Path, new_embedded: OpenServer) -> None:
    server = new_embedded()

    with ThreadPoolExecutor(8) as threads:
        urls = {future.result() for future in [threads.submit(server.open) for _ in range(8)]}

    assert urls == {server.url}
    assert len(processes_of(data_dir)) == 2


def test_simultaneous_starts_make_one_server(data_dir: Path, new_user: NewUser) -> None:
    users = [new_user() for _ in range(4)]

    urls = [user.line() for user in users]

    assert len({info(url)["run_id"] for url in urls}) == 1
    assert len(processes_of(data_dir)) == 2


def test_data_and_index_survive_closing_and_reopening(new_embedded: OpenServer) -> None:
    server = new_embedded()
    with client_of(server.open()) as client:
        client.execute_command("FT.CREATE", "idx", "SCHEMA", "body", "TEXT")
        client.hset("before", mapping={"body": "kite"})
        client.bgrewriteaof()
        client.hset("after", mapping={"body": "kite"})
    server.close()

    with client_of(server.open()) as client:
        found = cast("list[Any]", client.execute_command("FT.SEARCH", "idx", "kite", "NOCONTENT"))

    assert found[0] == 2
    assert set(found[1:]) == {"before", "after"}


def test_killed_server_is_started_again_with_its_data(new_embedded: OpenServer) -> None:
    server = new_embedded()
    with client_of(server.open()) as client:
        client.set("key", "value")
    before = pid_of(server.url)

    os.kill(before, signal.SIGKILL)

    with client_of(server.open()) as client:
        assert client.get("key") == "value"
    assert pid_of(server.url) != before


async def test_server_shut_down_by_a_client_is_started_again_unasked(new_embedded: OpenServer) -> None:
    url = new_embedded().open()
    before = pid_of(url)

    with client_of(url) as client:
        client.shutdown()

    def other_pid() -> bool:
        try:
            return pid_of(url) != before
        except redis.ConnectionError:
            return False

    assert await eventually(other_pid, WITHIN)


def test_server_that_is_killed_again_and_again_comes_back(new_embedded: OpenServer) -> None:
    server = new_embedded()
    pids = [pid_of(server.open())]

    # Once more than the supervisor tries, so that open() has to bring another supervisor too.
    for _ in range(TRIES + 1):
        os.kill(pids[-1], signal.SIGKILL)
        pids.append(pid_of(server.open()))

    assert len(set(pids)) == len(pids)


async def test_server_stops_when_the_last_process_leaves(data_dir: Path, new_user: NewUser) -> None:
    first, last = new_user(), new_user()
    url = first.line()
    last.line()
    before = info(url)["run_id"]

    assert first.leave() == 0
    assert info(url)["run_id"] == before

    assert last.leave() == 0
    await assert_nothing_runs(data_dir)


async def test_server_stops_when_every_user_is_killed(data_dir: Path, new_user: NewUser) -> None:
    users = [new_user(), new_user()]
    for user in users:
        user.line()

    for user in users:
        user.kill()

    await assert_nothing_runs(data_dir)


async def test_server_stops_when_its_starter_is_killed_while_starting(data_dir: Path, new_user: NewUser) -> None:
    user = new_user()
    await eventually(lambda: processes_of(data_dir), WITHIN)

    user.kill()

    await assert_nothing_runs(data_dir)


async def test_programs_that_a_user_starts_do_not_keep_the_server(data_dir: Path, new_user: NewUser) -> None:
    user = new_user(PARENT)
    child = int(user.line())

    user.kill()

    try:
        await assert_nothing_runs(data_dir)
        assert "sleep" in process_text(child, "cmdline")
    finally:
        os.kill(child, signal.SIGKILL)


async def test_killed_supervisor_takes_the_server_along(data_dir: Path, new_embedded: OpenServer) -> None:
    server = pid_of(new_embedded().open())

    os.kill(parent_of(server), signal.SIGKILL)

    await assert_nothing_runs(data_dir)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_open_after_the_supervisor_ended_starts_anew(
    data_dir: Path, new_embedded: OpenServer, how: signal.Signals
) -> None:
    server = new_embedded()
    with client_of(server.open()) as client:
        client.set("key", "value")
    before = pid_of(server.url)
    supervisor = parent_of(before)

    os.kill(supervisor, how)
    await eventually(lambda: not {supervisor, before} & set(processes_of(data_dir)), WITHIN)

    with client_of(server.open()) as client:
        assert client.get("key") == "value"
    assert pid_of(server.url) != before
    await eventually(lambda: len(processes_of(data_dir)) == 2, WITHIN)
    server.close()
    await assert_nothing_runs(data_dir)


async def test_frozen_server_without_supervisor_is_never_joined_by_a_second(
    data_dir: Path, new_embedded: OpenServer
) -> None:
    first = new_embedded(start_timeout=0.5)
    server = pid_of(EmbeddedServer.open(first))
    os.kill(server, signal.SIGSTOP)
    os.kill(parent_of(server), signal.SIGKILL)
    await eventually(lambda: parent_of(server) not in processes_of(data_dir), WITHIN)

    with pytest.raises(OperationTimeoutError):
        first.open()
    servers = [pid for pid in processes_of(data_dir) if working_folder(pid) == str(data_dir)]
    os.kill(server, signal.SIGCONT)

    assert servers == [server]
    assert pid_of(new_embedded().open()) != server


def test_start_that_takes_too_long_can_be_waited_for_again(new_embedded: OpenServer) -> None:
    server = pid_of(new_embedded().open())
    late = new_embedded(start_timeout=0.2)
    os.kill(server, signal.SIGSTOP)

    try:
        with pytest.raises(OperationTimeoutError, match="waiting for the server to answer") as raised:
            late.open()
    finally:
        os.kill(server, signal.SIGCONT)

    assert raised.value.budget == 0.2
    assert pid_of(new_embedded().open()) == server


def test_open_waits_until_the_data_is_loaded(data_dir: Path, new_embedded: OpenServer) -> None:
    keys = 300_000
    data_dir.mkdir()
    written = b"".join(b"*3\r\n$3\r\nSET\r\n$7\r\nk%06d\r\n$1\r\nv\r\n" % key for key in range(keys))
    (data_dir / "appendonly.aof").write_bytes(written)

    with client_of(new_embedded().open()) as client:
        assert client.dbsize() == keys


async def test_close_ends_an_open_that_waits(new_embedded: OpenServer) -> None:
    server = pid_of(new_embedded().open())
    waiting = new_embedded()
    os.kill(server, signal.SIGSTOP)

    try:
        with ThreadPoolExecutor(1) as threads:
            opening = threads.submit(waiting.open)
            await eventually(lambda: waiting._membership is not None, WITHIN)
            closing_thread = threading.Thread(target=waiting.close)
            closing_thread.start()
            with pytest.raises(UnavailableError, match="closed"):
                opening.result(timeout=WITHIN)
            closing_thread.join()
    finally:
        os.kill(server, signal.SIGCONT)
