"""The parts of a document's revision: written before it is switched to, removed when it is gone, in small batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from knowledge_base.clock import now_ms
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import Argument, LuaScript, script_text
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.documents.chunker import DocumentCut
from knowledge_base.facts.draft import passage_count
from knowledge_base.facts.requests import base_request
from knowledge_base.facts.validation import encoded_json
from knowledge_base.index.filters import DOCUMENT_MARK
from knowledge_base.index.generations import GenerationMovedError
from knowledge_base.index.passages import SECTION_PASSAGES
from knowledge_base.index.schema import SEPARATOR, Generation
from knowledge_base.keyspace import Keyspace

PASSAGES_AT_ONCE = 32
"""Passages without vectors that one script writes."""

VECTORS_AT_ONCE = 8
"""Passages with vectors that one script writes; the server needs some 0.6 ms for each."""

REMOVED_AT_ONCE = 12
"""Positions whose parts one script removes."""

CHARACTERS_AT_ONCE = 40_000
"""Characters of texts and stems that one script writes; the server needs some 5 ms for so many."""

LABEL_CHARACTERS_AT_ONCE = 200_000
"""Characters of labels, which stand with each part, that one script writes."""

GIVEN_UP_MS = 600_000
"""Milliseconds after its last sign that a revision which is being written counts as given up."""

LATE_MS = 60_000
"""Milliseconds after which a removed revision is looked at once more: a vector may have been on its way."""

CLAIMED_AT_ONCE = 8
ENCODING_SECONDS = 30.0

DOCUMENT_PRELUDE = script_text("knowledge_base.facts", "shared")


class PartsLostError(Exception):
    """What was being written counts as given up, and is being removed; it has to be written anew."""


class StagedParts(NamedTuple):
    """What of a revision is to be written."""

    document_id: str
    revision: str
    seq: str
    created_at: int
    updated_at: int
    labels: Mapping[str, str]
    cut: DocumentCut
    base: str
    """The revision that vectors are taken from, "" for none."""
    reused: Mapping[int, int]
    """For passages whose text stands in the base: where it stands there."""
    vectors: Mapping[int, bytes]
    """For passages whose vectors are known."""


class Leftover(NamedTuple):
    """A revision in a generation, and its name in the records of what is written or to be removed."""

    generation: str
    document_id: str
    revision: str

    @property
    def member(self) -> str:
        """Its name there."""
        return f"{self.prefix}{self.revision}"

    @property
    def prefix(self) -> str:
        """The name without the revision."""
        return f"{self.generation}:{self.document_id}:"

    @classmethod
    def parse(cls, member: str) -> Leftover:
        """Reads such a name.

        Args:
            member: What ``member`` gave.
        """
        generation, _, rest = member.partition(":")
        document_id, _, revision = rest.rpartition(":")
        return cls(generation, document_id, revision)


class DocumentStaging:
    """Writes and removes the parts of revisions. What a crash leaves behind was recorded before it was written.

    Args:
        manager: The connections.
        threads: Where requests are encoded.
        now: The time in milliseconds since 1970; tests bring their own.
    """

    def __init__(
        self, manager: AsyncRedisManager, threads: WorkloadThreads, *, now: Callable[[], int] = now_ms
    ) -> None:
        self._manager = manager
        self._threads = threads
        self._now = now
        self._write = LuaScript("knowledge_base.documents", "write_parts", repeatable=True, prelude=DOCUMENT_PRELUDE)
        self._claim = LuaScript("knowledge_base.documents", "claim_leftovers")
        self._drop = LuaScript("knowledge_base.documents", "drop_parts", repeatable=True)

    async def begin(self, generation: Generation, document_id: str, revision: str) -> Leftover:
        """Records that a revision is being written.

        Args:
            generation: Where to.
            document_id: The document.
            revision: The revision, of which there is no other.
        """
        staged = Leftover(str(generation.number), document_id, revision)
        client = await self._manager.main()
        await client.zadd(Keyspace(generation.namespace).staged, {staged.member: self._now() + GIVEN_UP_MS})
        return staged

    async def keep(self, generation: Generation, staged: Leftover) -> None:
        """Says that a revision is still being written.

        Args:
            generation: Where to.
            staged: What ``begin`` gave.
        """
        client = await self._manager.main()
        due = {staged.member: self._now() + GIVEN_UP_MS}
        await client.zadd(Keyspace(generation.namespace).staged, due, xx=True)

    async def write_text(self, namespace: str, document_id: str, revision: str, pieces: Sequence[bytes]) -> None:
        """Writes the text of a revision.

        Args:
            namespace: Where to.
            document_id: The document.
            revision: The revision.
            pieces: What ``texts.packed`` gave.
        """
        client = await self._manager.main()
        key = Keyspace(namespace).document(document_id)
        for place, piece in enumerate(pieces):
            await client.hset(key, f"{revision}:{place}", piece)  # type: ignore[arg-type, misc]

    async def write(self, generation: Generation, parts: StagedParts) -> int:
        """Writes the parts of a revision; what is reused of another one comes with its vectors.

        Args:
            generation: Where to.
            parts: The parts.

        Returns:
            How many passages have their vectors.

        Raises:
            PartsLostError: The revision counts as given up.
            GenerationMovedError: Another generation became the live one.
            UnavailableError: Redis could not be reached.
        """
        client = await self._manager.main()
        staged = Keyspace(generation.namespace).staged
        with_vectors = 0
        for some in _batches(parts):
            arguments = await self._threads.to_thread(
                self._request, generation, parts, some, step="encoding a document", limit=ENCODING_SECONDS
            )
            reply = await self._write(client, [staged], arguments)
            if reply[0] == "moved":
                raise GenerationMovedError(generation.namespace)
            if reply[0] == "lost":
                raise PartsLostError
            with_vectors += int(reply[1])
        return with_vectors

    async def drop(self, namespace: str, leftover: Leftover) -> None:
        """Removes a revision that is not its document's; one that is stays.

        Args:
            namespace: Where it is.
            leftover: The revision, recorded as being written or as left over.

        Raises:
            UnavailableError: Redis could not be reached; it stays on record.
        """
        client = await self._manager.main()
        keys = Keyspace(namespace)
        # First of all nobody may switch to it any more.
        pipeline = client.pipeline(transaction=True)
        pipeline.zadd(keys.leftovers, {leftover.member: self._now()})
        pipeline.zrem(keys.staged, leftover.member)
        await pipeline.execute()
        await self._remove(namespace, leftover)

    async def collect(self, namespace: str) -> int:
        """Removes what was left over and is due.

        Args:
            namespace: Where to look.

        Returns:
            How many revisions were looked after.
        """
        client = await self._manager.main()
        keys = Keyspace(namespace)
        collected = 0
        while True:
            now = self._now()
            members: list[str] = await self._claim(
                client, [keys.staged, keys.leftovers], [now, now + LATE_MS, CLAIMED_AT_ONCE]
            )
            for member in members:
                await self._remove(namespace, Leftover.parse(member))
            collected += len(members)
            if len(members) < CLAIMED_AT_ONCE:
                return collected

    async def _remove(self, namespace: str, leftover: Leftover) -> None:
        client = await self._manager.main()
        keys = Keyspace(namespace)
        passages = passage_count(leftover.revision)
        sections = -(-passages // SECTION_PASSAGES)
        removed = 0
        for begin in range(0, passages, REMOVED_AT_ONCE):
            arguments: list[Argument] = [
                keys.root,
                *leftover,
                begin,
                min(passages, begin + REMOVED_AT_ONCE),
                passages,
                sections,
            ]
            own = [keys.fact(leftover.document_id), keys.document(leftover.document_id)]
            there = int(await self._drop(client, own, arguments))
            if there < 0:
                break
            removed += there
        if removed:
            # A vector that comes late makes a part anew; when nothing is found any more, nothing comes.
            await client.zadd(keys.leftovers, {leftover.member: self._now() + LATE_MS})
        else:
            await client.zrem(keys.leftovers, leftover.member)

    def _request(self, generation: Generation, parts: StagedParts, some: _Batch) -> list[str | bytes]:
        vectors: list[bytes] = []
        passages: list[list[Any]] = []
        for position in some.passages:
            passage = parts.cut.passages[position]
            place = -1
            if position in parts.vectors:
                vectors.append(parts.vectors[position])
                # The request itself is the first argument.
                place = len(vectors) + 1
            passages.append(
                [
                    position,
                    passage.text,
                    encoded_json(list(passage.section_path)),
                    "" if passage.page_start is None else str(passage.page_start),
                    "" if passage.page_end is None else str(passage.page_end),
                    parts.reused.get(position, -1),
                    place,
                ]
            )
        now = self._now()
        request = {
            **base_request(generation, now),
            "member": Leftover(str(generation.number), parts.document_id, parts.revision).member,
            "until_ms": str(now + GIVEN_UP_MS),
            "document_id": parts.document_id,
            "document": f"{parts.document_id}{SEPARATOR}{DOCUMENT_MARK}",
            "revision": parts.revision,
            "base": parts.base,
            "created_at": str(parts.created_at),
            "updated_at": str(parts.updated_at),
            "seq": parts.seq,
            "labels": parts.labels,
            "passages": passages,
            "sections": [[position, parts.cut.sections[position]] for position in some.sections],
        }
        return [encoded_json(request), *vectors]


class _Batch(NamedTuple):
    passages: Sequence[int]
    sections: Sequence[int]


def _batches(parts: StagedParts) -> Iterator[_Batch]:
    label_characters = max(1, sum(map(len, parts.labels.values())))
    most = max(1, LABEL_CHARACTERS_AT_ONCE // label_characters)
    passages: list[int] = []
    load = 0.0
    for position, passage in enumerate(parts.cut.passages):
        has_vector = position in parts.reused or position in parts.vectors
        load += 1 / VECTORS_AT_ONCE if has_vector else 1 / PASSAGES_AT_ONCE
        load += len(passage.text) / CHARACTERS_AT_ONCE
        passages.append(position)
        if load >= 1 or len(passages) >= most:
            yield _Batch(passages, [])
            passages, load = [], 0.0
    if passages:
        yield _Batch(passages, [])
    sections: list[int] = []
    characters = 0
    for position, stems in enumerate(parts.cut.sections):
        characters += len(stems)
        sections.append(position)
        if characters >= CHARACTERS_AT_ONCE or len(sections) >= min(most, PASSAGES_AT_ONCE):
            yield _Batch([], sections)
            sections, characters = [], 0
    if sections:
        yield _Batch([], sections)
