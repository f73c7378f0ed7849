"""``Exchange``: one request to the LLM, which the event loop can end although a thread waits for it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from knowledge_base.answers.parts import Parts
from knowledge_base.errors import LLMUnavailableError

OPENED = ("connect_tcp.complete", "start_tls.complete")
"""What httpx calls the moments at which a connection has a new socket."""

NOBODY_WAITS = "nobody waits for the answer any more"

_current: ContextVar[Exchange | None] = ContextVar("knowledge_base_exchange", default=None)


class Exchange:
    """What the event loop and the worker thread of one request to the LLM share.

    A thread that waits for an endpoint cannot be interrupted; but the connection it waits for can be cut, which lets
    it return at once, and tells the endpoint that nobody wants the answer any more.

    Args:
        parts: Takes the answer part by part; None where it is wanted as a whole.
    """

    def __init__(self, parts: Parts | None = None) -> None:
        self.parts = parts
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_stopped = False
        self._has_begun = False

    @property
    def is_stopped(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._is_stopped

    @property
    def has_begun(self) -> bool:
        """Whether a thread has taken the request up."""
        return self._has_begun

    def begin(self) -> None:
        """Makes this the exchange of the worker thread that calls, whose context must be its own.

        Raises:
            LLMUnavailableError: Nobody waits for the answer any more.
        """
        self.require_reader()
        self._has_begun = True
        _current.set(self)

    def hand_over(self, part: str) -> None:
        """Gives the reader a part of the answer; called in the worker thread.

        Args:
            part: The next words.

        Raises:
            LLMUnavailableError: Nobody waits for the answer any more.
        """
        assert self.parts is not None
        self.require_reader()
        if not self.parts.put(part):
            raise LLMUnavailableError(NOBODY_WAITS)

    def require_reader(self) -> None:
        """Ends what the worker thread does when it is in vain.

        Raises:
            LLMUnavailableError: Nobody waits for the answer any more.
        """
        if self._is_stopped:
            raise LLMUnavailableError(NOBODY_WAITS)

    def stop(self) -> None:
        """Ends the request as soon as can be; called from the event loop, any number of times."""
        with self._lock:
            self._is_stopped = True
            self._cut()
        if self.parts is not None:
            self.parts.stop()

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Learns the connection of the request; httpx calls it in the worker thread.

        Args:
            event: What has happened.
            info: More about it.
        """
        if not event.endswith(OPENED):
            return
        with self._lock:
            self._socket = info["return_value"].get_extra_info("socket")
            if self._is_stopped:
                self._cut()

    def _cut(self) -> None:
        if self._socket is not None:
            # The plain method also for TLS: its own would take the state away that the other thread reads with.
            # A socket that is closed already, or has become TLS's, has nothing to be cut.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def current_exchange() -> Exchange | None:
    """Returns the exchange of the calling thread, if it has one."""
    return _current.get()
