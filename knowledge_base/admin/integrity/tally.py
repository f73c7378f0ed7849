"""What the facts and documents of a namespace add up to."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import Counter
from dataclasses import dataclass, field

from knowledge_base.connection.hashes import Row, read_hashes
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.keyspace import Keyspace

PAGE = 100
"""Facts that are added up before others have the server for themselves."""

PAUSE = 0.001
FIELDS = ("version", "seq", "passages", "sections", "tags", "source", "document", "expires_at")

SOON_MS = 5_000
"""A fact that expires within so many milliseconds may be gone before everything is added up."""


@dataclass
class Tally:
    """Sums over all facts and documents. Two that are equal say that nothing was changed between them."""

    passages: int = 0
    sections: int = 0
    tags: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    fingerprint: int = 0
    """Sum over what tells each version of each fact from all others."""
    is_steady: bool = True
    """Whether nothing expires just now, and each record could be read."""

    def add(self, fact_id: str, row: Row, now: int, *, documents: bool) -> None:
        """Adds one fact or document.

        Args:
            fact_id: Its id.
            row: The values of ``FIELDS``.
            now: Milliseconds since 1970.
            documents: Whether it stands on the list of documents.
        """
        version, seq, passages, sections, tags, source, document, expires_at = row
        if (version is None and passages is None) or bool(document) != documents:
            # An entry that stands for nothing.
            return
        self.fingerprint += zlib.crc32(f"{fact_id}\x00{seq}\x00{version}".encode()) * (1 + len(fact_id))
        try:
            self.passages += int(passages or "")
            self.sections += int(sections or "")
            if expires_at and int(expires_at) <= now + SOON_MS:
                self.is_steady = False
            if not document:
                self.tags.update(json.loads(tags or "") if tags != "[]" else ())
                self.sources.update([source] if source else ())
        except (ValueError, TypeError):
            self.is_steady = False


async def tally_of(manager: AsyncRedisManager, namespace: str, now: int) -> Tally:
    """Adds up the facts and documents of a namespace as they are listed.

    Args:
        manager: The connections.
        namespace: The namespace.
        now: Milliseconds since 1970.

    Raises:
        UnavailableError: Redis could not be reached.
    """
    client = await manager.main()
    keys = Keyspace(namespace)
    tally = Tally()
    for listed in (keys.facts, keys.documents):
        after = "-inf"
        while page := await client.zrangebyscore(listed, after, "+inf", start=0, num=PAGE, withscores=True):
            ids = [fact_id for fact_id, _ in page]
            read = 0
            async for rows in read_hashes(client, [keys.fact(fact_id) for fact_id in ids], FIELDS):
                for row in rows:
                    tally.add(ids[read], row, now, documents=listed == keys.documents)
                    read += 1
            after = f"({page[-1][1]:.0f}"
            await asyncio.sleep(PAUSE)
    return tally
