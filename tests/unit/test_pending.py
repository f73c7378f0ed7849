"""The record of what waits for vectors: leases, renewals, pauses that grow, and what is given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import fakeredis
import pytest

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.index.pending import PendingFacts
from knowledge_base.settings import IndexingSettings
from tests.support.fact_store import GENERATION, KEYS, LEASE_MS, NAMESPACE, Store
from tests.support.polling import eventually

REASON = "the embedding model failed (ValueError)"
NEVER = 2.0**53


@pytest.fixture
def store(fake_manager: AsyncRedisManager, fake_server: fakeredis.FakeServer) -> Store:
    return Store(fake_manager, fake_server)


@pytest.fixture
def new_pending(fake_manager: AsyncRedisManager, store: Store) -> Callable[..., PendingFacts]:
    """Makes records, as of several processes, on the store's clock."""

    def make(**settings: Any) -> PendingFacts:
        chosen = IndexingSettings(**{"lease": LEASE_MS / 1000, **settings})
        return PendingFacts(fake_manager, chosen, now=lambda: store.now)

    return make


@pytest.fixture
def pending(new_pending: Callable[..., PendingFacts]) -> PendingFacts:
    return new_pending()


async def put_pending(store: Store, *fact_ids: str) -> None:
    """Stores facts that are due already."""
    for fact_id in fact_ids:
        await store.put(f"content of {fact_id}", fact_id)
        store.redis.zadd(KEYS.pending, {fact_id: 1})


def due_in(store: Store, fact_id: str) -> float:
    return float(store.redis.zscore(KEYS.pending, fact_id)) - store.now


async def give_up(pending: PendingFacts, fact_id: str, attempts: int) -> list[bool]:
    return [await pending.refused(NAMESPACE, fact_id, REASON) for _ in range(attempts)]


async def test_new_fact_is_left_to_its_writer_for_the_lease(store: Store, pending: PendingFacts) -> None:
    await store.put("penguins swim", "f")

    store.now += LEASE_MS - 1
    before = await pending.claim(NAMESPACE, 10)
    store.now += 1

    assert before == []
    assert await pending.claim(NAMESPACE, 10) == ["f"]


async def test_two_processes_never_take_the_same(store: Store, new_pending: Callable[..., PendingFacts]) -> None:
    await put_pending(store, *(f"f{number}" for number in range(30)))
    processes = [new_pending() for _ in range(3)]

    taken = await asyncio.gather(*(one.claim(NAMESPACE, 4) for one in processes * 3))

    ids = [fact_id for some in taken for fact_id in some]
    assert len(ids) == len(set(ids)) == 30
    assert max(map(len, taken)) == 4


async def test_lease_that_ended_is_anybodys(store: Store, new_pending: Callable[..., PendingFacts]) -> None:
    await put_pending(store, "f")
    first, second = new_pending(), new_pending()
    await first.claim(NAMESPACE, 1)

    store.now += LEASE_MS - 1
    held = await second.claim(NAMESPACE, 1)
    store.now += 1

    assert (held, await second.claim(NAMESPACE, 1)) == ([], ["f"])


async def test_oldest_is_taken_first(store: Store, pending: PendingFacts) -> None:
    store.redis.zadd(KEYS.pending, {"young": 30, "old": 10, "middle": 20, "not due": store.now + 1})

    assert await pending.claim(NAMESPACE, 2) == ["old", "middle"]
    assert await pending.claim(NAMESPACE, 9) == ["young"]


async def test_lease_is_renewed_while_the_work_takes_longer(
    store: Store, new_pending: Callable[..., PendingFacts]
) -> None:
    await put_pending(store, "f")
    first, second = new_pending(lease=0.06), new_pending(lease=0.06)
    await first.claim(NAMESPACE, 1)

    with first.held(NAMESPACE, ["f"]):
        for _ in range(3):
            store.now += 59
            taken = await second.claim(NAMESPACE, 1)
            await eventually(lambda: due_in(store, "f") == 60)
            assert taken == []
    store.now += 60

    assert await second.claim(NAMESPACE, 1) == ["f"]


async def test_renewal_ends_with_the_work(store: Store, new_pending: Callable[..., PendingFacts]) -> None:
    await put_pending(store, "f")
    pending = new_pending(lease=0.03)

    async def work() -> None:
        with pending.held(NAMESPACE, ["f"]):
            store.now += 1
            await eventually(lambda: due_in(store, "f") == 30)
            raise ValueError("the work failed")

    with pytest.raises(ValueError, match="the work failed"):
        await work()
    await eventually(lambda: not [task for task in asyncio.all_tasks() if task.get_name() == "kb-lease"])
    store.now += 1_000
    await asyncio.sleep(0.05)

    assert due_in(store, "f") < 0


async def test_short_work_renews_nothing(store: Store, pending: PendingFacts) -> None:
    await put_pending(store, "f")

    with pending.held(NAMESPACE, ["f"]):
        names = {task.get_name() for task in asyncio.all_tasks()}

    assert "kb-lease" not in names
    assert store.redis.zscore(KEYS.pending, "f") == 1


async def test_renewal_survives_a_redis_that_is_away(
    store: Store, new_pending: Callable[..., PendingFacts], fake_server: fakeredis.FakeServer
) -> None:
    await put_pending(store, "f")
    pending = new_pending(lease=0.03)

    with pending.held(NAMESPACE, ["f"]):
        fake_server.connected = False
        await asyncio.sleep(0.03)
        fake_server.connected = True
        store.now += 7
        await eventually(lambda: due_in(store, "f") == 30)


@pytest.mark.parametrize("way", ["held", "release"])
async def test_what_is_indexed_meanwhile_is_not_put_back(
    store: Store, new_pending: Callable[..., PendingFacts], way: str
) -> None:
    await put_pending(store, "done", "waits")
    pending = new_pending(lease=0.03)
    store.redis.zrem(KEYS.pending, "done")

    if way == "release":
        await pending.release(NAMESPACE, ["done", "waits"])
    else:
        with pending.held(NAMESPACE, ["done", "waits"]):
            await eventually(lambda: store.redis.zscore(KEYS.pending, "waits") > 1)

    assert store.redis.zrange(KEYS.pending, 0, -1) == ["waits"]


async def test_released_fact_is_anybodys_at_once(store: Store, new_pending: Callable[..., PendingFacts]) -> None:
    await put_pending(store, "f")
    first, second = new_pending(), new_pending()
    await first.claim(NAMESPACE, 1)

    await first.release(NAMESPACE, ["f"])

    assert await second.claim(NAMESPACE, 1) == ["f"]


async def test_refused_fact_waits_longer_each_time(store: Store, new_pending: Callable[..., PendingFacts]) -> None:
    pending = new_pending(retry_after=1.0, longest_pause=20.0, attempts=100)
    await put_pending(store, "f")

    pauses = []
    for _ in range(8):
        await pending.refused(NAMESPACE, "f", REASON)
        pauses.append(due_in(store, "f"))

    for attempt, pause in enumerate(pauses):
        most = min(20_000.0, 1_000.0 * 2**attempt)
        assert most / 2 - 1 <= pause <= most


async def test_pauses_of_facts_that_failed_together_differ(
    store: Store, new_pending: Callable[..., PendingFacts]
) -> None:
    pending = new_pending(retry_after=10.0, longest_pause=300.0)
    ids = [f"f{number}" for number in range(20)]
    await put_pending(store, *ids)

    for fact_id in ids:
        await pending.refused(NAMESPACE, fact_id, REASON)

    assert len({due_in(store, fact_id) for fact_id in ids}) > 10


async def test_fact_is_parked_with_its_reason_after_so_many_attempts(
    store: Store, new_pending: Callable[..., PendingFacts]
) -> None:
    pending = new_pending(attempts=3)
    await put_pending(store, "f")

    said = await give_up(pending, "f", 3)

    assert said == [False, False, True]
    (parked,) = await pending.parked(NAMESPACE)
    assert (parked["id"], parked["reason"], parked["attempts"]) == ("f", REASON, 3)
    assert datetime.fromisoformat(parked["since"]).timestamp() * 1000 == pytest.approx(store.now, abs=1)
    store.now += int(NEVER / 2**20)
    assert await pending.claim(NAMESPACE, 10) == []
    assert store.redis.hlen(KEYS.attempts) == 0


async def test_reason_is_kept_as_it_is(store: Store, new_pending: Callable[..., PendingFacts]) -> None:
    reason = 'a "reason", with {braces}, \\ and ümlauts\n'
    await put_pending(store, "f")
    pending = new_pending(attempts=1)

    await pending.refused(NAMESPACE, "f", reason)

    assert (await pending.parked(NAMESPACE))[0]["reason"] == reason


async def test_parked_facts_are_listed_by_the_time_they_were_given_up(
    store: Store, new_pending: Callable[..., PendingFacts]
) -> None:
    pending = new_pending(attempts=1)
    await put_pending(store, "a", "b", "c")

    for fact_id in ("c", "a", "b"):
        store.now += 1_000
        await give_up(pending, fact_id, 1)

    assert [fact["id"] for fact in await pending.parked(NAMESPACE)] == ["c", "a", "b"]


async def test_refusal_of_what_waits_no_longer_counts_nothing(
    store: Store, new_pending: Callable[..., PendingFacts]
) -> None:
    pending = new_pending(attempts=1)

    assert await give_up(pending, "gone", 2) == [False, False]

    assert await pending.parked(NAMESPACE) == []
    assert store.redis.exists(KEYS.pending, KEYS.attempts) == 0


async def test_parked_facts_are_put_back_and_start_anew(store: Store, new_pending: Callable[..., PendingFacts]) -> None:
    pending = new_pending(attempts=2)
    await put_pending(store, "a", "b")
    for fact_id in ("a", "b"):
        await give_up(pending, fact_id, 2)

    assert await pending.unpark(NAMESPACE) == 2

    assert await pending.parked(NAMESPACE) == []
    assert sorted(await pending.claim(NAMESPACE, 10)) == ["a", "b"]
    assert await give_up(pending, "a", 2) == [False, True]
    assert await pending.unpark(NAMESPACE) == 1
    assert await pending.unpark(NAMESPACE) == 0


@pytest.mark.parametrize("attempts", [1, 2], ids=["tried", "parked"])
@pytest.mark.parametrize("change", ["delete", "update", "expire"])
async def test_changed_fact_starts_anew(
    store: Store, new_pending: Callable[..., PendingFacts], change: str, attempts: int
) -> None:
    pending = new_pending(attempts=2)
    await store.put("penguins swim", "f", expires_in=1000.0 if change == "expire" else None)
    await give_up(pending, "f", attempts)

    if change == "delete":
        await store.repository.delete(GENERATION, "f", [], None)
    elif change == "update":
        await store.change(await store.get("f"), content="puffins fly")
    else:
        store.now += 1_000_001
        await store.repository.sweep(GENERATION)

    assert await pending.parked(NAMESPACE) == []
    assert store.redis.hlen(KEYS.attempts) == 0
    assert store.redis.zrange(KEYS.pending, 0, -1) == (["f"] if change == "update" else [])


async def test_fact_whose_labels_change_stays_parked(store: Store, new_pending: Callable[..., PendingFacts]) -> None:
    pending = new_pending(attempts=1)
    await put_pending(store, "f")
    await give_up(pending, "f", 1)

    await store.change(await store.get("f"), tags=["t"])

    assert [fact["id"] for fact in await pending.parked(NAMESPACE)] == ["f"]
    assert store.redis.zcard(KEYS.pending) == 0


async def test_due_names_what_there_is_to_do(store: Store, pending: PendingFacts) -> None:
    await put_pending(store, "f")
    store.redis.delete(KEYS.inserts)
    store.redis.zadd("kb:{late}:pending", {"f": store.now + 1})
    store.redis.zadd("kb:{expired}:expiring", {"f": store.now})
    store.redis.zadd("kb:{inserts}:inserts", {"f:1-x-1": store.now})

    found = await pending.due([NAMESPACE, "late", "expired", "inserts", "nothing"])

    assert [(work.namespace, work.indexing, work.expiry, work.inserts) for work in found] == [
        (NAMESPACE, True, False, False),
        ("expired", False, True, False),
        ("inserts", False, False, True),
    ]


async def test_due_looks_everywhere_however_many_there_are(store: Store, pending: PendingFacts) -> None:
    names = [f"n{number}" for number in range(300)]
    for name in names:
        store.redis.zadd(f"kb:{{{name}}}:pending", {"f": 1})

    assert [work.namespace for work in await pending.due(names)] == names


async def test_time_is_that_of_the_machine_unless_a_test_brings_its_own(
    fake_manager: AsyncRedisManager, store: Store
) -> None:
    pending: Any = PendingFacts(fake_manager, IndexingSettings())
    store.redis.zadd(KEYS.pending, {"f": 1})

    await pending.claim(NAMESPACE, 1)

    until = store.redis.zscore(KEYS.pending, "f") / 1000 - time.time()
    assert 20 < until <= 30
