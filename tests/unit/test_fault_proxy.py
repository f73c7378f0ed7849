"""The proxy that faults are made with, before a server that echoes lines."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.support.fault_proxy import GARBAGE, FaultProxy, Mood
from tests.support.polling import eventually
from tests.support.sockets import open_sockets

LINE = b"0123456789\n"
SHORT = 0.2
LONG = 10.0


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        try:
            while line := self.rfile.readline():
                self.server.lines.append(line)  # type: ignore[attr-defined]
                self.wfile.write(line)
        except ConnectionError:
            return


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.lines: list[bytes] = []
        self.port: int = self.server_address[1]


@pytest.fixture
def new_echo() -> Iterator[Callable[[], EchoServer]]:
    servers: list[EchoServer] = []

    def make() -> EchoServer:
        servers.append(EchoServer())
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def echo(new_echo: Callable[[], EchoServer]) -> EchoServer:
    return new_echo()


@pytest.fixture
def proxy(echo: EchoServer) -> Iterator[FaultProxy]:
    one = FaultProxy(echo.port).start()
    yield one
    one.close()


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    with closing(dial(proxy)) as connection:
        assert ask(connection) == LINE
        yield connection


def dial(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=LONG)


def received(connection: socket.socket, size: int) -> bytes:
    """Reads so many bytes, or what came before the end."""
    got = b""
    while len(got) < size and (chunk := connection.recv(size - len(got))):
        got += chunk
    return got


def ask(connection: socket.socket, line: bytes = LINE) -> bytes:
    connection.sendall(line)
    return received(connection, len(line))


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(SHORT)
    try:
        return connection.recv(1) is None
    except TimeoutError:
        return True
    finally:
        connection.settimeout(LONG)


def is_reset(connection: socket.socket) -> bool:
    try:
        connection.sendall(LINE)
        return connection.recv(1) is None
    except ConnectionResetError:
        return True


def test_pass_hands_on_what_is_said_either_way(client: socket.socket, echo: EchoServer) -> None:
    big = b"x" * 1_000_000 + b"\n"

    answer = ask(client, big)

    assert answer == big
    assert echo.lines == [LINE, big]


def test_delay_holds_each_reply_back(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.become("delay", SHORT)

    begun = time.monotonic()
    answer = ask(client)

    assert answer == LINE
    assert time.monotonic() - begun >= SHORT


def test_delay_ends_with_the_mood(proxy: FaultProxy, client: socket.socket, echo: EchoServer) -> None:
    proxy.become("delay", 3_600)
    client.sendall(LINE)
    assert is_silent(client)

    proxy.become("pass")

    assert received(client, len(LINE)) == LINE


def test_blackhole_takes_everything_and_answers_nothing(
    proxy: FaultProxy, client: socket.socket, echo: EchoServer
) -> None:
    proxy.become("blackhole")

    with closing(dial(proxy)) as fresh:
        for connection in (client, fresh):
            connection.sendall(LINE * 1_000)
            assert is_silent(connection)

    assert echo.lines == [LINE]


def test_connection_that_lost_something_does_not_go_on_after_the_blackhole(
    proxy: FaultProxy, client: socket.socket
) -> None:
    proxy.become("blackhole")
    client.sendall(LINE[:5])
    assert is_silent(client)

    proxy.become("pass")

    assert is_reset(client)
    with closing(dial(proxy)) as fresh:
        assert ask(fresh) == LINE


def test_idle_connection_goes_on_after_the_blackhole(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.become("blackhole")

    proxy.become("pass")

    assert ask(client) == LINE


def test_reset_ends_open_and_new_connections_at_once(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.become("reset")

    with pytest.raises(ConnectionResetError):
        client.recv(1)
    # The reset may come while the dialling is still under way.
    with pytest.raises(ConnectionResetError), closing(dial(proxy)) as fresh:
        fresh.recv(1)


def test_drop_resets_open_connections_and_serves_new_ones(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.drop()

    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with closing(dial(proxy)) as fresh:
        assert ask(fresh) == LINE


def test_lost_reply_takes_its_connection_with_it_and_no_other(
    proxy: FaultProxy, client: socket.socket, echo: EchoServer
) -> None:
    proxy.lose(1)

    with pytest.raises(ConnectionResetError):
        ask(client)
    with closing(dial(proxy)) as fresh:
        assert ask(fresh) == LINE
    assert echo.lines == [LINE] * 3


def test_cut_sends_half_a_reply_and_closes(proxy: FaultProxy, client: socket.socket, echo: EchoServer) -> None:
    proxy.become("cut")

    answer = ask(client)

    assert answer == LINE[: len(LINE) // 2]
    assert echo.lines == [LINE, LINE]


def test_drip_sends_one_byte_at_a_time(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.become("drip", SHORT / len(LINE))
    client.sendall(LINE)

    begun = time.monotonic()
    pieces = [client.recv(1)]
    pieces += [client.recv(len(LINE)) for _ in range(2)]
    rest = received(client, len(LINE) - len(b"".join(pieces)))

    assert b"".join(pieces) + rest == LINE
    assert len(pieces[-1]) < len(LINE) / 2
    assert time.monotonic() - begun >= SHORT / 2


def test_bandwidth_limits_bytes_a_second(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.become("bandwidth", 10_000)
    line = b"x" * 2_999 + b"\n"

    begun = time.monotonic()
    answer = ask(client, line)

    assert answer == line
    assert time.monotonic() - begun >= SHORT


def test_garbage_answers_what_nobody_asked(proxy: FaultProxy, client: socket.socket, echo: EchoServer) -> None:
    proxy.become("garbage")

    client.sendall(LINE)

    assert received(client, len(GARBAGE)) == GARBAGE
    assert echo.lines == [LINE]


def test_refuse_closes_the_port_until_another_mood(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.become("refuse")

    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        dial(proxy)
    proxy.become("pass")
    with closing(dial(proxy)) as fresh:
        assert ask(fresh) == LINE


def test_server_that_is_away_ends_the_connection(proxy: FaultProxy, echo: EchoServer) -> None:
    echo.shutdown()
    echo.server_close()

    try:
        with closing(dial(proxy)) as fresh:
            ended = is_reset(fresh)
    except ConnectionResetError:
        # Before the caller's side had finished connecting.
        ended = True

    assert ended


def test_connections_lead_elsewhere_when_told(proxy: FaultProxy, new_echo: Callable[[], EchoServer]) -> None:
    other = new_echo()

    proxy.lead_to(other.port)
    with closing(dial(proxy)) as fresh:
        answer = ask(fresh)

    assert answer == LINE
    assert other.lines == [LINE]


def test_login_is_part_of_the_url(proxy: FaultProxy) -> None:
    assert proxy.url == f"redis://127.0.0.1:{proxy.port}/0"
    assert proxy.url_for("ann", "secret") == f"redis://ann:secret@127.0.0.1:{proxy.port}/0"


async def test_blocked_event_loop_does_not_stall_it(proxy: FaultProxy, client: socket.socket) -> None:
    # This coroutine never yields, so its own loop stands still.
    proxy.become("delay", 0.01)

    assert ask(client) == LINE


@pytest.mark.parametrize("mood", ["pass", "delay", "blackhole", "reset", "cut", "drip", "bandwidth", "garbage"])
async def test_closed_proxy_leaves_no_socket_and_no_thread(echo: EchoServer, mood: Mood) -> None:
    sockets, threads = open_sockets(), set(threading.enumerate())
    one = FaultProxy(echo.port).start()
    connections = [dial(one) for _ in range(5)]
    one.become(mood)
    for connection in connections:
        if mood != "reset":
            connection.sendall(LINE)

    one.close()
    for connection in connections:
        connection.close()

    await eventually(lambda: open_sockets() <= sockets)
    assert not any(thread.name == "fault-proxy" for thread in set(threading.enumerate()) - threads)
