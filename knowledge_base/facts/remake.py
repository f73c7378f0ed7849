"""Making the parts of facts anew from their content: where they are damaged, or the way of cutting has changed."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from redis.exceptions import ResponseError

from knowledge_base.connection.giving_way import giving_way
from knowledge_base.connection.hashes import read_bytes, read_hashes
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import LuaScript
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.facts.draft import REVISION_LENGTH, passage_count, revision
from knowledge_base.facts.parts import FactParts, PartMaker
from knowledge_base.facts.records import FIELDS, FactRecord, decode_record
from knowledge_base.facts.repository import FactRepository
from knowledge_base.facts.requests import ENCODING_SECONDS, INLINE_CHARACTERS, base_request
from knowledge_base.facts.validation import encoded_json
from knowledge_base.index.background import BackgroundIndexer
from knowledge_base.index.generations import GenerationMovedError
from knowledge_base.index.pending import PendingFacts
from knowledge_base.index.schema import VECTOR_FIELD, Generation
from knowledge_base.keyspace import Keyspace, PartName

WRITTEN_AT_ONCE = 10
"""Damaged parts that one script writes; a vector among them keeps the server busy for half a millisecond."""

READ_AT_ONCE = 100
"""Passages whose texts and vectors one round trip brings."""

RACES = 20
"""How often a fact is tried again that others change meanwhile."""

VECTOR_BYTES = array("f").itemsize
"""Bytes of one number of a vector."""

Outcome: TypeAlias = Literal["same", "written", "switched", "missing", "document", "conflict", "blocked", "damaged"]
"""What became of a fact.

``same``: nothing was wrong. ``written``: parts were missing or wrong. ``switched``: it has parts of another name, since
the cut had changed. ``missing``: it is gone. ``document``: it is a document, which is not made of its content.
``conflict``: others changed it without a pause. ``blocked``: keys that are no hashes stand where its parts should.
``damaged``: its record cannot be read.
"""


class RemadeFact(NamedTuple):
    """What became of one fact."""

    fact_id: str
    outcome: Outcome


class FactRemaker:
    """Cuts facts anew, and writes what differs from what is stored.

    Args:
        manager: The connections.
        repository: Knows the time.
        parts: Makes the parts of facts.
        threads: Where long requests are made.
        pending: The record of what waits for vectors.
        background: Gives passages their vectors.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        repository: FactRepository,
        parts: PartMaker,
        threads: WorkloadThreads,
        pending: PendingFacts,
        background: BackgroundIndexer,
    ) -> None:
        self._manager = manager
        self._repository = repository
        self._parts = parts
        self._threads = threads
        self._pending = pending
        self._background = background
        self._remake = LuaScript("knowledge_base.facts", "shared", "remake")
        self._keep = LuaScript("knowledge_base.facts", "keep_vectors", repeatable=True)

    async def remake(self, generation: Generation, fact_ids: Sequence[str]) -> list[RemadeFact]:
        """Makes the parts of facts anew; the vectors of texts that stay are kept, the others follow by themselves.

        Args:
            generation: The live generation.
            fact_ids: The facts.

        Returns:
            What became of each, in order.

        Raises:
            GenerationMovedError: The generation is not the live one any more; facts may have been remade.
            UnavailableError: Redis or the model's tokenizer could not be reached.
        """
        client = await self._manager.main()
        keys = Keyspace(generation.namespace)
        remade: list[RemadeFact] = []
        waiting: list[str] = []
        try:
            async for rows in read_hashes(client, [keys.fact(fact_id) for fact_id in fact_ids], FIELDS):
                for row in rows:
                    fact_id = fact_ids[len(remade)]
                    outcome = await self._one(generation, fact_id, row)
                    remade.append(RemadeFact(fact_id, outcome))
                    if outcome in ("written", "switched"):
                        waiting.append(fact_id)
        finally:
            if waiting:
                self._background.leave(generation.namespace, waiting)
        return remade

    async def _one(self, generation: Generation, fact_id: str, row: Sequence[str | None]) -> Outcome:
        client = await self._manager.main()
        for _ in range(RACES):
            record = _decoded(fact_id, row)
            if record is None or record == "damaged":
                return record or "missing"
            outcome = await self._attempt(generation, record)
            if outcome != "conflict":
                return outcome
            row = await client.hmget(Keyspace(generation.namespace).fact(fact_id), list(FIELDS))  # type: ignore[misc]
        return "conflict"

    async def _attempt(self, generation: Generation, record: FactRecord) -> Outcome:
        if record.document_id is not None:
            return "document"
        parts = await self._parts.make(
            generation.namespace, record.content, record.metadata, record.tags, record.source, record.principals
        )
        new_revision = remade_revision(record.version, parts)
        kept = await self._kept_vectors(generation, record, parts)
        client = await self._manager.main()
        key = Keyspace(generation.namespace).fact(record.fact_id)
        request = await self._request(generation, record, parts, new_revision)
        reply = ["more"]
        while reply[0] == "more":
            reply = await self._remake(client, [key], [request])
        if reply[0] == "moved":
            raise GenerationMovedError(generation.namespace)
        if reply[0] == "switched":
            await self._keep_vectors(generation, record.fact_id, new_revision, parts.passages, kept)
        return cast("Outcome", reply[0])

    async def _kept_vectors(self, generation: Generation, record: FactRecord, parts: FactParts) -> dict[str, bytes]:
        count = passage_count(record.revision)
        if count == len(parts.passages) == 1:
            return {}
        wanted = set(parts.passages)
        length = VECTOR_BYTES * generation.dimension
        kept: dict[str, bytes] = {}
        for begin in range(0, count, READ_AT_ONCE):
            places = range(begin, min(begin + READ_AT_ONCE, count))
            names = [PartName(record.fact_id, record.revision, position) for position in places]
            for text, vector in await self._texts_and_vectors(generation, names):
                if text is not None and vector is not None and len(vector) == length:
                    words = text.decode("utf-8", "replace")
                    if words in wanted:
                        kept[words] = vector
        return kept

    async def _texts_and_vectors(self, generation: Generation, names: Sequence[PartName]) -> list[list[bytes | None]]:
        client = await self._manager.main()
        hashes = [(f"{generation.passage_prefix}:{name.node_id}", ("text", VECTOR_FIELD)) for name in names]
        try:
            return await read_bytes(client, hashes)
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            # The script says which key it is.
            return []

    async def _keep_vectors(
        self,
        generation: Generation,
        fact_id: str,
        new_revision: str,
        passages: Sequence[str],
        kept: Mapping[str, bytes],
    ) -> None:
        client = await self._manager.main()
        keys = Keyspace(generation.namespace)
        rows = [(position, text, kept[text]) for position, text in enumerate(passages) if text in kept]
        for begin in range(0, len(rows), WRITTEN_AT_ONCE):
            some = rows[begin : begin + WRITTEN_AT_ONCE]
            names = [PartName(fact_id, new_revision, position).node_id for position, _, _ in some]
            await self._keep(
                client,
                [keys.fact(fact_id), *(f"{generation.passage_prefix}:{name}" for name in names)],
                [new_revision, *(value for _, text, vector in some for value in (text, vector))],
            )

    async def _request(self, generation: Generation, record: FactRecord, parts: FactParts, new_revision: str) -> str:
        now = self._repository.now()
        fields: dict[str, Any] = {
            **base_request(generation, now),
            "fact_id": record.fact_id,
            "base_version": str(record.version),
            "base_seq": record.seq,
            "base_revision": record.revision,
            "revision": new_revision,
            "labels": parts.labels,
            "passages": parts.passages,
            "sections": parts.sections,
            "vector_bytes": VECTOR_BYTES * generation.dimension,
            "most": WRITTEN_AT_ONCE,
            "due": str(now + self._pending.lease_ms),
        }

        def encode() -> str:
            encoded = (f"{encoded_json(name)}:{encoded_json(value)}" for name, value in giving_way(fields.items()))
            return "{" + ",".join(encoded) + "}"

        if sum(map(len, parts.passages)) + sum(map(len, parts.labels.values())) <= INLINE_CHARACTERS:
            return encode()
        return await self._threads.to_thread(encode, step="encoding a fact", limit=ENCODING_SECONDS)


def remade_revision(version: int, parts: FactParts) -> str:
    """Returns the name of parts that were cut anew: another one for each way of cutting a content.

    Args:
        version: The fact's version.
        parts: Its new parts.
    """
    texts = hashlib.sha256("\x00".join([parts.digest, *parts.passages]).encode()).hexdigest()
    return revision(version, texts[:REVISION_LENGTH], len(parts.passages))


def _decoded(fact_id: str, row: Sequence[str | None]) -> FactRecord | Literal["damaged"] | None:
    try:
        record = decode_record(fact_id, row)
        if record is not None:
            passage_count(record.revision)
    except (ValueError, TypeError, AttributeError):
        return "damaged"
    return record
