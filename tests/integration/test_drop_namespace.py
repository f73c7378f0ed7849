"""Namespaces: listed, and dropped without touching their neighbours or leaving a half."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import InvalidInputError, KnowledgeBaseError
from knowledge_base.keyspace import NAMESPACES_KEY, SWITCHED_OFF, Keyspace
from tests.conftest import OpenKnowledgeBase
from tests.support.bookkeeping import settles
from tests.support.control import Control
from tests.support.embedded import client_of
from tests.support.facts import found
from tests.support.polling import eventually
from tests.support.server import RedisServer

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

TRICKY = ["{0}", "{0}.b", "{0}:b", "{0}-b", "{0}b", "{0}:index", "{0}:passage:1"]
"""Names of which some begin like others, or like keys."""


def names(namespace: str) -> list[str]:
    return [name.format(namespace) for name in TRICKY]


@pytest.fixture
async def neighbours(stub_kb: KnowledgeBase, namespace: str) -> KnowledgeBase:
    """A base whose namespaces have names that are easily mistaken for each other."""
    for name in names(namespace):
        await stub_kb.store_fact("penguins swim", fact_id="p", tags=["t"], source="s", namespace=name)
        await stub_kb.store_fact("puffins fly", fact_id="q", principals=["user:ann"], namespace=name)
        await stub_kb.update_fact("p", metadata={"n": 1}, namespace=name)
        await stub_kb.search("penguins", namespace=name)
    return stub_kb


async def listed(kb: KnowledgeBase) -> dict[str, Any]:
    return {one["namespace"]: one for one in await kb.list_namespaces()}


async def test_namespaces_are_listed_with_their_counts(neighbours: KnowledgeBase, namespace: str) -> None:
    seen = await listed(neighbours)

    assert set(names(namespace)) <= set(seen)
    one = seen[namespace]
    assert (one["facts"], one["documents"], one["passages"], one["state"]) == (2, 0, 2, "live")
    assert (one["embedding_model"], one["dimension"]) == ("StubEmbedding:stub", 32)
    assert list(seen) == sorted(seen)


@pytest.mark.parametrize("dropped", range(len(TRICKY)))
async def test_dropping_takes_everything_and_nothing_of_the_neighbours(
    neighbours: KnowledgeBase, control: Control, namespace: str, dropped: int
) -> None:
    others = names(namespace)
    gone = others.pop(dropped)
    before = {name: (control.dump(name), control.indexes(name)) for name in others}

    report = await neighbours.drop_namespace(gone, confirm=gone)

    assert (report["namespace"], report["facts"]) == (gone, 2)
    assert control.keys(gone) == set()
    assert control.indexes(gone) == set()
    assert control.run("SISMEMBER", NAMESPACES_KEY, gone) == 0
    assert gone not in await listed(neighbours)
    assert {name: (control.dump(name), control.indexes(name)) for name in others} == before
    assert all(len(indexes) == 2 for _, indexes in before.values())
    assert await found(neighbours, "penguins", namespace=gone) == []


async def test_dropped_namespace_can_be_begun_anew(neighbours: KnowledgeBase, namespace: str, redis_url: str) -> None:
    await neighbours.drop_namespace(namespace, confirm=namespace)

    stored = await neighbours.store_fact("penguins swim", fact_id="p")

    assert (stored["status"], stored["version"]) == ("success", 1)
    assert await found(neighbours, "penguins") == ["p"]
    assert (await listed(neighbours))[namespace]["facts"] == 1
    with client_of(redis_url) as client:
        assert await settles(client, namespace, 10.0) == []


@pytest.mark.parametrize("confirm", ["", "other", None, True])
async def test_dropping_must_be_confirmed(neighbours: KnowledgeBase, namespace: str, confirm: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await neighbours.drop_namespace(namespace, confirm=confirm)

    assert refused.value.field == "confirm"
    assert (await listed(neighbours))[namespace]["facts"] == 2


@pytest.mark.parametrize("name", ["never-written-to", "*", "{x}", "", "a b", "[a-z]*", "a\n", None])
async def test_what_is_no_namespace_cannot_be_dropped(neighbours: KnowledgeBase, control: Control, name: Any) -> None:
    before = control.run("DBSIZE")

    with pytest.raises(InvalidInputError) as refused:
        await neighbours.drop_namespace(name, confirm=name)

    assert refused.value.field == "namespace"
    assert control.run("DBSIZE") == before


async def test_readers_and_writers_are_refused_while_it_goes(neighbours: KnowledgeBase, control: Control) -> None:
    namespace = neighbours.settings.namespace
    dropping = asyncio.create_task(neighbours.drop_namespace(namespace, confirm=namespace))
    generation = Keyspace(namespace).generation
    await eventually(lambda: control.run("HGET", generation, "number") == SWITCHED_OFF.encode())

    with pytest.raises(KnowledgeBaseError):
        await neighbours.store_fact("too late")
    with pytest.raises(KnowledgeBaseError):
        await neighbours.delete_fact("p")
    state = (await listed(neighbours))[namespace]["state"]
    await dropping

    assert state == "off"
    assert control.keys(namespace) == set()


async def test_drop_that_was_broken_off_is_finished_by_the_next(
    neighbours: KnowledgeBase, control: Control, namespace: str
) -> None:
    dropping = asyncio.create_task(neighbours.drop_namespace(namespace, confirm=namespace))
    await eventually(lambda: control.run("HGET", Keyspace(namespace).generation, "number") == SWITCHED_OFF.encode())
    dropping.cancel()
    await asyncio.gather(dropping, return_exceptions=True)
    left = (await listed(neighbours))[namespace]["state"]

    await neighbours.drop_namespace(namespace, confirm=namespace)

    assert left == "off"
    assert control.keys(namespace) == set()
    assert control.indexes(namespace) == set()


async def test_large_namespace_goes_in_small_steps(
    new_server: Callable[..., RedisServer], open_kb: OpenKnowledgeBase
) -> None:
    server = new_server().start()
    kb = open_kb(redis_url=server.url)
    await kb.store_facts({"content": f"penguin number {number}"} for number in range(3_000))
    control = Control(server.url)
    try:
        control.run("CONFIG", "SET", "slowlog-log-slower-than", "10000")
        control.run("SLOWLOG", "RESET")
        progress: list[int] = []

        report = await kb.drop_namespace(
            kb.settings.namespace, confirm=kb.settings.namespace, progress=lambda done, _: progress.append(done)
        )

        slow = [entry for entry in control.run("SLOWLOG", "GET", "10") if b"UNLINK" in str(entry).encode()]
        assert control.keys(kb.settings.namespace) == set()
    finally:
        control.close()
    assert report["keys"] > 3 * 3_000
    assert len(progress) > 5
    assert slow == []


def writing_process(url: str, namespace: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.writing_process", url, namespace],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def test_no_half_namespace_is_left_when_another_process_writes_meanwhile(
    stub_kb: KnowledgeBase, control: Control, redis_url: str
) -> None:
    namespace = stub_kb.settings.namespace
    await stub_kb.store_fact("an old fact that must go", fact_id="old")
    writer = writing_process(redis_url, namespace)
    try:
        assert writer.stdout is not None
        await asyncio.to_thread(writer.stdout.readline)

        for _ in range(3):
            await stub_kb.drop_namespace(namespace, confirm=namespace)
            await asyncio.sleep(0.3)
        told, _ = await asyncio.to_thread(writer.communicate, "stop\n")
    finally:
        writer.kill()
        writer.wait()

    stored = [line.split()[1] for line in told.splitlines() if line.startswith("stored")]
    refused = [line for line in told.splitlines() if line.startswith("refused")]
    unexpected = [line for line in told.splitlines() if line.startswith("unexpected")]
    last = stored[-1]
    assert len(stored) > 20
    assert refused
    assert unexpected == []
    # What was acknowledged after the last drop is there, and found; what was there before is not.
    assert (await stub_kb.get_fact("old")) == []
    assert [fact["id"] for fact in await stub_kb.get_fact(last)] == [last]
    assert await found(stub_kb, last, mode="text") == [last]
    assert control.run("SISMEMBER", NAMESPACES_KEY, namespace) == 1
    assert len(control.indexes(namespace)) == 2
    with client_of(redis_url) as client:
        assert await settles(client, namespace, 30.0) == []
