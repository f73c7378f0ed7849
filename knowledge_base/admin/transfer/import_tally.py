"""What became of the entries of a file so far, kept in Redis, so that an import can be gone on with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.keyspace import Keyspace
from knowledge_base.types import Failure, ImportReport

MOST_FAILURES = 1_000
"""Failures that are told one by one; the others are counted."""

KEPT_SECONDS = 7 * 86_400
"""How long an import that was interrupted can be gone on with."""


@dataclass(slots=True)
class ImportTally:
    """The counts of an import, and the line up to which they count."""

    line: int = 0
    there: int = 0
    """Facts and documents that the namespace had when this was noted."""
    processed: int = 0
    succeeded: int = 0
    duplicates: int = 0
    replaced: int = 0
    expired: int = 0
    embedded: int = 0
    failures: int = 0
    failed: list[Failure] = field(default_factory=list)

    def copy(self) -> ImportTally:
        """Returns a copy, to be counted on with until what it counts is safe."""
        return replace(self, failed=list(self.failed))

    def fail(self, line: int, problem: str) -> None:
        """Counts an entry that could not be imported.

        Args:
            line: Where it begins.
            problem: Why, without content.
        """
        self.processed += 1
        self.failures += 1
        if len(self.failed) < MOST_FAILURES:
            self.failed.append({"line": line, "error": problem})

    def report(self, *, stopped_by: str | None, dry_run: bool) -> ImportReport:
        """Returns what callers get.

        Args:
            stopped_by: Why not every entry was looked at; None when each was.
            dry_run: Whether nothing was changed.
        """
        return {
            "processed": self.processed,
            "succeeded": self.succeeded,
            "duplicates": self.duplicates,
            "failed": self.failed,
            "completed": stopped_by is None,
            "replaced": self.replaced,
            "expired": self.expired,
            "embedded": self.embedded,
            "failures": self.failures,
            "stopped_by": stopped_by,
            "dry_run": dry_run,
        }


class ImportJournal:
    """The journal of one import: beside the data, so that it goes when the data go.

    An import into several namespaces has none: it looks at every entry again, and finds what is there already.

    Args:
        manager: The connections.
        namespace: Where everything goes, or None for several.
        name: Tells the import from others: by its file's content and its options.
    """

    def __init__(self, manager: AsyncRedisManager, namespace: str | None, name: str) -> None:
        self._manager = manager
        self._keys = None if namespace is None else Keyspace(namespace)
        self._key = None if self._keys is None else self._keys.import_journal(name)

    async def read(self) -> ImportTally:
        """Returns how far an earlier attempt came; an empty tally when there was none, or when there is less now."""
        if self._key is None:
            return ImportTally()
        written = await (await self._manager.main()).get(self._key)
        tally = ImportTally() if written is None else ImportTally(**json.loads(written))
        # What was imported may have been deleted since; looking at every entry again brings it back.
        return tally if await self._count() >= tally.there else ImportTally()

    async def write(self, tally: ImportTally) -> None:
        """Notes how far this attempt came.

        Args:
            tally: The counts.
        """
        if self._key is not None:
            tally.there = await self._count()
            written = json.dumps(asdict(tally), ensure_ascii=False)
            await (await self._manager.main()).set(self._key, written, ex=KEPT_SECONDS)

    async def _count(self) -> int:
        assert self._keys is not None
        pipeline = (await self._manager.main()).pipeline(transaction=False)
        pipeline.zcard(self._keys.facts)
        pipeline.zcard(self._keys.documents)
        return sum(await pipeline.execute())

    async def end(self) -> None:
        """Forgets the import, which is done."""
        if self._key is not None:
            await (await self._manager.main()).delete(self._key)
