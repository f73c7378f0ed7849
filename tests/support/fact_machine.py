"""A state machine that does to a knowledge base, and to a model of it, whatever callers and accidents may do."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from knowledge_base import KnowledgeBase
from knowledge_base.errors import FactNotFoundError, UnavailableError, VersionConflictError
from knowledge_base.settings import BreakerSettings, EmbeddingSettings, IndexingSettings, Settings
from tests.support.bookkeeping import settles
from tests.support.embedded import client_of
from tests.support.embeddings import StubEmbedding
from tests.support.facts import hit_ids
from tests.support.model_facts import ANN, Answer, ModelFacts, Seen
from tests.support.polling import eventually
from tests.support.server import RedisServer

IDS = ["a", "b", "c", "d"]
WORDS = ["penguins", "walruses", "puffins", "swim", "climb", "rest"]
LONG = "seals rest " * 700
CONTENTS = [*(f"{who} {what}" for who in WORDS[:3] for what in WORDS[3:]), LONG.strip()]
TAGS = ["t", "u"]
MOST = 1_000
EVERYBODY = [ANN]
LONG_ENDING = 3_600.0
SHORT_ENDING = 0.05
SETTLES_WITHIN = 30.0

contents = st.sampled_from(CONTENTS)
ids = st.sampled_from(IDS)
tags = st.lists(st.sampled_from(TAGS), unique=True)
callers = st.sampled_from([[], [ANN]])
expectations = st.sampled_from([None, None, "right", "wrong"])
steps = st.integers(0, 60)
Accident = Literal["server killed", "base closed", "caller cancelled"]
# What is drawn depends on nothing that an accident decides: a sequence must be the same when it is run again.
accidents: st.SearchStrategy[Accident] = st.sampled_from(["server killed", "base closed", "caller cancelled"])


class FactMachine(RuleBasedStateMachine):
    """Does the same to both and compares what they say.

    Args:
        server: One that syncs its file with every write, for this machine alone.
        count_step: Called once for each step.
    """

    def __init__(self, server: RedisServer, count_step: Callable[[], None]) -> None:
        super().__init__()
        self.model = ModelFacts()
        self._server = server
        self._count_step = count_step
        self._embedding = StubEmbedding(model_name="stub")
        self._runner = asyncio.Runner()
        self._settings = Settings(
            redis_url=server.url,
            namespace="machine",
            breaker=BreakerSettings(reset_after=0.05),
            indexing=IndexingSettings(lease=0.5, retry_after=0.05),
            # Without it, the first store would have to ask the model, which may be failing.
            embedding=EmbeddingSettings(dimension=self._embedding.size),
        )
        self._kb: KnowledgeBase

    def teardown(self) -> None:
        try:
            self._runner.run(self._end())
        except Exception:
            traceback.print_exc()
            raise
        finally:
            self._runner.close()

    @initialize()
    def begin(self) -> None:
        with client_of(self._server.url) as client:
            client.flushall()
        self._runner.run(self._open())

    @rule(fact_id=ids, content=contents, tags=tags, private=st.booleans(), ends=st.booleans(), waits=st.booleans())
    def store(self, fact_id: str, content: str, tags: list[str], private: bool, ends: bool, waits: bool) -> None:
        expected = self.model.store(fact_id, content, tags, is_private=private, ends=ends)
        call = self._store(fact_id, content, tags, private=private, ends=ends, waits=waits)

        self._do(self._agrees(call, expected))

    @rule(
        fact_id=ids,
        content=st.none() | contents,
        tags=st.none() | tags,
        who=callers,
        expecting=expectations,
    )
    def update(self, fact_id: str, content: str | None, tags: list[str] | None, who: list[str], expecting: Any) -> None:
        version = self._expected_version(fact_id, expecting)
        given_tags = [] if content is None and tags is None else tags
        expected = self.model.update(fact_id, who, content, given_tags, version)

        self._do(self._agrees(self._update(fact_id, who, content, given_tags, version), expected))

    @rule(fact_id=ids, who=callers, expecting=expectations)
    def delete(self, fact_id: str, who: list[str], expecting: Any) -> None:
        version = self._expected_version(fact_id, expecting)
        expected = self.model.delete(fact_id, who, version)

        self._do(self._agrees(self._delete(fact_id, who, version), expected))

    @rule(fact_id=ids, content=contents, private=st.booleans(), retagged=st.booleans())
    def expire(self, fact_id: str, content: str, private: bool, retagged: bool) -> None:
        # Where the model refuses it, or has it already, nothing ends.
        expected = self.model.copy().store(fact_id, content, [], is_private=private, ends=True)

        self._do(self._expire(fact_id, content, private=private, retagged=retagged, expected=expected))

    @rule(fact_id=ids, who=callers)
    def look_up(self, fact_id: str, who: list[str]) -> None:
        self._do(self._look_up(fact_id, who))

    @rule(who=callers, tag=st.none() | st.sampled_from(TAGS))
    def list_all(self, who: list[str], tag: str | None) -> None:
        self._do(self._list(who, tag))

    @rule(word=st.sampled_from([*WORDS, "seals"]), who=callers)
    def search_by_words(self, word: str, who: list[str]) -> None:
        self._do(self._search_by_words(word, who))

    @rule(content=st.sampled_from(CONTENTS[:-1]), who=callers, mode=st.sampled_from(["vector", "hybrid"]))
    def search_by_meaning(self, content: str, who: list[str], mode: Any) -> None:
        self._do(self._search_by_meaning(content, who, mode))

    @rule(mood=st.sampled_from(["failing", "well"]))
    def embedder(self, mood: Any) -> None:
        self._embedding.become(mood)
        self._do(self._same())

    @rule()
    def kill_server(self) -> None:
        self._server.kill()
        self._server.restart()
        self._do(self._same())

    @rule()
    def reopen(self) -> None:
        self._do(self._reopen())

    @rule(
        how=accidents, after=steps, fact_id=ids, content=contents, tags=tags, private=st.booleans(), waits=st.booleans()
    )
    def cut_off_store(
        self, how: Accident, after: int, fact_id: str, content: str, tags: list[str], private: bool, waits: bool
    ) -> None:
        done = self.model.copy()
        done.store(fact_id, content, tags, is_private=private, ends=False)
        call = self._store(fact_id, content, tags, private=private, ends=False, waits=waits)

        self._do(self._cut_off(how, after, call, done))

    @rule(how=accidents, after=steps, fact_id=ids, content=contents, tags=tags)
    def cut_off_update(self, how: Accident, after: int, fact_id: str, content: str, tags: list[str]) -> None:
        done = self.model.copy()
        done.update(fact_id, EVERYBODY, content, tags, None)

        self._do(self._cut_off(how, after, self._update(fact_id, EVERYBODY, content, tags, None), done))

    @rule(how=accidents, after=steps, fact_id=ids)
    def cut_off_delete(self, how: Accident, after: int, fact_id: str) -> None:
        done = self.model.copy()
        done.delete(fact_id, EVERYBODY, None)

        self._do(self._cut_off(how, after, self._delete(fact_id, EVERYBODY, None), done))

    def _do(self, step: Coroutine[Any, Any, None]) -> None:
        self._count_step()
        try:
            self._runner.run(step)
        except Exception:
            # Hypothesis shows nothing of an error that does not come again.
            traceback.print_exc()
            raise

    async def _open(self) -> None:
        self._kb = KnowledgeBase(self._settings, embed_model=self._embedding)
        await self._kb.start()

    async def _reopen(self) -> None:
        await self._kb.close()
        await self._open()
        await self._same()

    async def _end(self) -> None:
        if not hasattr(self, "_kb"):
            return
        try:
            await self._all_indexed()
            await self._same()
            with client_of(self._server.url) as client:
                left = await settles(client, self._settings.namespace, SETTLES_WITHIN)
            assert left == [], left
        finally:
            self._embedding.become("well")
            await self._kb.close()

    def _expected_version(self, fact_id: str, expecting: Any) -> int | None:
        if expecting is None or fact_id not in self.model.facts:
            return None
        version = self.model.facts[fact_id].version
        return version if expecting == "right" else version + 1

    async def _store(
        self, fact_id: str, content: str, tags: list[str], *, private: bool, ends: bool, waits: bool
    ) -> Answer:
        try:
            stored = await self._kb.store_fact(
                content,
                fact_id=fact_id,
                tags=tags,
                principals=EVERYBODY if private else None,
                expires_in=LONG_ENDING if ends else None,
                wait_indexed=waits,
            )
        except VersionConflictError as error:
            return Answer("conflict", error.fact_id, error.found)
        return Answer(stored["status"], stored["fact_id"], stored["version"])

    async def _update(
        self, fact_id: str, who: list[str], content: str | None, tags: list[str] | None, version: int | None
    ) -> Answer:
        try:
            fact = await self._kb.update_fact(
                fact_id, content=content, tags=tags, expected_version=version, principals=who
            )
        except FactNotFoundError:
            return Answer("missing", fact_id, 0)
        except VersionConflictError as error:
            return Answer("conflict", error.fact_id, error.found)
        return Answer("success", fact["id"], fact["version"])

    async def _delete(self, fact_id: str, who: list[str], version: int | None) -> Answer:
        try:
            deleted = await self._kb.delete_fact(fact_id, expected_version=version, principals=who)
        except VersionConflictError as error:
            return Answer("conflict", error.fact_id, error.found)
        return Answer("success" if deleted else "missing", fact_id, 0)

    async def _expire(self, fact_id: str, content: str, *, private: bool, retagged: bool, expected: Answer) -> None:
        principals = EVERYBODY if private else None
        try:
            stored = await self._kb.store_fact(
                content, fact_id=fact_id, principals=principals, expires_in=SHORT_ENDING, wait_indexed=False
            )
        except VersionConflictError:
            assert expected.outcome == "conflict"
            return await self._same()
        assert stored["status"] == expected.outcome
        if expected.outcome == "success":
            if retagged:
                # It may have ended already.
                await self._update(fact_id, EVERYBODY, None, TAGS, None)

            async def is_gone() -> bool:
                return not await self._kb.get_fact(fact_id, principals=EVERYBODY)

            await eventually(is_gone)
        return await self._same()

    async def _look_up(self, fact_id: str, who: list[str]) -> None:
        found = await self._kb.get_fact(fact_id, principals=who)
        fact = self.model.facts.get(fact_id)
        if fact is None or not fact.is_visible(who):
            assert found == []
            return
        assert [_seen(one) for one in found] == [fact.seen]
        versions = await self._kb.get_fact_history(fact_id, principals=who)
        assert [(one["version"], one["content"]) for one in versions] == [
            (fact.version, fact.content),
            *fact.history[: self._settings.limits.history],
        ]

    async def _list(self, who: list[str], tag: str | None) -> None:
        filters = None if tag is None else {"tags": tag}
        expected = self.model.visible(who, tag=tag)
        newest = await self._kb.get_fact(principals=who, filters=filters, limit=MOST)
        assert [fact["id"] for fact in newest] == expected[::-1]
        oldest = [fact["id"] async for fact in self._kb.iter_facts(principals=who, filters=filters)]
        assert oldest == expected

    async def _search_by_words(self, word: str, who: list[str]) -> None:
        results = await self._kb.search(word, MOST, mode="text", principals=who)
        assert sorted(hit_ids(results)) == sorted(self.model.visible(who, word))

    async def _search_by_meaning(self, content: str, who: list[str], mode: Any) -> None:
        await self._all_indexed()
        results = await self._kb.search(content, MOST, mode=mode, principals=who)
        assert results["degraded"] == []
        assert sorted(hit_ids(results)) == sorted(self.model.visible(who))
        same = [fact_id for fact_id in self.model.visible(who) if self.model.facts[fact_id].content == content]
        assert sorted(hit_ids(results)[: len(same)]) == sorted(same)
        for hit in results["hits"]:
            assert hit["content"] in self.model.facts[hit["fact_id"]].content

    async def _all_indexed(self) -> None:
        self._embedding.become("well")

        async def none_pending() -> bool:
            stats = await self._kb.get_stats()
            assert stats["facts"] == len(self.model.facts)
            return stats["pending"] == 0

        await eventually(none_pending, SETTLES_WITHIN)

        async def embedder_answers() -> bool:
            try:
                return bool(await self._kb.search("anything", mode="vector"))
            except UnavailableError:
                return False

        await eventually(embedder_answers, SETTLES_WITHIN)

    async def _agrees(self, call: Coroutine[Any, Any, Answer], expected: Answer) -> None:
        assert await call == expected
        await self._same()

    async def _cut_off(self, how: Accident, after: int, call: Coroutine[Any, Any, Answer], done: ModelFacts) -> None:
        task = asyncio.create_task(call)
        for _ in range(after):
            await asyncio.sleep(0)
        if how == "server killed":
            self._server.kill()
        elif how == "base closed":
            await self._kb.close()
        else:
            task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        if how == "server killed":
            self._server.restart()
        elif how == "base closed":
            await self._open()
        assert isinstance(outcome, Answer | UnavailableError | asyncio.CancelledError), outcome
        seen = await self._seen()
        allowed = [done.seen] if isinstance(outcome, Answer) else [done.seen, self.model.seen]
        assert seen in allowed
        if seen == done.seen:
            self.model = done

    async def _same(self) -> None:
        assert await self._seen() == self.model.seen

    async def _seen(self) -> dict[str, Seen]:
        async def listed() -> list[Any] | None:
            try:
                return [await self._kb.get_fact(principals=EVERYBODY, limit=MOST)]
            except UnavailableError:
                return None

        return {fact["id"]: _seen(fact) for fact in (await eventually(listed, SETTLES_WITHIN))[0]}


def fact_machine(server: RedisServer, count_step: Callable[[], None]) -> type[FactMachine]:
    """Returns the machine for a server, as hypothesis wants it."""

    class Bound(FactMachine):
        def __init__(self) -> None:
            super().__init__(server, count_step)

    return Bound


def _seen(fact: Any) -> Seen:
    tags = tuple(sorted(fact["tags"]))
    return Seen(fact["content"], tags, fact["version"], bool(fact["principals"]), fact["expires_at"] is not None)
