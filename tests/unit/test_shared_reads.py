"""Reads at the same time come in one round trip; each caller gets its own, and gives up alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import fakeredis
import pytest

from knowledge_base.connection import shared_reads
from knowledge_base.connection.deadline import deadline
from knowledge_base.connection.hashes import READ_AT_ONCE, HashGroup, Row, read_hash_groups
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.shared_reads import AT_ONCE, SharedReads
from knowledge_base.connection.workload import job
from knowledge_base.errors import CircuitOpenError, OperationTimeoutError, UnavailableError
from knowledge_base.settings import Timeouts

FAILURES = 5
"""After so many in a row the circuit opens."""


class Trips:
    """Every round trip: the keys that it asked for; held up, or failing, when told to be."""

    def __init__(self, read: Any) -> None:
        self.keys: list[list[str]] = []
        self.clients: list[Any] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.error: Exception | None = None
        self._read = read

    async def __call__(self, client: Any, groups: Sequence[HashGroup]) -> list[list[Row]]:
        self.keys.append([key for group in groups for key in group.keys])
        self.clients.append(client)
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        found: list[list[Row]] = await self._read(client, groups)
        return found


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> Trips:
    trips = Trips(read_hash_groups)
    monkeypatch.setattr(shared_reads, "read_hash_groups", trips)
    return trips


@pytest.fixture
async def reads(fake_manager: AsyncRedisManager, trips: Trips) -> SharedReads:
    await fake_manager.start()
    return SharedReads(fake_manager, "main")


@pytest.fixture
def stored(fake_server: fakeredis.FakeServer) -> None:
    client = fakeredis.FakeRedis(server=fake_server)
    for number in range(2 * READ_AT_ONCE):
        client.hset(key(number), mapping={"a": f"a{number}", "b": f"b{number}"})
        client.hset(key(number, "other"), mapping={"a": f"other{number}"})


def key(number: int, namespace: str = "acme") -> str:
    return f"kb:{{{namespace}}}:fact:{number}"


def one(number: int, *fields: str, namespace: str = "acme") -> list[HashGroup]:
    return [HashGroup([key(number, namespace)], fields or ("a",))]


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.usefixtures("stored")
async def test_single_read_gives_what_is_stored(reads: SharedReads) -> None:
    groups = [HashGroup([key(1), key(3)], ["a", "b"]), HashGroup([key(2), "kb:{acme}:nothing"], ["b"])]

    rows = await reads.rows(groups)

    assert [[list(row) for row in group] for group in rows] == [[["a1", "b1"], ["a3", "b3"]], [["b2"], [None]]]


@pytest.mark.usefixtures("stored")
async def test_reads_of_one_turn_share_a_round_trip_and_each_gets_its_own(reads: SharedReads, trips: Trips) -> None:
    asked = [one(number, *("a", "b")[: 1 + number % 2]) for number in range(50)]

    answers = await asyncio.gather(*map(reads.rows, asked))

    values = [[f"a{number}", f"b{number}"][: 1 + number % 2] for number in range(50)]
    assert [list(rows[0][0]) for rows in answers] == values
    assert len(trips.keys) == 1


@pytest.mark.usefixtures("stored")
async def test_what_comes_while_trips_are_under_way_waits_for_the_next_and_travels_together(
    reads: SharedReads, trips: Trips
) -> None:
    trips.go_on.clear()
    tasks = []
    for number in range(AT_ONCE + 7):
        tasks.append(asyncio.create_task(reads.rows(one(number))))
        await settled()
    assert len(trips.keys) == AT_ONCE

    trips.go_on.set()
    answers = await asyncio.gather(*tasks)

    assert [rows[0][0][0] for rows in answers] == [f"a{number}" for number in range(AT_ONCE + 7)]
    assert [len(keys) for keys in trips.keys] == [1] * AT_ONCE + [7]


@pytest.mark.usefixtures("stored")
async def test_read_after_a_write_does_not_join_a_trip_that_began_before(
    reads: SharedReads, trips: Trips, fake_server: fakeredis.FakeServer
) -> None:
    trips.go_on.clear()
    before = asyncio.create_task(reads.rows(one(1)))
    await settled()
    fakeredis.FakeRedis(server=fake_server).hset(key(1), "a", "new")

    after = asyncio.create_task(reads.rows(one(1)))
    await settled()

    assert trips.keys == [[key(1)], [key(1)]]
    trips.go_on.set()
    await before
    assert (await after)[0][0][0] == "new"


@pytest.mark.usefixtures("stored")
async def test_trip_carries_no_more_than_so_many_hashes(reads: SharedReads, trips: Trips) -> None:
    answers = await asyncio.gather(*(reads.rows(one(number)) for number in range(READ_AT_ONCE + 30)))

    assert [rows[0][0][0] for rows in answers] == [f"a{number}" for number in range(READ_AT_ONCE + 30)]
    assert [len(keys) for keys in trips.keys] == [READ_AT_ONCE, 30]


@pytest.mark.usefixtures("stored")
async def test_namespaces_travel_apart_since_they_may_be_on_different_servers(reads: SharedReads, trips: Trips) -> None:
    asked = [one(number, namespace=name) for number in range(3) for name in ("acme", "other")]

    answers = await asyncio.gather(*map(reads.rows, asked))

    assert [rows[0][0][0] for rows in answers] == ["a0", "other0", "a1", "other1", "a2", "other2"]
    assert [{name.partition("}")[0] for name in keys} for keys in trips.keys] == [{"kb:{acme"}, {"kb:{other"}]


@pytest.mark.usefixtures("stored")
async def test_job_reads_alone_over_its_own_pool(
    reads: SharedReads, trips: Trips, fake_manager: AsyncRedisManager
) -> None:
    with job():
        rows = await reads.rows(one(1))
        jobs_client = await fake_manager.admin()

    assert list(rows[0][0]) == ["a1"]
    assert trips.clients == [jobs_client]


@pytest.mark.usefixtures("stored")
async def test_caller_that_gives_up_leaves_the_others_what_they_asked_for(reads: SharedReads, trips: Trips) -> None:
    trips.go_on.clear()
    tasks = [asyncio.create_task(reads.rows(one(number))) for number in range(3)]
    await settled()

    tasks[1].cancel()
    await settled()
    trips.go_on.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(answers[1], asyncio.CancelledError)
    assert [answers[0][0][0][0], answers[2][0][0][0]] == ["a0", "a2"]  # type: ignore[index]


async def test_trip_that_nobody_waits_for_is_ended_and_makes_room(reads: SharedReads, trips: Trips) -> None:
    trips.go_on.clear()
    for number in range(AT_ONCE):
        asked = [asyncio.create_task(reads.rows(one(number))) for _ in range(2)]
        await settled()
        for task in asked:
            task.cancel()
        await settled()

    waiting = asyncio.create_task(reads.rows(one(9)))
    await settled()

    assert trips.keys[-1] == [key(9)]
    trips.go_on.set()
    await waiting


async def test_failure_is_everybodys_and_counts_for_each(
    reads: SharedReads, trips: Trips, fake_manager: AsyncRedisManager
) -> None:
    trips.error = UnavailableError("gone")

    answers = await asyncio.gather(*(reads.rows(one(number)) for number in range(FAILURES + 1)), return_exceptions=True)

    assert all(isinstance(answer, UnavailableError) for answer in answers)
    assert fake_manager.breaker.state == "open"
    with pytest.raises(CircuitOpenError):
        await reads.rows(one(1))


async def test_callers_whose_deadline_ends_the_wait_count_as_failures(
    reads: SharedReads, trips: Trips, fake_manager: AsyncRedisManager
) -> None:
    trips.go_on.clear()

    async def call(number: int) -> None:
        async with deadline("get_fact", 0.02):
            await reads.rows(one(number))

    answers = await asyncio.gather(*(call(number) for number in range(FAILURES)), return_exceptions=True)

    assert [type(answer) for answer in answers] == [OperationTimeoutError] * FAILURES
    assert "get_fact" in str(answers[0])
    assert fake_manager.breaker.state == "open"


async def test_cancelled_callers_do_not_count(
    reads: SharedReads, trips: Trips, fake_manager: AsyncRedisManager
) -> None:
    trips.go_on.clear()
    tasks = [asyncio.create_task(reads.rows(one(number))) for number in range(2 * FAILURES)]
    await settled()

    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await settled()

    assert fake_manager.breaker.state == "closed"
    trips.go_on.set()
    assert await reads.rows(one(1)) == [[[None]]]


async def test_data_error_is_raised_to_all_and_says_nothing_about_redis(
    reads: SharedReads, trips: Trips, fake_manager: AsyncRedisManager
) -> None:
    trips.error = ValueError("not the server's fault")

    answers = await asyncio.gather(*(reads.rows(one(number)) for number in range(2 * FAILURES)), return_exceptions=True)

    assert {type(answer) for answer in answers} == {ValueError}
    assert fake_manager.breaker.state == "closed"


async def test_late_comers_do_not_pay_for_those_who_waited(
    reads: SharedReads, trips: Trips, fake_manager: AsyncRedisManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = fake_manager.settings.model_copy(update={"timeouts": Timeouts(redis=0.3)})
    monkeypatch.setattr(fake_manager, "settings", short)
    trips.go_on.clear()
    early = [asyncio.create_task(reads.rows(one(number))) for number in range(3)]
    for _ in range(AT_ONCE):
        await settled()
    await asyncio.sleep(0.25)
    late = [asyncio.create_task(reads.rows(one(number))) for number in range(10, 20)]
    await asyncio.sleep(0.1)
    trips.go_on.set()

    given = await asyncio.gather(*early, return_exceptions=True)

    assert all(isinstance(error, OperationTimeoutError) for error in given)
    assert all(len(rows) == 1 for rows in await asyncio.gather(*late))
    assert fake_manager.breaker.state == "closed"
