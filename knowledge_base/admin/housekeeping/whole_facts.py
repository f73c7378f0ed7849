"""Facts with all that is kept of them, read from one namespace to be written into another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from knowledge_base.connection.hashes import read_bytes, read_hashes
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.errors import UnavailableError
from knowledge_base.facts.parts import FactParts, PartMaker, has_few_values, labels
from knowledge_base.facts.records import FIELDS, FactRecord, decode_record
from knowledge_base.facts.restore import WholeFact
from knowledge_base.index.schema import STEM_FIELD, VECTOR_FIELD, Generation
from knowledge_base.keyspace import Keyspace, PartName

MORE_FIELDS = ("digest", "passages", "sections")
PARTS_AT_ONCE = 128
"""Passages, or sections, that one round trip brings."""

RACES = 5
"""How often a fact is read again that was changed meanwhile."""

DECODING_SECONDS = 30.0


class _Stored(NamedTuple):
    record: FactRecord
    digest: str
    passages: int
    sections: int
    history: Sequence[str]


class WholeFacts:
    """Reads facts with history, parts and vectors.

    Args:
        manager: The connections.
        parts: Makes parts anew where some are missing.
        threads: Where much is decoded.
    """

    def __init__(self, manager: AsyncRedisManager, parts: PartMaker, threads: WorkloadThreads) -> None:
        self._manager = manager
        self._parts = parts
        self._threads = threads

    async def read(self, generation: Generation, fact_ids: Sequence[str]) -> list[WholeFact]:
        """Returns facts; those that are gone, and documents, are left out.

        Args:
            generation: Where their parts are.
            fact_ids: The facts.

        Raises:
            UnavailableError: Redis could not be reached, or one of them was changed all the time.
        """
        found: dict[str, WholeFact] = {}
        waiting = list(fact_ids)
        for attempt in range(RACES):
            stored = await self._stored(generation.namespace, waiting)
            names = [name for one in stored for name in _node_ids(one.record, one.passages)]
            passages = iter(await self._read(generation.passage_prefix, names, ("text", VECTOR_FIELD)))
            names = [name for one in stored for name in _node_ids(one.record, one.sections)]
            sections = iter(await self._read(generation.section_prefix, names, (STEM_FIELD,)))
            for one in stored:
                own = list(islice(passages, one.passages)), list(islice(sections, one.sections))
                whole = await self._whole(generation, one, *own, is_last=attempt == RACES - 1)
                if whole is not None:
                    found[one.record.fact_id] = whole
                await asyncio.sleep(0)
            waiting = [one.record.fact_id for one in stored if one.record.fact_id not in found]
            if not waiting:
                return [found[fact_id] for fact_id in fact_ids if fact_id in found]
        raise UnavailableError("a fact was changed each time that it was read; retry")

    async def _stored(self, namespace: str, fact_ids: Sequence[str]) -> list[_Stored]:
        client = await self._manager.main()
        keys = Keyspace(namespace)
        names = [keys.fact(fact_id) for fact_id in fact_ids]
        rows = [row async for some in read_hashes(client, names, (*FIELDS, *MORE_FIELDS)) for row in some]
        pipeline = client.pipeline(transaction=False)
        for fact_id in fact_ids:
            pipeline.lrange(keys.history(fact_id), 0, -1)
        histories = await pipeline.execute()
        found: list[_Stored] = []
        for fact_id, row, history in zip(fact_ids, rows, histories, strict=True):
            record = decode_record(fact_id, row[: len(FIELDS)])
            digest, passages, sections = row[len(FIELDS) :]
            if record is not None and record.document_id is None:
                found.append(_Stored(record, digest or "", int(passages or 0), int(sections or 0), history))
        return found

    async def _whole(
        self,
        generation: Generation,
        stored: _Stored,
        passages: Sequence[Sequence[bytes | None]],
        sections: Sequence[Sequence[bytes | None]],
        *,
        is_last: bool,
    ) -> WholeFact | None:
        record = stored.record
        described = (record.metadata, record.tags, record.source, record.principals)
        vectors: list[bytes] | None = None
        if all(row[0] is not None for row in (*passages, *sections)):
            if has_few_values(record.metadata):
                own_labels = labels(*described)
            else:
                own_labels = await self._threads.to_thread(
                    labels, *described, step="labelling metadata", limit=DECODING_SECONDS
                )
            texts, stems = _decoded(passages), _decoded(sections)
            parts = FactParts(texts, stems, own_labels, stored.digest)
            given = [row[1] for row in passages if row[1] is not None]
            length = 4 * generation.dimension
            if len(given) == len(texts) and all(len(vector) == length for vector in given):
                vectors = given
        elif is_last:
            # Something has taken them away; the content is there.
            parts = await self._parts.make(generation.namespace, record.content, *described)
        else:
            return None
        return WholeFact(
            fact_id=record.fact_id,
            content=record.content,
            metadata=record.metadata,
            tags=record.tags,
            source=record.source,
            principals=record.principals,
            version=record.version,
            created_at=record.created_at,
            updated_at=record.updated_at,
            expires_at=record.expires_at,
            history=stored.history,
            parts=parts,
            vectors=vectors,
        )

    async def _read(self, prefix: str, names: Sequence[str], fields: Sequence[str]) -> list[list[bytes | None]]:
        client = await self._manager.main()
        found: list[list[bytes | None]] = []
        for begin in range(0, len(names), PARTS_AT_ONCE):
            asked = [(f"{prefix}:{name}", fields) for name in names[begin : begin + PARTS_AT_ONCE]]
            found += await read_bytes(client, asked)
        return found


def _node_ids(record: FactRecord, parts: int) -> Iterator[str]:
    for at in range(parts):
        yield PartName(record.fact_id, record.revision, at).node_id


def _decoded(rows: Sequence[Sequence[bytes | None]]) -> list[str]:
    return [(row[0] or b"").decode() for row in rows]
