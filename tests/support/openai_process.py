"""The fake endpoint in a process of its own, which costs the loop of whoever measures nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import Any

from tests.support.openai_moods import Kind

WITHIN = 20.0


class EndpointProcess:
    """A running endpoint; used as a context manager. Its methods block.

    Args:
        latency: Seconds that each answer takes.
        size: Dimensions of a vector.
    """

    def __init__(self, *, latency: float = 0.0, size: int = 32) -> None:
        command = [sys.executable, "-m", "tests.support.openai_endpoint"]
        self._command = [*command, "--latency", str(latency), "--size", str(size)]
        self._process: subprocess.Popen[str] | None = None
        self.base_url = ""

    def __enter__(self) -> EndpointProcess:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().strip()
        assert self.base_url, "the endpoint did not start"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.communicate(timeout=WITHIN)

    def tell(self, **order: Any) -> None:
        """Gives an order.

        Args:
            **order: See ``OpenAIEndpoint.obey``.
        """
        self._ask(json.dumps(order).encode())

    def become(self, kind: Kind, **details: Any) -> None:
        """Sets how every request is answered from now on; those that hang are released.

        Args:
            kind: The mood.
            **details: Further fields of ``Mood``.
        """
        self.tell(become={"kind": kind, **details})

    def reset(self) -> None:
        """Begins to count anew."""
        self.tell(reset=True)

    def counters(self) -> dict[str, int]:
        """Returns the counts."""
        counted: dict[str, int] = self._ask()
        return counted

    def inputs(self) -> list[list[str]]:
        """Returns the texts of each request, in order of arrival."""
        found: list[list[str]] = self._ask(query="?inputs=1")["inputs"]
        return found

    def _ask(self, order: bytes | None = None, query: str = "") -> Any:
        request = urllib.request.Request(
            self.base_url.removesuffix("/v1") + "/_control" + query,
            data=order,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=WITHIN) as answer:
            return json.loads(answer.read())
