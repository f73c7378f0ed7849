"""The connection of a request to the LLM: cut when nobody waits any more, whenever it comes to be."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from knowledge_base.answers.exchange import Exchange
from knowledge_base.errors import LLMUnavailableError

CONNECTED = "connection.connect_tcp.complete"


@dataclass
class Stream:
    """What httpx says has connected."""

    own: socket.socket

    def get_extra_info(self, name: str) -> Any:
        return {"socket": self.own}[name]


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    own, other = socket.socketpair()
    other.settimeout(5.0)
    yield own, other
    own.close()
    other.close()


def test_connection_is_cut_when_the_exchange_stops(ends: tuple[socket.socket, socket.socket]):
    own, other = ends
    exchange = Exchange()
    exchange.trace(CONNECTED, {"return_value": Stream(own)})

    exchange.stop()

    assert other.recv(1) == b""


def test_connection_that_comes_too_late_is_cut_at_once(ends: tuple[socket.socket, socket.socket]):
    own, other = ends
    exchange = Exchange()
    exchange.stop()

    exchange.trace(CONNECTED, {"return_value": Stream(own)})

    assert other.recv(1) == b""


def test_connection_stays_while_somebody_waits(ends: tuple[socket.socket, socket.socket]):
    own, other = ends
    exchange = Exchange()

    exchange.trace(CONNECTED, {"return_value": Stream(own)})
    exchange.trace("http11.send_request_headers.complete", {"return_value": None})
    own.sendall(b"x")

    assert other.recv(1) == b"x"


def test_stopping_twice_or_after_the_connection_was_closed_is_nothing(ends: tuple[socket.socket, socket.socket]):
    own, _ = ends
    exchange = Exchange()
    exchange.trace(CONNECTED, {"return_value": Stream(own)})
    own.close()

    exchange.stop()
    exchange.stop()

    assert exchange.is_stopped


def test_thread_does_not_begin_what_nobody_waits_for():
    exchange = Exchange()
    exchange.stop()

    with pytest.raises(LLMUnavailableError):
        exchange.begin()

    assert not exchange.has_begun
