"""Many different facts, stored by many callers at once, and what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from knowledge_base.errors import UnavailableError
from tests.support.bookkeeping import Bookkeeping
from tests.support.embedded import client_of
from tests.support.facts import found

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

CALLERS = 64
PAUSE = 0.05
GIVES_UP = 4
"""One in so many callers does not try again when it was told that its store may have failed."""

ASKED_AT_ONCE = 20
"""Facts that one search asks for; of more than 24 words a query keeps the weightiest."""


def word(number: int) -> str:
    """The word that only one fact has."""
    return f"order{number}x"


def content(number: int) -> str:
    return f"{word(number)} swims in the sea"


@dataclass
class ManyStores:
    """Facts that are stored once each, by callers who try again with the same content."""

    kb: KnowledgeBase
    numbers: Iterator[int]
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Content of each fact that was acknowledged, and the id that its caller was told."""
    given_up: int = 0

    @property
    def done(self) -> int:
        """How many callers have their answer."""
        return len(self.acknowledged) + self.given_up

    def has_done(self, stores: int) -> bool:
        """Whether so many callers have their answer."""
        return self.done >= stores

    async def run(self) -> None:
        """Stores all."""
        await asyncio.gather(*(self._store_some() for _ in range(CALLERS)))

    async def _store_some(self) -> None:
        for number in self.numbers:
            await self._store(number)

    async def _store(self, number: int) -> None:
        while True:
            try:
                stored = await self.kb.store_fact(content(number))
            except UnavailableError:
                await asyncio.sleep(PAUSE)
                if number % GIVES_UP == 0:
                    self.given_up += 1
                    return
                continue
            self.acknowledged[content(number)] = stored["fact_id"]
            return


@dataclass(frozen=True)
class Survey:
    """What is stored when all is over, against what was acknowledged."""

    facts: dict[str, str]
    """Id and content of each fact."""
    acknowledged: dict[str, str]
    """Content and id of each fact that a caller was told of."""
    pending: int
    faults: list[str]
    unseen: dict[str, set[str]]
    """Facts that each kind of search does not find."""

    @classmethod
    async def taken(cls, kb: KnowledgeBase, url: str, acknowledged: dict[str, str]) -> Survey:
        """Looks at everything, and searches for each fact by meaning and by words."""
        with client_of(url) as client:
            books = Bookkeeping(client, kb.settings.namespace)
        facts = {fact_id: fact["content"] for fact_id, fact in books.facts.items()}
        unseen: dict[str, set[str]] = {"vector": set(), "text": set()}
        ids = sorted(facts)
        for begin in range(0, len(ids), ASKED_AT_ONCE):
            some = ids[begin : begin + ASKED_AT_ONCE]
            words = " ".join(facts[fact_id].split()[0] for fact_id in some)
            by_words = await found(kb, words, mode="text", top_k=ASKED_AT_ONCE)
            by_meaning = await found(kb, words, mode="vector", top_k=ASKED_AT_ONCE, filters={"fact_id": some})
            unseen["text"] |= set(some) ^ set(by_words)
            unseen["vector"] |= set(some) ^ set(by_meaning)
        return cls(facts, dict(acknowledged), len(books.pending), books.faults(), unseen)

    @property
    def lost(self) -> list[str]:
        """Acknowledged contents that are not there, or not under the id that was told."""
        return [content for content, fact_id in self.acknowledged.items() if self.facts.get(fact_id) != content]

    @property
    def duplicates(self) -> int:
        """Facts whose content another one has."""
        return len(self.facts) - len(set(self.facts.values()))
