"""Random changes between any two scripts of a rebuild: the new index is what the changes have left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import Context
from itertools import count
from typing import Any, NamedTuple

import pytest
import redis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from knowledge_base import KnowledgeBase
from knowledge_base.errors import FactNotFoundError, VersionConflictError
from knowledge_base.index.next_generation import NextGeneration
from knowledge_base.settings import ChunkingSettings, IndexingSettings, Settings, Timeouts
from tests.support.bookkeeping import settles
from tests.support.embedded import client_of
from tests.support.embeddings import StubEmbedding
from tests.support.polling import eventually
from tests.support.rebuilds import generation_of, index_faults, leftovers, other_model

EXAMPLES = 40
"""Of each of the two: for the same model, and for another one."""

IDS = ("a", "b", "c", "d")
MOST_CHANGES = 30
LONG_ENDING = 1_000.0
SETTLES_WITHIN = 60.0


class Change(NamedTuple):
    """Something that a caller does."""

    way: str
    fact_id: str
    passages: int
    waits: bool
    after: int
    """Scripts of the rebuild that come first, since the change before."""


changes = st.lists(
    st.builds(
        Change,
        way=st.sampled_from(["store", "store", "content", "content", "tags", "delete", "ends", "stays"]),
        fact_id=st.sampled_from(IDS),
        passages=st.integers(1, 5),
        waits=st.booleans(),
        after=st.integers(0, 3),
    ),
    min_size=6,
    max_size=MOST_CHANGES,
)


class Changes:
    """Does changes when it is their turn, and remembers what must be there.

    Args:
        kb: The base.
        namespace: Where.
        todo: The changes, in order.
    """

    def __init__(self, kb: KnowledgeBase, namespace: str, todo: list[Change]) -> None:
        self.facts: dict[str, tuple[str, list[str]]] = {}
        self._kb = kb
        self._namespace = namespace
        self._todo = todo
        self._scripts = 0
        self._number = 0

    async def begin(self) -> None:
        """Stores some facts before the rebuild."""
        for fact_id in IDS[:3]:
            await self._do(Change("store", fact_id, 3, waits=True, after=0))

    async def before_script(self) -> None:
        """Does what comes before the next script of the rebuild."""
        while self._todo and self._scripts >= self._todo[0].after:
            self._scripts = 0
            await self._do(self._todo.pop(0))
        self._scripts += 1

    async def rest(self) -> None:
        """Does what is left."""
        while self._todo:
            await self._do(self._todo.pop(0))

    async def _do(self, change: Change) -> None:
        # As a caller of its own, not as a part of the job.
        task = asyncio.get_running_loop().create_task(self._change(change), context=Context())
        await task

    async def _change(self, change: Change) -> None:
        fact_id = change.fact_id
        where: dict[str, Any] = {"namespace": self._namespace}
        self._number += 1
        # What is stored has always the same content, so that its parts may have the names of those that were deleted.
        stored = _content(f"{fact_id} stored", change.passages)
        if change.way in {"store", "ends", "stays"}:
            ending = LONG_ENDING if change.way == "ends" else None
            try:
                result = await self._kb.store_fact(
                    stored, fact_id=fact_id, wait_indexed=change.waits, expires_in=ending, **where
                )
            except VersionConflictError:
                return
            if result["status"] == "success":
                self.facts[fact_id] = (stored, [])
            return
        try:
            if change.way == "content":
                content = _content(f"{fact_id} changed {self._number}", change.passages)
                await self._kb.update_fact(fact_id, content=content, **where)
                self.facts[fact_id] = (content, self.facts[fact_id][1])
            elif change.way == "tags":
                tags = [f"t{self._number}"]
                await self._kb.update_fact(fact_id, tags=tags, **where)
                self.facts[fact_id] = (self.facts[fact_id][0], tags)
            else:
                assert await self._kb.delete_fact(fact_id, **where) == (fact_id in self.facts)
                self.facts.pop(fact_id, None)
        except FactNotFoundError:
            assert fact_id not in self.facts


def _content(begin: str, passages: int) -> str:
    return "\n\n".join(f"{begin} part {number} " + "and so on " * 4 for number in range(passages))


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with client_of(redis_url) as one:
        yield one


@pytest.fixture
def tiny_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes each script of a rebuild do very little."""
    for name, value in {
        "index.next_generation.PARTS_AT_ONCE": 2,
        "index.next_generation.SWITCHED_ALONG": 4,
        "admin.rebuild.index_rebuild.PAGE": 2,
        "admin.rebuild.index_rebuild.CAUGHT_UP": 2,
        "admin.rebuild.index_rebuild.FRESH_FOR": 0.0,
        "admin.rebuild.filler.FACTS_AT_ONCE": 1,
    }.items():
        monkeypatch.setattr(f"knowledge_base.{name}", value)


@pytest.mark.parametrize("is_moved", [False, True], ids=["same model", "another model"])
def test_index_is_what_the_changes_have_left(
    settings: Settings,
    client: redis.Redis,
    namespace: str,
    stub_embedding: StubEmbedding,
    monkeypatch: pytest.MonkeyPatch,
    tiny_steps: None,
    is_moved: bool,
) -> None:
    new = other_model() if is_moved else None
    model = new or stub_embedding
    changed = settings.model_copy(
        update={
            "timeouts": Timeouts(search=0.01, retrieve=0.01, context=0.01),
            "chunking": ChunkingSettings(passage_tokens=16, overlap_tokens=0),
            "indexing": IndexingSettings(lease=0.5),
        }
    )
    numbers = count()
    done: dict[str, dict[str, tuple[str, list[str]]]] = {}
    turn: list[Changes] = []
    run_script = NextGeneration._run

    async def run_between(self: NextGeneration, script: Any, **fields: Any) -> Any:
        await turn[0].before_script()
        return await run_script(self, script, **fields)

    monkeypatch.setattr(NextGeneration, "_run", run_between)

    async def race(kb: KnowledgeBase, todo: list[Change]) -> None:
        where = f"{namespace}-{next(numbers)}"
        caller = Changes(kb, where, list(todo))
        turn[:] = [caller]
        await caller.begin()

        await kb.rebuild_search_index(namespace=where)
        await caller.rest()

        assert generation_of(client, where)["number"] == "2"
        done[where] = caller.facts

    async def compare(kb: KnowledgeBase, where: str) -> None:
        async def all_indexed() -> bool:
            return (await kb.get_stats(namespace=where))["pending"] == 0

        await eventually(all_indexed, SETTLES_WITHIN)
        seen = {fact["id"]: (fact["content"], fact["tags"]) for fact in await kb.get_fact(namespace=where, limit=100)}
        assert seen == done[where]
        assert index_faults(client, where, model) == []
        assert await settles(client, where, SETTLES_WITHIN) == []
        assert leftovers(client, where) == []

    with asyncio.Runner() as runner:
        kb = KnowledgeBase(changed, embed_model=stub_embedding, next_embed_model=new)

        @bounded(
            max_examples=EXAMPLES,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(todo=changes)
        def races(todo: list[Change]) -> None:
            runner.run(race(kb, todo))

        try:
            races()
            # The background has had its time by then.
            for where in done:
                runner.run(compare(kb, where))
        finally:
            runner.run(kb.close())
    assert len(done) >= EXAMPLES
