"""What the scripts that store and change facts are told: JSON, which may be megabytes of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from knowledge_base.connection.giving_way import giving_way
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.facts.draft import FactDraft, revision
from knowledge_base.facts.parts import FactParts, has_few_values
from knowledge_base.facts.records import FactRecord
from knowledge_base.facts.validation import encoded_json
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import Keyspace

INLINE_CHARACTERS = 100_000
"""Requests up to about this length are made on the event loop: it takes less than the way to a thread and back."""

ENCODING_SECONDS = 30.0
"""Longest wait for a thread that encodes."""


class FactRequests:
    """Makes requests; long ones in worker threads.

    Args:
        threads: Where long requests are made.
        keep_history: Earlier versions kept of each fact.
        lease: Seconds that whoever stored a fact has to index it before the background takes it.
        now: The time in milliseconds since 1970.
    """

    def __init__(self, threads: WorkloadThreads, *, keep_history: int, lease: float, now: Callable[[], int]) -> None:
        self._threads = threads
        self._keep_history = keep_history
        self._lease_ms = int(lease * 1000)
        self._now = now

    async def store(self, generation: Generation, draft: FactDraft, parts: FactParts) -> str:
        """Returns the request that stores a new fact.

        Args:
            generation: Where its passages go.
            draft: The fact.
            parts: Its parts.

        Raises:
            OverloadedError: Too much waits for the threads already.
            OperationTimeoutError: No thread was free in time.
        """
        length = _length(draft.content, parts)
        return await self._made(lambda: self._store_fields(generation, draft, parts), draft.metadata, length)

    async def update(
        self,
        generation: Generation,
        old: FactRecord,
        new: FactRecord,
        parts: FactParts,
        callers: Sequence[str],
    ) -> str:
        """Returns the request that switches a fact to its next version.

        Args:
            generation: Where its passages are.
            old: The fact as it was read.
            new: The fact as it shall be.
            parts: Its new parts.
            callers: Who is asking.

        Raises:
            OverloadedError: Too much waits for the threads already.
            OperationTimeoutError: No thread was free in time.
        """
        length = _length(new.content, parts)
        return await self._made(lambda: self._update_fields(generation, old, new, parts, callers), new.metadata, length)

    async def _made(self, fields: Callable[[], dict[str, Any]], metadata: Mapping[str, Any], length: int) -> str:
        def make() -> str:
            # Encoding is a single step for the interpreter, in which no other thread runs: one field at a time.
            encoded = (f"{encoded_json(name)}:{encoded_json(value)}" for name, value in giving_way(fields().items()))
            return "{" + ",".join(encoded) + "}"

        if length <= INLINE_CHARACTERS and has_few_values(metadata):
            return make()
        return await self._threads.to_thread(make, step="encoding a fact", limit=ENCODING_SECONDS)

    def _store_fields(self, generation: Generation, draft: FactDraft, parts: FactParts) -> dict[str, Any]:
        now = self._now()
        return {
            **base_request(generation, now),
            **self._part_fields(parts, now),
            "fact_id": draft.fact_id,
            "content": draft.content,
            "metadata": encoded_json(draft.metadata),
            "tags": encoded_json(draft.tags),
            "source": draft.source or "",
            "principals": encoded_json(draft.principals),
            "document": "",
            "expires_at": "" if draft.expires_in is None else str(now + max(1, int(draft.expires_in * 1000))),
            "revision": revision(1, parts.digest, len(parts.passages)),
            "generation": {
                "number": str(generation.number),
                "model": generation.model,
                "dimension": str(generation.dimension),
                "build": str(generation.build),
            },
        }

    def _update_fields(
        self, generation: Generation, old: FactRecord, new: FactRecord, parts: FactParts, callers: Sequence[str]
    ) -> dict[str, Any]:
        now = self._now()
        return {
            **base_request(generation, now),
            **self._part_fields(parts, now),
            "fact_id": old.fact_id,
            "base_version": str(old.version),
            "base_seq": old.seq,
            "callers": list(callers),
            "content": new.content,
            "metadata": encoded_json(new.metadata),
            "tags": encoded_json(new.tags),
            "source": new.source or "",
            "revision": new.revision,
            "keep_history": self._keep_history,
        }

    def _part_fields(self, parts: FactParts, now: int) -> dict[str, Any]:
        return {
            "digest": parts.digest,
            "labels": parts.labels,
            "passages": parts.passages,
            "sections": parts.sections,
            "due": str(now + self._lease_ms),
            # Names this very request, in case it comes twice.
            "nonce": secrets.token_hex(6),
        }


def base_request(generation: Generation, now: int) -> dict[str, Any]:
    """Returns what every script is told.

    Args:
        generation: Where the passages are.
        now: Milliseconds since 1970.
    """
    return {
        "root": Keyspace(generation.namespace).root,
        "number": str(generation.number),
        "now": str(now),
    }


def _length(content: str, parts: FactParts) -> int:
    return len(content) + sum(map(len, parts.labels.values())) + sum(map(len, parts.passages))
