"""Processes that are killed or frozen while they rebuild an index, as ``kb reindex`` does it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from knowledge_base.settings import EmbeddingSettings, Settings
from tests.support.bookkeeping import Bookkeeping
from tests.support.control import Control
from tests.support.embedded import client_of
from tests.support.facts import hit_ids
from tests.support.many_facts import content, populate
from tests.support.polling import eventually
from tests.support.rebuilds import PATIENT, SHORT, end_lease, generation_of, leftovers, rebuild_of

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

KB = str(Path(sys.executable).with_name("kb"))
FACTS = 2_000
KILLS = 10
SIZE = 32
MODEL = "far away"
STARTS_WITHIN = 90.0
THINKS = 0.05


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with client_of(redis_url) as one:
        yield one


@pytest.fixture
def settings(settings: Settings) -> Settings:
    # Nobody listens there: where vectors are kept, the model is asked for nothing.
    embedding = EmbeddingSettings(
        provider="openai", base_url="http://127.0.0.1:1/v1", api_key="none", model=MODEL, dimension=SIZE
    )
    return settings.model_copy(update={"embedding": embedding})


class Reindex:
    """A process that runs ``kb reindex``."""

    def __init__(self, settings: Settings) -> None:
        embedding = settings.embedding
        named = {"PROVIDER": "openai", "BASE_URL": embedding.base_url, "API_KEY": "none", "MODEL": MODEL}
        environment = {f"KB_EMBEDDING__{name}": str(value) for name, value in named.items()}
        environment |= {"KB_EMBEDDING__DIMENSION": str(SIZE)}
        for name in ("SEARCH", "RETRIEVE", "CONTEXT"):
            environment[f"KB_TIMEOUTS__{name}"] = "0.3"
        where = ["--redis-url", str(settings.redis_url), "--namespace", settings.namespace]
        self.process = subprocess.Popen(
            [KB, "reindex", "--json", *where],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def send(self, number: int) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Ends it with SIGKILL."""
        self.process.kill()
        self.process.communicate()

    async def outcome(self) -> tuple[int, Any]:
        """Waits for its end; returns the exit code and what it printed."""
        out, error = await asyncio.to_thread(self.process.communicate)
        return self.process.returncode, json.loads(out or error)

    async def until(self, client: redis.Redis, namespace: str, done: int) -> None:
        """Waits until it has begun, and has done so much; or has ended."""

        def is_so_far() -> bool:
            record = rebuild_of(client, namespace)
            owned = record.get("lease", "0") != "0"
            return self.process.poll() is not None or (owned and int(record["done"]) >= done)

        await eventually(is_so_far, STARTS_WITHIN)


@asynccontextmanager
async def searched(kb: KnowledgeBase) -> AsyncIterator[Counter[str]]:
    """Searches while the block runs, and counts what was not right."""
    outcomes: Counter[str] = Counter()
    ends = asyncio.Event()

    async def search() -> None:
        chance = random.Random(5)
        while not ends.is_set():
            number = chance.randrange(FACTS)
            results = await kb.search(content(number), 5, mode="text", timeout=PATIENT)
            outcomes["right" if f"f{number}" in hit_ids(results) else "wrong"] += 1
            await asyncio.sleep(THINKS)

    task = asyncio.create_task(search())
    try:
        yield outcomes
    finally:
        ends.set()
        await task


@pytest.mark.timeout(600)
async def test_killed_rebuilds_leave_the_live_index_alone_and_the_next_one_goes_on(
    settings: Settings, client: redis.Redis, control: Control, namespace: str
) -> None:
    from knowledge_base import KnowledgeBase

    # Each goes on where the one before it was killed.
    moments = sorted(random.Random(11).sample(range(FACTS), KILLS - 1))
    async with KnowledgeBase(settings) as kb:
        await populate(kb, FACTS)
        parts = {key: value for key, value in control.dump(namespace).items() if ":1:" in key}
        killed = 0
        async with searched(kb) as outcomes:
            for done in (0, *moments):
                process = Reindex(settings)
                await process.until(client, namespace, done)
                process.kill()
                if generation_of(client, namespace)["number"] != "1":
                    break
                killed += 1
                assert int(rebuild_of(client, namespace)["done"]) >= done
                end_lease(client, namespace)
            unchanged = all(control.run("DUMP", key) == value for key, value in parts.items()) if killed else False
            before = rebuild_of(client, namespace)
            code, report = await Reindex(settings).outcome()

    assert outcomes["right"] > 0
    assert set(outcomes) == {"right"}
    assert killed >= KILLS // 2
    assert unchanged or not before
    assert code == 0, report
    assert report["resumed"] is bool(before)
    assert report["embedded"] == 0
    await eventually(lambda: leftovers(client, namespace) == [])
    assert Bookkeeping(client, namespace).faults() == []


async def test_process_that_was_frozen_can_change_nothing_when_another_has_taken_over(
    settings: Settings, client: redis.Redis, control: Control, namespace: str
) -> None:
    from knowledge_base import KnowledgeBase

    async with KnowledgeBase(settings.model_copy(update={"timeouts": SHORT})) as kb:
        await populate(kb, FACTS)
        frozen = Reindex(settings)
        await frozen.until(client, namespace, 200)
        frozen.send(signal.SIGSTOP)
        try:
            done = int(rebuild_of(client, namespace)["done"])
            end_lease(client, namespace)
            report = await kb.rebuild_search_index()
            before = control.dump(namespace)
        finally:
            frozen.send(signal.SIGCONT)
        code, said = await frozen.outcome()
        after = control.dump(namespace)

    assert done < FACTS
    assert (report["resumed"], report["facts"], report["generation"]) == (True, FACTS, 2)
    assert (code, said["error"]["retryable"]) == (3, True)
    assert "another process" in said["error"]["message"]
    assert after == before
    assert leftovers(client, namespace) == []


async def test_lease_of_a_killed_rebuild_keeps_others_away_until_it_ends(
    settings: Settings, client: redis.Redis, namespace: str
) -> None:
    from knowledge_base import KnowledgeBase

    async with KnowledgeBase(settings.model_copy(update={"timeouts": SHORT})) as kb:
        await populate(kb, FACTS)
        process = Reindex(settings)
        await process.until(client, namespace, 200)
        process.kill()

        code, said = await Reindex(settings).outcome()
        assert (code, said["error"]["retryable"]) == (3, True)
        assert "facts done" in said["error"]["message"]

        async def is_taken_over() -> Any:
            code, said = await Reindex(settings).outcome()
            return said if code == 0 else None

        report = await eventually(is_taken_over, 60.0)

    assert (report["resumed"], report["facts"]) == (True, FACTS)
    assert leftovers(client, namespace) == []
