"""Documents in Redis: their records, read and changed; every change is a single atomic script."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from knowledge_base.clock import now_ms
from knowledge_base.connection.hashes import read_bytes, read_hashes
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import LuaScript
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.documents.blocks import Block
from knowledge_base.documents.draft import DocumentFile
from knowledge_base.documents.staging import DOCUMENT_PRELUDE, Leftover, PartsLostError
from knowledge_base.documents.stored import FIELDS, StoredDocument, decode_document
from knowledge_base.documents.texts import unpacked
from knowledge_base.errors import VersionConflictError
from knowledge_base.facts.requests import base_request
from knowledge_base.facts.validation import encoded_json
from knowledge_base.index.generations import GenerationMovedError
from knowledge_base.index.schema import Generation
from knowledge_base.keyspace import Keyspace

PAGE = 200
"""Documents that are looked at together."""

TEXTS_AT_ONCE = 16
"""Pieces of text that one round trip brings."""

UNPACKING_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class DocumentSwitch:
    """A document as it shall be."""

    document: StoredDocument
    digest: str
    sections: int
    staged: Leftover


class DocumentRepository:
    """Reads and changes the documents of all namespaces.

    Args:
        manager: The connections.
        threads: Where texts are unpacked.
        lease: Seconds that whoever stored a document has to index it before the background takes it.
        now: The time in milliseconds since 1970; tests bring their own.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        threads: WorkloadThreads,
        *,
        lease: float,
        now: Callable[[], int] = now_ms,
    ) -> None:
        self._manager = manager
        self._threads = threads
        self._lease_ms = int(lease * 1000)
        self.now = now
        # A deletion that is repeated would find nothing, and say so.
        self._switch, self._delete, self._touch = (
            LuaScript("knowledge_base.documents", name, repeatable=name != "delete", prelude=DOCUMENT_PRELUDE)
            for name in ("switch", "delete", "touch")
        )

    async def read(self, namespace: str, document_ids: Sequence[str]) -> list[StoredDocument | None]:
        """Returns documents in the order asked for, whoever may see them; None for each that is not there.

        Args:
            namespace: Where to look.
            document_ids: The documents.
        """
        client = await self._manager.main()
        keys = Keyspace(namespace)
        found: list[StoredDocument | None] = []
        async for rows in read_hashes(client, [keys.fact(one) for one in document_ids], FIELDS):
            ids = document_ids[len(found) : len(found) + len(rows)]
            found += [decode_document(one, row) for one, row in zip(ids, rows, strict=True)]
        return found

    async def taken_by_fact(self, namespace: str, document_id: str) -> int | None:
        """Returns the version of the fact that has an id; None where none has.

        Args:
            namespace: Where to look.
            document_id: The id.
        """
        client = await self._manager.main()
        key = Keyspace(namespace).fact(document_id)
        version, document = await client.hmget(key, ["version", "document"])  # type: ignore[misc]
        return int(version) if version is not None and not document else None

    async def newest(self, namespace: str, offset: int, limit: int) -> list[str]:
        """Returns ids of documents, the newest first.

        Args:
            namespace: Where to look.
            offset: How many to skip.
            limit: How many at most.
        """
        client = await self._manager.main()
        ids: list[str] = await client.zrange(Keyspace(namespace).documents, offset, offset + limit - 1, desc=True)
        return ids

    async def after(self, namespace: str, seq: float, limit: int) -> list[tuple[str, float]]:
        """Returns ids and sequence numbers of documents, the oldest first.

        Args:
            namespace: Where to look.
            seq: The sequence number after which to begin.
            limit: How many at most.
        """
        client = await self._manager.main()
        found: list[tuple[str, float]] = await client.zrangebyscore(
            Keyspace(namespace).documents, f"({seq:.0f}", "+inf", start=0, num=limit, withscores=True
        )
        return found

    async def next_seq(self, namespace: str) -> str:
        """Returns a sequence number of its own.

        Args:
            namespace: Where.
        """
        client = await self._manager.main()
        return str(await client.hincrby(Keyspace(namespace).counters, "seq", 1))  # type: ignore[misc]

    async def blocks(self, namespace: str, document: StoredDocument) -> list[Block] | None:
        """Returns the blocks of a document; None when it was changed since it was read.

        Args:
            namespace: Where it is.
            document: The document.
        """
        client = await self._manager.main()
        key = Keyspace(namespace).document(document.document_id)
        pieces: list[bytes] = []
        while True:
            fields = [f"{document.record.revision}:{len(pieces) + at}" for at in range(TEXTS_AT_ONCE)]
            (row,) = await read_bytes(client, [(key, fields)])
            pieces += [piece for piece in row if piece is not None]
            if None in row:
                break
        if not pieces:
            return None
        return await self._threads.to_thread(unpacked, pieces, step="unpacking a document", limit=UNPACKING_SECONDS)

    async def passage_texts(self, generation: Generation, document: StoredDocument) -> list[str | None]:
        """Returns the texts of a document's passages; None for each that is gone.

        Args:
            generation: Where they are.
            document: The document.
        """
        client = await self._manager.main()
        prefix = f"{generation.passage_prefix}:{document.document_id}:{document.record.revision}"
        keys = [f"{prefix}:{position}" for position in range(document.passages)]
        return [row[0] async for rows in read_hashes(client, keys, ["text"]) for row in rows]

    async def switch(self, generation: Generation, old: StoredDocument | None, new: DocumentSwitch) -> None:
        """Switches a document to a revision whose parts are written, or stores it.

        Args:
            generation: Where the parts are.
            old: The document as it was read; None when there was none.
            new: The document as it shall be.

        Raises:
            VersionConflictError: It was changed meanwhile, or a fact has the id.
            PartsLostError: The revision counts as given up.
            GenerationMovedError: Another generation became the live one.
        """
        client = await self._manager.main()
        document = new.document
        record = document.record
        request = {
            **base_request(generation, self.now()),
            "document_id": record.fact_id,
            "base_version": "" if old is None else str(old.record.version),
            "base_seq": "" if old is None else old.record.seq,
            "member": new.staged.member,
            "leftover": "" if old is None else f"{new.staged.prefix}{old.record.revision}",
            "fields": _fields(document, new.digest, new.sections),
            "passages": str(document.passages),
            "seq": record.seq,
            "due": str(self.now() + self._lease_ms),
            "nonce": secrets.token_hex(6),
            "generation": {
                "number": str(generation.number),
                "model": generation.model,
                "dimension": str(generation.dimension),
                "build": str(generation.build),
            },
        }
        key = Keyspace(generation.namespace).fact(record.fact_id)
        reply = await self._switch(client, [key], [encoded_json(request)])
        if reply[0] == "moved":
            raise GenerationMovedError(generation.namespace)
        if reply[0] == "lost":
            raise PartsLostError
        if reply[0] == "taken":
            raise VersionConflictError(record.fact_id, 0, int(reply[1]))
        if reply[0] == "conflict":
            raise VersionConflictError(record.fact_id, 0 if old is None else old.record.version, int(reply[1]))

    async def delete(
        self,
        generation: Generation,
        document_id: str,
        callers: Sequence[str],
        expected_version: int | None,
        created_at: int | None = None,
    ) -> Leftover | None:
        """Takes a document away.

        Args:
            generation: Where its parts are.
            document_id: The document.
            callers: Who is asking.
            expected_version: The version that it must have, or None for any.
            created_at: When it must have been stored first, in milliseconds since 1970, or None for any time.

        Returns:
            What is to be removed now; None when it was not there or not visible.

        Raises:
            VersionConflictError: It has another version.
            GenerationMovedError: Another generation became the live one.
        """
        client = await self._manager.main()
        gone = Leftover(str(generation.number), document_id, "")
        request = {
            **base_request(generation, self.now()),
            "document_id": document_id,
            "callers": list(callers),
            "expected_version": "" if expected_version is None else str(expected_version),
            "created_at": "" if created_at is None else str(created_at),
            "prefix": gone.prefix,
        }
        key = Keyspace(generation.namespace).fact(document_id)
        reply = await self._delete(client, [key], [encoded_json(request)])
        if reply[0] == "moved":
            raise GenerationMovedError(generation.namespace)
        if reply[0] == "conflict":
            raise VersionConflictError(document_id, expected_version or 0, int(reply[1]))
        return gone._replace(revision=reply[1]) if reply[0] == "deleted" else None

    async def touch(self, generation: Generation, document: StoredDocument, file: DocumentFile) -> None:
        """Notes that a document is as its file is, which has another time now.

        Args:
            generation: Where its parts are.
            document: The document as it was read; left alone when it was changed since.
            file: The file.
        """
        client = await self._manager.main()
        request = {
            **base_request(generation, self.now()),
            "version": str(document.record.version),
            "seq": document.record.seq,
            "file": encoded_json(file._asdict()),
        }
        key = Keyspace(generation.namespace).fact(document.document_id)
        await self._touch(client, [key], [encoded_json(request)])


def _fields(document: StoredDocument, digest: str, sections: int) -> list[str]:
    record = document.record
    fields: dict[str, Any] = {
        "content": "",
        "metadata": json.dumps(record.metadata, ensure_ascii=False, separators=(",", ":")),
        "tags": encoded_json(record.tags),
        "source": record.source or "",
        "principals": encoded_json(record.principals),
        "document": record.fact_id,
        "digest": digest,
        "version": str(record.version),
        "revision": record.revision,
        "passages": str(document.passages),
        "sections": str(sections),
        "seq": record.seq,
        "created_at": str(record.created_at),
        "updated_at": str(record.updated_at),
        "expires_at": "",
        "indexed": "0",
        "title": document.title or "",
        "media_type": document.media_type,
        "pages": "" if document.pages is None else str(document.pages),
        "characters": str(document.characters),
        "content_hash": document.content_hash,
        "made": document.made,
        "file": "" if document.file is None else encoded_json(document.file._asdict()),
    }
    return [item for pair in fields.items() for item in pair]
