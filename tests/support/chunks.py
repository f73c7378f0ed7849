"""Facts and passages of chunks, made without a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from knowledge_base.facts.records import FactRecord
from knowledge_base.keyspace import PartName
from knowledge_base.retrieval.chunk_candidates import PassageCandidate
from knowledge_base.retrieval.chunk_selection import Chunk


def fact_record(fact_id: str = "f", passages: Sequence[str] = ("text",), **changes: Any) -> FactRecord:
    """A fact whose content is its passages, one behind the other."""
    values: dict[str, Any] = {
        "content": " ".join(passages),
        "metadata": {},
        "tags": [],
        "source": None,
        "principals": [],
        "document_id": None,
        "version": 1,
        "revision": f"1-abc-{len(passages)}",
        "seq": "1",
        "created_at": 0,
        "updated_at": 0,
        "expires_at": None,
        "indexed": True,
    }
    return FactRecord(fact_id=fact_id, **values | changes)


def passage_name(record: FactRecord, position: int) -> PartName:
    """The name of one of its passages."""
    return PartName(record.fact_id, record.revision, position)


def passage_texts(*facts: tuple[FactRecord, Sequence[str]]) -> dict[PartName, str]:
    """The texts of all passages of facts, by name."""
    return {passage_name(record, at): text for record, texts in facts for at, text in enumerate(texts)}


def candidate(record: FactRecord, position: int = 0, similarity: float = 0.5) -> PassageCandidate:
    """A passage that was found."""
    return PassageCandidate(passage_name(record, position), similarity)


def a_chunk(content: str, *, similarity: float = 0.5, **changes: Any) -> Chunk:
    """A chunk of a fact of its own."""
    record = fact_record("fact", [content], **changes)
    return Chunk(record, passage_name(record, 0), content, similarity)
