"""What a file would have written so far, for an import that only says what it would do."""

from __future__ import annotations

from typing import Literal, NamedTuple

from knowledge_base.facts.restore import OnConflict, Restored, WholeFact
from knowledge_base.facts.validation import encoded_json


class _Written(NamedTuple):
    content: int
    whole: int
    updated_at: int
    version: int


class WrittenDocument(NamedTuple):
    """What is kept of a document that a file would have written."""

    version: int
    updated_at: str
    whole: int
    """A hash of what tells it from others."""


class FileMemory:
    """Corrects what the base says of a fact by what came before it in the same file.

    It keeps ids and hashes only: some hundred bytes of each entry, however long that is.
    """

    def __init__(self) -> None:
        self._facts: dict[int, _Written] = {}
        self._owners: dict[int, str] = {}
        self._documents: dict[int, WrittenDocument] = {}

    def fact_version(self, namespace: str, fact_id: str) -> int | None:
        """Returns the version of the fact of this id that the file would have written; None when it has none.

        Args:
            namespace: Where.
            fact_id: The id.
        """
        written = self._facts.get(hash((namespace, fact_id)))
        return None if written is None else written.version

    def document(self, namespace: str, document_id: str) -> WrittenDocument | None:
        """Returns the document of this id that the file would have written; None when it has none.

        Args:
            namespace: Where.
            document_id: The id.
        """
        return self._documents.get(hash((namespace, document_id)))

    def note_document(self, namespace: str, document_id: str, written: WrittenDocument) -> None:
        """Notes a document that would have been written.

        Args:
            namespace: Where.
            document_id: Its id.
            written: What is kept of it.
        """
        self._documents[hash((namespace, document_id))] = written

    def outcome(self, namespace: str, fact: WholeFact, said: Restored, on_conflict: OnConflict) -> Restored:
        """Returns what would become of a fact.

        Args:
            namespace: Where it goes.
            fact: The fact.
            said: What the base says, which knows nothing of the file.
            on_conflict: What becomes of those whose id is taken.
        """
        name, content = hash((namespace, fact.fact_id)), hash((namespace, fact.parts.digest))
        before = self._facts.get(name)
        if said.status == "expired":
            return said
        document = self._documents.get(name)
        if document is not None:
            return Restored("conflict", fact.fact_id, document.version, False)
        if before is not None:
            status = _met(before, fact, on_conflict)
            if status is not None:
                return Restored(status, fact.fact_id, before.version, False)
        elif said.status in {"same", "conflict", "kept"}:
            return said
        owner = self._owners.get(content)
        stands = before is not None or said.stands or said.status == "replaced"
        if owner is not None and owner not in {fact.fact_id, fact.displaces}:
            return Restored("duplicate", owner, self._version(namespace, owner), False, stands=stands)
        # The base still has what the file would have replaced.
        is_replaced = hash((namespace, said.fact_id)) in self._facts
        if owner is None and said.status == "duplicate" and not is_replaced:
            return said
        return Restored("replaced" if stands else "restored", fact.fact_id, fact.version, False)

    def note(self, namespace: str, fact: WholeFact) -> None:
        """Notes a fact that would have been written.

        Args:
            namespace: Where.
            fact: The fact.
        """
        name, content = hash((namespace, fact.fact_id)), hash((namespace, fact.parts.digest))
        before = self._facts.get(name)
        if before is not None and self._owners.get(before.content) == fact.fact_id:
            del self._owners[before.content]
        self._facts[name] = _Written(content, _fingerprint(fact), fact.updated_at, fact.version)
        self._owners[content] = fact.fact_id

    def _version(self, namespace: str, fact_id: str) -> int:
        return self._facts[hash((namespace, fact_id))].version


def _met(before: _Written, fact: WholeFact, on_conflict: OnConflict) -> Literal["same", "conflict", "kept"] | None:
    if before.whole == _fingerprint(fact):
        return "same"
    if on_conflict == "error":
        return "conflict"
    is_newer = (fact.updated_at, fact.version) > (before.updated_at, before.version)
    return "kept" if on_conflict == "skip" or (on_conflict == "newer" and not is_newer) else None


def _fingerprint(fact: WholeFact) -> int:
    described = (encoded_json(fact.metadata), encoded_json(fact.tags), fact.source, encoded_json(fact.principals))
    return hash((fact.parts.digest, fact.version, fact.created_at, fact.updated_at, fact.expires_at, *described))
