"""Callers of every kind, each at its own pace, who leave as much stored as they found."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from knowledge_base import KnowledgeBase
from tests.benchmarks.collection import texts
from tests.soak.outcomes import Outcomes

MODES: tuple[Literal["hybrid", "vector", "text"], ...] = ("hybrid", "vector", "text")
AFTER_A_FAILURE = 0.1
BULK_FACTS = 40
BULK_TAG = "bulk"
BIG_CHARACTERS = 500_000
METADATA_BYTES = 64_000
PAGE = 1_000

Turn = Callable[[], Awaitable[None]]


def sentences(wanted: int) -> list[str]:
    """Different texts of a sentence or so."""
    found = [part.strip() for passage in texts("corpus") for part in passage.split(". ") if len(part) > 30]
    return list(dict.fromkeys(found))[:wanted]


def big_text(characters: int) -> str:
    """A text of so many characters, unlike any other."""
    whole = "\n\n".join(texts("corpus"))
    return (f"{uuid.uuid4()} " + whole * (characters // len(whole) + 1))[:characters]


def big_metadata() -> dict[str, Any]:
    """Metadata just below the limit: few long values, or thousands of short ones."""
    if random.random() < 0.5:
        return {"notes": ["x" * 300 for _ in range(METADATA_BYTES // 310)]}
    return {"numbers": list(range(METADATA_BYTES // 7))}


class Workload:
    """The callers.

    Args:
        kb: What they call.
        outcomes: Where it is counted.
        pause: Seconds between two turns of a caller, on average.
    """

    def __init__(self, kb: KnowledgeBase, outcomes: Outcomes, pause: float) -> None:
        self._kb = kb
        self._outcomes = outcomes
        self._pause = pause
        self._questions = texts("queries")
        self._passages = texts("corpus")
        self._base: list[str] = []

    async def prepare(self, contents: Sequence[str]) -> None:
        """Stores what is only read."""
        facts = [
            {"content": content, "fact_id": f"base-{at}", "tags": ["base"], "metadata": {"place": at}}
            for at, content in enumerate(contents)
        ]
        result = await self._kb.store_facts(facts)
        assert result["succeeded"] == len(facts), result
        self._base = [str(fact["fact_id"]) for fact in facts]

    def callers(self) -> list[Turn]:
        """One turn of each everyday caller."""
        writers = [self._writer(f"writer-{number}") for number in range(3)]
        readers = [*([self._search] * 4), *([self._read] * 2), *([self._prompt] * 2)]
        return [*readers, *writers, self._expiring(), self._bulk, self._look]

    def big_callers(self) -> list[Turn]:
        """One turn of each caller who asks for as much as the limits allow."""
        return [self._big_fact, self._big_metadata, self._big_search, self._big_page]

    async def run(self, turns: Sequence[Turn]) -> None:
        """Lets every caller take turns until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for turn in turns:
                group.create_task(self._repeat(turn))

    async def clear(self) -> None:
        """Deletes what the callers have left where a fault stopped them."""
        await self._outcomes.of("delete_facts", self._kb.delete_facts({"tags": ["passing"]}))

    async def _repeat(self, turn: Turn) -> None:
        while True:
            await turn()
            await asyncio.sleep(random.expovariate(1 / self._pause))

    async def _call(self, operation: str, call: Awaitable[Any]) -> Any:
        result = await self._outcomes.of(operation, call)
        if result is None:
            await asyncio.sleep(AFTER_A_FAILURE)
        return result

    def _content(self) -> str:
        return f"{uuid.uuid4()} {random.choice(self._passages)}"

    async def _search(self) -> None:
        question, mode = random.choice(self._questions), random.choice(MODES)
        await self._call(f"search {mode}", self._kb.search(question, mode=mode))

    async def _prompt(self) -> None:
        earlier, question = random.choices(self._questions, k=2)
        await self._call("retrieve_chunks_from_text", self._kb.retrieve_chunks_from_text(question))
        context = self._kb.build_context(question, history=[{"role": "user", "content": earlier}])
        await self._call("build_context", context)

    async def _read(self) -> None:
        kind = random.randrange(4)
        if kind == 0:
            await self._call("get_fact by id", self._kb.get_fact(random.choice(self._base)))
        elif kind == 1:
            await self._call("get_fact by words", self._kb.get_fact(query=random.choice(self._questions), limit=10))
        elif kind == 2:
            await self._call("get_fact newest", self._kb.get_fact(filters={"tags": ["base"]}, limit=20))
        else:
            await self._call("iter_facts", self._iterate())

    async def _iterate(self) -> int:
        read = 0
        async for _ in self._kb.iter_facts():
            read += 1
            if read == 300:
                break
        return read

    def _writer(self, name: str) -> Turn:
        async def turn() -> None:
            fact_id = f"{name}-{random.randrange(10)}"
            # A fault may have kept the turn before from deleting it.
            await self._call("delete_fact", self._kb.delete_fact(fact_id))
            waits = random.random() < 0.7
            stored = await self._call(
                "store_fact",
                self._kb.store_fact(
                    self._content(), {"by": name}, fact_id=fact_id, tags=["passing"], wait_indexed=waits
                ),
            )
            if stored is None:
                return
            await self._call("update_fact", self._kb.update_fact(fact_id, content=self._content()))
            await self._call("update_fact", self._kb.update_fact(fact_id, metadata={"by": name, "again": True}))
            await self._call("get_fact_history", self._kb.get_fact_history(fact_id))
            await self._call("delete_fact", self._kb.delete_fact(fact_id))

        return turn

    def _expiring(self) -> Turn:
        async def turn() -> None:
            await self._call(
                "store_fact expiring", self._kb.store_fact(self._content(), tags=["passing"], expires_in=2.0)
            )

        return turn

    async def _bulk(self) -> None:
        facts = [
            {"content": self._content(), "fact_id": f"bulk-{at}", "tags": [BULK_TAG, "passing"]}
            for at in range(BULK_FACTS)
        ]
        await self._call("store_facts", self._kb.store_facts(facts, timeout=60))
        await self._call("delete_facts", self._kb.delete_facts({"tags": [BULK_TAG]}, timeout=60))

    async def _look(self) -> None:
        await self._call("get_stats", self._kb.get_stats())
        await self._call("get_detailed_stats", self._kb.get_detailed_stats())
        await self._call("health", self._kb.health())

    async def _big_fact(self) -> None:
        await self._call("delete_fact", self._kb.delete_fact("big-content"))
        content = big_text(BIG_CHARACTERS)
        await self._call("store_fact big", self._kb.store_fact(content, fact_id="big-content", tags=["passing"]))
        await self._call("get_fact big", self._kb.get_fact("big-content"))
        changed = big_text(BIG_CHARACTERS)
        await self._call("update_fact big", self._kb.update_fact("big-content", content=changed))
        await self._call("get_fact_history big", self._kb.get_fact_history("big-content"))
        await self._call("delete_fact big", self._kb.delete_fact("big-content"))

    async def _big_metadata(self) -> None:
        fact_id = f"big-metadata-{random.randrange(10)}"
        await self._call("delete_fact", self._kb.delete_fact(fact_id))
        stored = self._kb.store_fact(self._content(), big_metadata(), fact_id=fact_id, tags=["passing"])
        await self._call("store_fact, metadata big", stored)
        await self._call("get_fact, metadata big", self._kb.get_fact(fact_id))

    async def _big_search(self) -> None:
        question, mode = random.choice(self._questions), random.choice(MODES)
        await self._call(f"search {mode} top {PAGE}", self._kb.search(question, PAGE, mode=mode))

    async def _big_page(self) -> None:
        if random.random() < 0.5:
            await self._call(f"get_fact page of {PAGE}", self._kb.get_fact(limit=PAGE))
        else:
            page = self._kb.get_fact(filters={"tags": ["base"]}, limit=PAGE)
            await self._call(f"get_fact page of {PAGE}, filtered", page)
