"""What stands of a fact in a transfer file, made from what stands in Redis."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from knowledge_base.admin.transfer.line_format import FORMAT, FORMAT_VERSION, StoredJson, json_text, quoted
from knowledge_base.clock import iso_time

NO_HISTORY = StoredJson("[]")


class StoredFact(NamedTuple):
    """A fact as it was read, undecoded: most of it goes into the file as it is."""

    content: bytes
    metadata: bytes
    tags: bytes
    source: bytes
    principals: bytes
    document: bytes
    version: bytes
    seq: bytes
    created_at: bytes
    updated_at: bytes
    expires_at: bytes
    revision: bytes
    passages: bytes
    history: Sequence[bytes]
    """Its earlier versions as the list in Redis holds them."""
    parts: Sequence[bytes]
    """The text and vector of each passage, one after the other; nothing when some wait for vectors."""

    def is_exported(self, now: int) -> bool:
        """Tells whether it is a fact, and has not expired.

        Args:
            now: Milliseconds since 1970.
        """
        return not self.document and (not self.expires_at or int(self.expires_at) > now)


def header(namespaces: Sequence[str], counts: dict[str, int | None], models: dict[str, Any]) -> dict[str, Any]:
    """Returns the first entry of a file.

    Args:
        namespaces: Whose facts follow.
        counts: How many facts and documents there were at the beginning; None where a filter was set.
        models: For each namespace the model and dimension of its vectors.
    """
    return {
        "kind": "header",
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "namespaces": list(namespaces),
        **counts,
        "models": models,
    }


def trailer(counts: dict[str, int], checksum: str) -> dict[str, Any]:
    """Returns the last entry of a file.

    Args:
        counts: How many facts and documents are in it.
        checksum: SHA-256 of all lines before it, in hexadecimal.
    """
    return {"kind": "trailer", **counts, "sha256": checksum}


def fact_entry(namespace: str, fact_id: str, fact: StoredFact, *, with_vectors: bool) -> dict[str, Any]:
    """Returns the entry of a fact.

    Args:
        namespace: Where it is.
        fact_id: Its id.
        fact: The fact.
        with_vectors: Whether the entry tells of passages at all.
    """
    created_at = iso_time(int(fact.created_at))
    entry: dict[str, Any] = {
        "kind": "fact",
        "namespace": namespace,
        "id": fact_id,
        "content": fact.content.decode(),
        "metadata": _as_stored(fact.metadata),
        "tags": _as_stored(fact.tags),
        "source": fact.source.decode() or None,
        "principals": _as_stored(fact.principals),
        "version": int(fact.version),
        "created_at": created_at,
        "updated_at": created_at if fact.updated_at == fact.created_at else iso_time(int(fact.updated_at)),
        "expires_at": iso_time(int(fact.expires_at)) if fact.expires_at else None,
        "history": [_version(snapshot) for snapshot in fact.history] if fact.history else NO_HISTORY,
    }
    if with_vectors:
        pairs = zip(fact.parts[::2], fact.parts[1::2], strict=True)
        parts = [
            f'{{"text":{quoted(text.decode())},"vector":"{base64.b64encode(vector).decode()}"}}'
            for text, vector in pairs
        ]
        entry["passages"] = StoredJson(f"[{','.join(parts)}]")
    return entry


def _as_stored(value: bytes) -> StoredJson:
    text = value.decode()
    # What something else has written must not end the line.
    return StoredJson(json_text(json.loads(text)) if "\n" in text else text)


def _version(snapshot: bytes) -> dict[str, Any]:
    stored = json.loads(snapshot)
    return {
        "version": int(stored["version"]),
        "content": stored["content"],
        "metadata": json.loads(stored["metadata"]),
        "tags": json.loads(stored["tags"]),
        "source": stored["source"] or None,
        "updated_at": iso_time(int(stored["updated_at"])),
    }
