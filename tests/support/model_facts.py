"""What a knowledge base should answer, worked out with a dict."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

ANN = "user:ann"
Outcome = Literal["success", "duplicate", "conflict", "missing"]


class Seen(NamedTuple):
    """What a caller can tell of a fact."""

    content: str
    tags: tuple[str, ...]
    version: int
    is_private: bool
    ends: bool


class Answer(NamedTuple):
    """What becomes of a change, and which fact it is about."""

    outcome: Outcome
    fact_id: str
    version: int


@dataclass
class ModelFact:
    """A fact, and the contents it had before with their versions, the latest first."""

    content: str
    tags: tuple[str, ...]
    is_private: bool
    ends: bool
    version: int = 1
    history: list[tuple[int, str]] = field(default_factory=list)

    def is_visible(self, principals: Sequence[str]) -> bool:
        """Whether a caller may see it."""
        return not self.is_private or ANN in principals

    @property
    def seen(self) -> Seen:
        """What a caller can tell of it."""
        return Seen(self.content, self.tags, self.version, self.is_private, self.ends)


@dataclass
class ModelFacts:
    """Facts in the order in which they were stored."""

    facts: dict[str, ModelFact] = field(default_factory=dict)

    def copy(self) -> ModelFacts:
        """Returns one that changes apart from this."""
        return deepcopy(self)

    def store(self, fact_id: str, content: str, tags: Sequence[str], *, is_private: bool, ends: bool) -> Answer:
        """Stores a fact, unless its id or its content is there."""
        existing = self.facts.get(fact_id)
        if existing is not None and (existing.content, existing.is_private) != (content, is_private):
            return Answer("conflict", fact_id, existing.version)
        owner = fact_id if existing is not None else self._owner(content, is_private=is_private)
        if owner is not None:
            owned = self.facts[owner]
            owned.ends = owned.ends and ends
            return Answer("duplicate", owner, owned.version)
        self.facts[fact_id] = ModelFact(content, tuple(sorted(tags)), is_private, ends)
        return Answer("success", fact_id, 1)

    def update(
        self,
        fact_id: str,
        principals: Sequence[str],
        content: str | None,
        tags: Sequence[str] | None,
        expected: int | None,
    ) -> Answer:
        """Changes a fact, unless it is another than expected or another has the content."""
        fact = self.facts.get(fact_id)
        if fact is None or not fact.is_visible(principals):
            return Answer("missing", fact_id, 0)
        if expected is not None and expected != fact.version:
            return Answer("conflict", fact_id, fact.version)
        owner = self._owner(content, is_private=fact.is_private)
        if owner not in {None, fact_id}:
            return Answer("conflict", str(owner), self.facts[str(owner)].version)
        fact.history.insert(0, (fact.version, fact.content))
        fact.version += 1
        fact.content = fact.content if content is None else content
        fact.tags = fact.tags if tags is None else tuple(sorted(tags))
        return Answer("success", fact_id, fact.version)

    def delete(self, fact_id: str, principals: Sequence[str], expected: int | None) -> Answer:
        """Deletes a fact, unless it is another than expected."""
        fact = self.facts.get(fact_id)
        if fact is None or not fact.is_visible(principals):
            return Answer("missing", fact_id, 0)
        if expected is not None and expected != fact.version:
            return Answer("conflict", fact_id, fact.version)
        del self.facts[fact_id]
        return Answer("success", fact_id, 0)

    def visible(self, principals: Sequence[str], word: str = "", tag: str | None = None) -> list[str]:
        """Returns the facts that a caller may see, oldest first, that have a word and a tag."""
        return [
            fact_id
            for fact_id, fact in self.facts.items()
            if fact.is_visible(principals)
            and (not word or word in fact.content.split())
            and (tag is None or tag in fact.tags)
        ]

    @property
    def seen(self) -> dict[str, Seen]:
        """All facts, as somebody sees them who may see all."""
        return {fact_id: fact.seen for fact_id, fact in self.facts.items()}

    def _owner(self, content: str | None, *, is_private: bool) -> str | None:
        for fact_id, fact in self.facts.items():
            if (fact.content, fact.is_private) == (content, is_private):
                return fact_id
        return None
