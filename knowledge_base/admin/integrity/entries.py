"""The part of the integrity check that looks whether the entries of lists and tables stand for facts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Final

from knowledge_base.admin.integrity.findings import Findings
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import LuaScript
from knowledge_base.keyspace import Keyspace
from knowledge_base.types import FindingKind

LOOKED_AT_ONCE = 100
"""Entries that one script looks at."""

LISTS: Final[dict[str, FindingKind]] = {
    **dict.fromkeys(("facts", "documents", "expiring", "contents"), "stray_entries"),
    **dict.fromkeys(("pending", "parked", "attempts"), "stray_pending"),
}
"""The lists and tables, by name without the root, and what a stray entry of each is called."""

HASHES = frozenset({"contents", "parked", "attempts"})


class EntryInspector:
    """Looks at the entries of the lists of one namespace, each a script that may remove what is stray.

    Args:
        manager: The connections.
        namespace: The namespace.
        findings: Told what was found.
        repair: Whether stray entries are removed.
    """

    def __init__(self, manager: AsyncRedisManager, namespace: str, findings: Findings, *, repair: bool) -> None:
        self._manager = manager
        self._root = Keyspace(namespace).root
        self._findings = findings
        self._repair = repair
        self._inspect = LuaScript("knowledge_base.admin", "inspect_entries", repeatable=True)

    async def inspect_all(self) -> None:
        """Looks at every list but those of what principals see."""
        for name, kind in LISTS.items():
            await self._run(f"{self._root}{name}", kind)

    async def inspect_visible(self, key: str) -> None:
        """Looks at the list of what a principal sees.

        Args:
            key: Its key.
        """
        await self._run(key, "stray_entries")

    async def _run(self, key: str, kind: FindingKind) -> None:
        client = await self._manager.main()
        name = key.removeprefix(self._root)
        async for members in self._pages(key):
            for begin in range(0, len(members), LOOKED_AT_ONCE):
                some = members[begin : begin + LOOKED_AT_ONCE]
                request = json.dumps({"root": self._root, "list": name, "repair": self._repair, "members": some})
                for member in await self._inspect(client, [key], [request]):
                    self._findings.add(kind, key, repaired=self._repair, detail=f"entry {member}")

    async def _pages(self, key: str) -> AsyncIterator[list[str]]:
        client = await self._manager.main()
        scan = client.hscan if key.removeprefix(self._root) in HASHES else client.zscan
        cursor = -1
        while cursor:
            cursor, rows = await scan(key, max(cursor, 0), count=LOOKED_AT_ONCE)
            yield [row if isinstance(row, str) else row[0] for row in rows]
