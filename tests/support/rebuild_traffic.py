"""Callers who search and write while an index is rebuilt, and what must be found when they are done."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.facts import hit_ids
from tests.support.many_facts import content, populate
from tests.support.polling import eventually
from tests.support.rebuilds import PATIENT

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

SEARCHERS = 20
WRITERS = 5
STEADY = 40
"""Facts that nobody changes and everybody searches for."""

LONG_PASSAGES = 60
SHORT_ENDING = 0.2
THINKS = 0.02
CHECKED_AT_ONCE = 10
TAGS = ("red", "green", "blue")


@dataclass
class Current:
    """What a fact must be found as."""

    content: str
    tags: list[str]


def steady(number: int) -> str:
    """Returns the content of a fact that nobody changes."""
    return f"steady{number} {_words(random.Random(number))}"


def _words(chance: random.Random, count: int = 5) -> str:
    return " ".join(f"w{chance.randrange(10**9)}" for _ in range(count))


def long_content(word: str, passages: int = LONG_PASSAGES) -> str:
    """Returns a content of about so many passages, each with the word."""
    return "\n\n".join(f"{word} passage {n} " + "filler " * 200 for n in range(passages))


@dataclass
class Traffic:
    """Twenty callers who search and five who write, each with facts of its own.

    Args:
        kb: The base, or bases, that they call in turn.
        seed: Of what they choose.
        ways: Modes of the searches.
    """

    kb: list[KnowledgeBase]
    seed: int = 1
    ways: tuple[str, ...] = ("text", "vector", "hybrid")
    long_facts: bool = True
    facts: dict[str, Current] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    """Content of each fact that was deleted or has ended."""
    wrong: Counter[str] = field(default_factory=Counter)
    searches: int = 0
    writes: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    _ends: asyncio.Event = field(default_factory=asyncio.Event)
    _turn: int = 0
    _calls: Counter[int] = field(default_factory=Counter)

    async def prepare(self, others: int) -> None:
        """Stores what is searched for, and more that nobody asks for.

        Args:
            others: How many of these.
        """
        await populate(self.kb[0], others, with_vectors=False)
        self.facts.update({f"f{number}": Current(content(number), []) for number in range(others)})
        items = [{"fact_id": f"steady{n}", "content": steady(n)} for n in range(STEADY)]
        assert (await self.kb[0].store_facts(items))["succeeded"] == STEADY
        self.facts.update({str(item["fact_id"]): Current(item["content"], []) for item in items})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Traffic]:
        """Lets everybody work while the block runs, and some searches and writes before and after it."""
        self._ends.clear()
        callers = [self._search(n) for n in range(SEARCHERS)] + [self._write(n) for n in range(WRITERS)]
        tasks: list[asyncio.Future[None]] = [asyncio.ensure_future(caller) for caller in callers]
        try:
            await self._some_more(tasks)
            yield self
            await self._some_more(tasks)
        finally:
            self._ends.set()
            await asyncio.gather(*tasks)

    async def everybody_once_more(self) -> None:
        """Waits until each writer has done something more, begun after this."""
        before = dict(self._calls)

        def has_gone_on() -> bool:
            return all(self._calls[caller] >= before.get(caller, 0) + 2 for caller in range(WRITERS))

        await eventually(has_gone_on, PATIENT)

    async def _some_more(self, tasks: list[asyncio.Future[None]]) -> None:
        searches, writes = self.searches + SEARCHERS, self.writes.total() + 2 * WRITERS

        def has_gone_on() -> bool:
            for task in tasks:
                if task.done():
                    task.result()
            return self.searches >= searches and self.writes.total() >= writes

        await eventually(has_gone_on, PATIENT)

    def _next(self) -> KnowledgeBase:
        self._turn += 1
        return self.kb[self._turn % len(self.kb)]

    async def _search(self, caller: int) -> None:
        chance = random.Random(self.seed * 1_000 + caller)
        while not self._ends.is_set():
            number, mode = chance.randrange(STEADY), chance.choice(self.ways)
            await self._search_once(number, mode)
            await asyncio.sleep(THINKS)

    async def _search_once(self, number: int, mode: Any) -> None:
        begun = time.perf_counter()
        try:
            results = await self._next().search(steady(number), 5, mode=mode, timeout=PATIENT)
        except Exception as error:
            self.wrong[f"{mode}: {type(error).__name__}: {error}"] += 1
            return
        self.searches += 1
        self.longest = max(self.longest, time.perf_counter() - begun)
        if results["degraded"]:
            self.wrong[f"{mode}: degraded {results['degraded']}"] += 1
        elif f"steady{number}" not in hit_ids(results):
            self.wrong[f"{mode}: {'empty' if not results['hits'] else 'not found'}"] += 1

    async def _write(self, caller: int) -> None:
        chance = random.Random(self.seed * 1_000 + 500 + caller)
        mine: list[str] = []
        count = 0
        while not self._ends.is_set():
            count += 1
            try:
                await self._write_once(f"s{self.seed}c{caller}n{count}", mine, chance)
            except Exception as error:
                self.wrong[f"write: {type(error).__name__}: {error}"] += 1
            self._calls[caller] += 1
            await asyncio.sleep(THINKS)

    async def _write_once(self, name: str, mine: list[str], chance: random.Random) -> None:
        kb = self._next()
        way = chance.choice(["store", "store", "content", "tags", "delete", "expire", "long"])
        content = f"{name} {_words(chance)}"
        if way == "long" and self.long_facts and chance.randrange(8) == 0:
            content = long_content(name)
        if way == "expire":
            await kb.store_fact(content, fact_id=name, expires_in=SHORT_ENDING, timeout=PATIENT)
            self.gone[name] = content
        elif way in {"store", "long"} or not mine:
            tags = chance.sample(TAGS, 1)
            await kb.store_fact(content, fact_id=name, tags=tags, wait_indexed=chance.random() < 0.7, timeout=PATIENT)
            self.facts[name] = Current(content, tags)
            mine.append(name)
        else:
            chosen = chance.choice(mine)
            fact = self.facts[chosen]
            if way == "content":
                await kb.update_fact(chosen, content=content, timeout=PATIENT)
                fact.content = content
            elif way == "tags":
                tags = chance.sample(TAGS, 2)
                await kb.update_fact(chosen, tags=tags, timeout=PATIENT)
                fact.tags = tags
            else:
                assert await kb.delete_fact(chosen, timeout=PATIENT)
                mine.remove(chosen)
                self.gone[chosen] = self.facts.pop(chosen).content
        self.writes[way] += 1

    async def lost(self, kb: KnowledgeBase) -> list[str]:
        """Returns what is not found as it must be, by words and by meaning, or found although it is gone.

        Args:
            kb: Any base, when nothing is pending.
        """
        doing = asyncio.Semaphore(CHECKED_AT_ONCE)
        found: list[str] = []

        async def check(fact_id: str, content: str, tags: list[str] | None) -> None:
            for mode in ("text", "vector"):
                filters = {"and": [{"fact_id": fact_id}, *({"tags": tag} for tag in tags or ())]}
                async with doing:
                    results = await kb.search(
                        content[:1_000],
                        5,
                        mode=mode,
                        filters=filters,
                        timeout=PATIENT,
                    )
                if (fact_id in hit_ids(results)) != (tags is not None):
                    found.append(f"{fact_id} by {mode}: {results['hits']}")
                elif tags is not None and results["hits"][0]["content"] not in content:
                    found.append(f"{fact_id} by {mode}: another content")

        await asyncio.gather(
            *(check(fact_id, fact.content, fact.tags) for fact_id, fact in self.facts.items()),
            *(check(fact_id, content, None) for fact_id, content in self.gone.items()),
        )
        facts = {fact["id"]: (fact["content"], sorted(fact["tags"])) async for fact in kb.iter_facts()}
        expected = {fact_id: (fact.content, sorted(fact.tags)) for fact_id, fact in self.facts.items()}
        found += [
            f"{fact_id}: listed otherwise"
            for fact_id in {*facts, *expected}
            if facts.get(fact_id) != expected.get(fact_id)
        ]
        return found
