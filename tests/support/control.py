"""A plain synchronous client that looks at a server from outside the code under test."""

from __future__ import annotations

from typing import Any, cast

import redis


class Control:
    """What tests want to know of a server."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, socket_timeout=5)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def ping(self) -> bool:
        """Whether the server answers."""
        return bool(self._client.ping())

    def connections(self) -> list[dict[str, str]]:
        """Every open connection, this one included."""
        return cast("list[dict[str, str]]", self._client.client_list())

    def keys(self, namespace: str) -> set[str]:
        """Every key of a namespace."""
        return {key.decode() for key in self._client.scan_iter(f"kb:{{{namespace}}}:*", count=10_000)}

    def indexes(self, namespace: str) -> set[str]:
        """Every search index of a namespace."""
        names = [name.decode() for name in cast("list[bytes]", self.run("FT._LIST"))]
        return {name for name in names if name.startswith(f"kb:{{{namespace}}}:")}

    def dump(self, namespace: str) -> dict[str, Any]:
        """Every key of a namespace with its serialised value, to see that nothing changed."""
        return {key: self._client.dump(key) for key in self.keys(namespace)}

    def calls(self, *commands: str) -> int:
        """How often the server has run these commands since it started."""
        stats = cast("dict[str, Any]", self._client.info("commandstats"))
        return sum(int(stats[f"cmdstat_{name}"]["calls"]) for name in commands if f"cmdstat_{name}" in stats)

    def run(self, *command: Any) -> Any:
        """Runs any command."""
        return self._client.execute_command(*command)
