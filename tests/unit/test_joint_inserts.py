"""Vectors of facts that are stored at the same time are written together; what fails is each one's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest

from knowledge_base.connection.deadline import deadline
from knowledge_base.connection.workload import in_job, job
from knowledge_base.errors import OperationTimeoutError, UnavailableError
from knowledge_base.index.joint_inserts import FACTS_TOGETHER, FEW, JointInserts
from knowledge_base.index.schema import Generation
from knowledge_base.index.vector_index import EmbeddedPassage, VectorIndex
from knowledge_base.keyspace import PartName

AT_ONCE = 2
ACME, OTHER = Generation("acme", 1, "stub", 2), Generation("other", 1, "stub", 2)


class Written:
    """Stands for the index: every insert, held up or failing when told to be."""

    def __init__(self) -> None:
        self.inserts: list[tuple[str, list[str], bool]] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.fails_for: Generation | None = None
        self.hangs_for: Generation | None = None
        self.at_once = 0
        self.most_at_once = 0

    async def insert(self, generation: Generation, passages: Sequence[EmbeddedPassage]) -> None:
        self.inserts.append((generation.namespace, [one.name.fact_id for one in passages], in_job()))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.go_on.wait()
            if generation == self.hangs_for:
                await asyncio.Event().wait()
        finally:
            self.at_once -= 1
        if generation == self.fails_for:
            raise UnavailableError("gone")


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
async def joint(written: Written) -> AsyncIterator[JointInserts]:
    inserts = JointInserts(cast("VectorIndex", written), at_once=AT_ONCE, timeout=5.0)
    yield inserts
    await inserts.close()


def passages(fact: str, number: int = 1) -> list[EmbeddedPassage]:
    return [EmbeddedPassage(PartName(fact, "1-a-1", at), "text", [1.0, 0.0]) for at in range(number)]


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_inserts_of_one_turn_are_written_together(joint: JointInserts, written: Written) -> None:
    await asyncio.gather(*(joint.insert(ACME, passages(f"f{number}")) for number in range(5)))

    assert written.inserts == [("acme", ["f0", "f1", "f2", "f3", "f4"], False)]


async def test_what_comes_meanwhile_is_written_together_afterwards(joint: JointInserts, written: Written) -> None:
    written.go_on.clear()
    tasks = []
    for number in range(AT_ONCE + FACTS_TOGETHER + 1):
        tasks.append(asyncio.create_task(joint.insert(ACME, passages(f"f{number}"))))
        await settled()

    written.go_on.set()
    await asyncio.gather(*tasks)

    assert [len(facts) for _, facts, _ in written.inserts] == [1] * AT_ONCE + [FACTS_TOGETHER, 1]
    assert written.most_at_once == AT_ONCE


async def test_namespaces_fail_apart(joint: JointInserts, written: Written) -> None:
    written.fails_for = OTHER

    outcomes = await asyncio.gather(
        *(joint.insert(generation, passages("f")) for generation in (ACME, OTHER, ACME)), return_exceptions=True
    )

    assert [type(outcome) for outcome in outcomes] == [type(None), UnavailableError, type(None)]


async def test_namespaces_of_one_turn_do_not_wait_for_each_other(joint: JointInserts, written: Written) -> None:
    written.hangs_for = OTHER
    stuck = [asyncio.create_task(joint.insert(OTHER, passages(f"s{number}"))) for number in range(2)]

    async with asyncio.timeout(1.0):
        await asyncio.gather(*(joint.insert(ACME, passages(f"f{number}")) for number in range(3)))

    assert written.inserts == [("other", ["s0", "s1"], False), ("acme", ["f0", "f1", "f2"], False)]
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)


async def test_long_facts_and_jobs_are_written_alone(joint: JointInserts, written: Written) -> None:
    async def as_job() -> None:
        with job():
            await joint.insert(ACME, passages("j"))

    await asyncio.gather(joint.insert(ACME, passages("long", FEW + 1)), as_job(), joint.insert(ACME, passages("short")))

    assert sorted((facts[0], is_job) for _, facts, is_job in written.inserts) == [
        ("j", True),
        ("long", False),
        ("short", False),
    ]


async def test_caller_that_is_late_leaves_the_others_alone(joint: JointInserts, written: Written) -> None:
    written.go_on.clear()

    async def hurried() -> None:
        async with deadline("store_fact", 0.02):
            await joint.insert(ACME, passages("hurried"))

    patient = asyncio.create_task(joint.insert(ACME, passages("patient")))
    with pytest.raises(OperationTimeoutError):
        await hurried()
    written.go_on.set()
    await patient

    ((_, facts, _),) = written.inserts
    assert sorted(facts) == ["hurried", "patient"]
