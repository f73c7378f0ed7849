"""What an integrity check has found, counted by kind, with a few examples of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from knowledge_base.types import FindingKind, IntegrityExample

EXAMPLES = 10
"""Examples of a kind that are kept."""

OF_FACTS: frozenset[FindingKind] = frozenset(
    {
        *("missing_parts", "wrong_labels", "wrong_vectors", "missing_vectors"),
        *("forgotten", "unlisted", "damaged_records", "parked"),
    }
)
"""Kinds that name a fact or document; the others name a key."""

OF_PARTS: frozenset[FindingKind] = frozenset(
    {
        *("missing_parts", "wrong_vectors", "damaged_records", "stray_parts", "stale_parts", "foreign_types"),
        *("missing_index", "wrong_index"),
    }
)
"""Kinds that make the index hold something else than the facts say."""


class Advice(NamedTuple):
    """What is said of a kind."""

    meaning: str
    repair: str
    """What a repair does about it, or what to do where it does nothing."""


ADVICE: Mapping[FindingKind, Advice] = {
    "missing_parts": Advice("facts that lack passages or sections", "makes them anew"),
    "wrong_labels": Advice("facts whose passages carry other tags, principals or the like", "writes them anew"),
    "wrong_vectors": Advice("facts with vectors of another length, which are not searched", "has them embedded anew"),
    "missing_vectors": Advice("facts that count as indexed and lack vectors", "has them embedded"),
    "forgotten": Advice("facts without vectors that nobody is told to make", "makes them pending"),
    "unlisted": Advice("facts that a list, the deduplication or the expiry does not know", "lists them again"),
    "damaged_records": Advice(
        "facts whose record cannot be read", "does nothing; delete the key, repair, and store them again"
    ),
    "stray_parts": Advice("passages or sections of facts that are gone", "removes them"),
    "stale_parts": Advice("passages or sections of revisions that are not their fact's", "removes them"),
    "orphaned_generations": Advice("passages or sections of index generations that nobody uses", "removes them"),
    "stray_history": Advice("earlier versions or texts of facts and documents that are gone", "removes them"),
    "stray_entries": Advice("entries of lists that stand for no such fact", "removes them"),
    "stray_pending": Advice("entries of what waits for vectors that stand for no such fact", "removes them"),
    "wrong_counts": Advice("counts that do not agree with the facts", "corrects them"),
    "missing_index": Advice("search indices that are gone", "makes them anew"),
    "wrong_index": Advice("search indices of another layout", "makes others beside them"),
    "incomplete_index": Advice("search indices that do not hold what is stored", "makes others beside them"),
    "foreign_types": Advice(
        "keys that something else has written to", "does nothing; rename or delete them, and repair"
    ),
    "unknown_keys": Advice("keys that are not the knowledge base's", "does nothing; rename or delete them"),
    "parked": Advice("facts that the model refused too often", "has it asked again"),
}
"""What each kind is, and what is done about it."""


class Findings:
    """Collects what was found; its size does not depend on how much that is."""

    def __init__(self) -> None:
        self.counts: Counter[FindingKind] = Counter()
        self.repaired = 0
        self._examples: dict[FindingKind, list[IntegrityExample]] = {}

    def add(self, kind: FindingKind, name: str, *, repaired: bool, detail: str | None = None) -> None:
        """Notes one thing.

        Args:
            kind: What is wrong.
            name: The fact, or the key.
            repaired: Whether it is mended.
            detail: What is wrong with it, if the kind does not say it all.
        """
        self.counts[kind] += 1
        self.repaired += repaired
        examples = self._examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            example: IntegrityExample = {"kind": kind}
            example["id" if kind in OF_FACTS else "key"] = name
            if detail is not None:
                example["detail"] = detail
            examples.append(example)

    @property
    def is_all_mended(self) -> bool:
        """Whether nothing is left that does not agree."""
        return self.counts.total() == self.repaired

    @property
    def examples(self) -> list[IntegrityExample]:
        """Some of each kind."""
        return [example for kind in sorted(self._examples) for example in self._examples[kind]]

    def concern_sums(self) -> bool:
        """Returns whether facts that are on no list or cannot be read keep the sums from agreeing."""
        return any(self.counts[kind] for kind in ("unlisted", "damaged_records", "foreign_types"))

    def concern_parts(self) -> bool:
        """Returns whether the index may hold something else than the facts say."""
        return any(self.counts[kind] for kind in OF_PARTS)
