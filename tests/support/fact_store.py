"""A repository on a fake server, with a clock of its own and short ways to use it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import fakeredis

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.facts.draft import FactDraft, content_digest, draft_fact, revision
from knowledge_base.facts.parts import FactParts, labels
from knowledge_base.facts.records import FactRecord
from knowledge_base.facts.repository import FactRepository, Stored
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import Keyspace
from knowledge_base.settings import Limits

NAMESPACE = "acme"
GENERATION = Generation(NAMESPACE, 1, "stub", 4)
KEYS = Keyspace(NAMESPACE)
LIMITS = Limits()
HISTORY = 3
LEASE_MS = 30_000
LASTING = {KEYS.counters, KEYS.generation, KEYS.inserts}


class Store:
    """A repository with a clock of its own, and short ways to use it."""

    def __init__(self, manager: AsyncRedisManager, server: fakeredis.FakeServer, keep_history: int = HISTORY) -> None:
        self.now = time.time_ns() // 1_000_000
        self.threads = WorkloadThreads("encoding", threads=1, waiting=10)
        self.repository = FactRepository(
            manager, self.threads, keep_history=keep_history, lease=LEASE_MS / 1000, now=lambda: self.now
        )
        self.redis: Any = fakeredis.FakeRedis(server=server, decode_responses=True)

    async def put(self, content: str, fact_id: str | None = None, passages: int = 1, **arguments: Any) -> Stored:
        """Stores a fact of so many passages."""
        (stored,) = await self.repository.store(GENERATION, [drafted(content, fact_id, passages, **arguments)])
        assert isinstance(stored, Stored)
        return stored

    async def get(self, fact_id: str, principals: Sequence[str] = ()) -> FactRecord:
        """Reads a fact that is there."""
        (found,) = await self.repository.read(NAMESPACE, [fact_id], principals)
        assert found is not None
        return found

    async def change(self, old: FactRecord, callers: Sequence[str] = (), passages: int = 1, **fields: Any) -> Stored:
        """Updates a fact, its content included if it is among the fields."""
        new = old._replace(**fields)
        digest = content_digest(new.content, old.principals)
        made = FactParts([], [], labels(new.metadata, new.tags, new.source, old.principals), digest)
        if "content" in fields:
            new = new._replace(revision=revision(old.version + 1, digest, passages))
            made = parts(new.content, passages, made.labels, digest)
        return await self.repository.update(GENERATION, old, new, made, callers)

    def keys(self) -> set[str]:
        """Every key there is."""
        return set(self.redis.keys("*"))

    def counts(self) -> tuple[dict[str, str], dict[str, str], str | None]:
        """How often each tag and source is counted, and the passages."""
        return (
            self.redis.hgetall(KEYS.tag_counts),
            self.redis.hgetall(KEYS.source_counts),
            self.redis.hget(KEYS.counters, "passages"),
        )


def parts(content: str, passages: int, own_labels: Mapping[str, str], digest: str) -> FactParts:
    return FactParts([f"{content} {at}" for at in range(passages)], [f"stems {content}"], own_labels, digest)


def drafted(
    content: str, fact_id: str | None = None, passages: int = 1, **arguments: Any
) -> tuple[FactDraft, FactParts]:
    draft = draft_fact(content, namespace=NAMESPACE, limits=LIMITS, fact_id=fact_id, **arguments)
    own_labels = labels(draft.metadata, draft.tags, draft.source, draft.principals)
    return draft, parts(content, passages, own_labels, content_digest(draft.content, draft.principals))


def passage_key(record: FactRecord, at: int) -> str:
    return f"{GENERATION.passage_prefix}:{record.fact_id}:{record.revision}:{at}"


def section_key(record: FactRecord, at: int) -> str:
    return f"{GENERATION.section_prefix}:{record.fact_id}:{record.revision}:{at}"
