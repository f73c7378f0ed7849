"""Contents that belong to other facts which the same file changes: two facts that swapped theirs, for one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from knowledge_base.admin.transfer.file_memory import FileMemory
from knowledge_base.facts.restore import OnConflict

MOST_DEFERRED = 100_000
"""Entries that are looked at once more; beyond them each is told as it was found."""


class Claim(NamedTuple):
    """A fact of a file that is to have a content."""

    namespace: str
    fact_id: str
    digest: str
    """Of the content."""
    owner: str | None
    """The fact that has the content; None when it is free."""


@dataclass(slots=True)
class ImportPass:
    """One walk through a file: the first one defers what the second one settles."""

    on_conflict: OnConflict
    dry_run: bool
    memory: FileMemory | None
    """What the file would have written, in a dry run."""
    deferred: set[int] = field(default_factory=set)
    """Lines whose content another fact has that may lose it later on."""
    displaced: Mapping[int, str] | None = None
    """In the second walk, for the lines that may take a content away, the fact that has it."""

    def defers(self, line: int) -> bool:
        """Tells whether an entry whose content is taken comes once more, and notes it.

        Args:
            line: Where it begins.
        """
        if self.displaced is not None or self.on_conflict not in {"overwrite", "newer"}:
            return False
        if len(self.deferred) >= MOST_DEFERRED and line not in self.deferred:
            return False
        self.deferred.add(line)
        return True


def displaced_owners(claims: Mapping[int, Claim]) -> dict[int, str]:
    """Returns which facts may take a content away, and from whom: each of those gets another content by the same file.

    Args:
        claims: What the file says, by line.
    """
    left: dict[int, Claim] = {}
    lines: dict[tuple[str, str], int] = {}
    contents: set[tuple[str, str]] = set()
    for line, claim in claims.items():
        fact, content = (claim.namespace, claim.fact_id), (claim.namespace, claim.digest)
        if fact not in lines and content not in contents:
            left[line], lines[fact] = claim, line
            contents.add(content)
    waiting: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    blocked: list[int] = []
    for line, claim in left.items():
        if claim.owner is not None:
            owner = (claim.namespace, claim.owner)
            waiting[owner].append(line)
            if owner not in lines:
                blocked.append(line)
    # Whoever keeps its content blocks the one that waits for it, and so on.
    while blocked:
        claim_gone = left.pop(blocked.pop(), None)
        if claim_gone is not None:
            blocked += waiting[claim_gone.namespace, claim_gone.fact_id]
    return {line: claim.owner for line, claim in left.items() if claim.owner is not None}
