"""Jobs are told from calls that somebody waits for, and use connections and threads of their own."""

from __future__ import annotations

import asyncio
import threading

import pytest
import redis

from knowledge_base.connection.manager import POOLS, AsyncRedisManager
from knowledge_base.connection.workload import in_job, job
from tests.support.polling import eventually


def thread_name(_: redis.Redis) -> str:
    return threading.current_thread().name


def test_nothing_is_a_job_unless_it_says_so() -> None:
    assert in_job() is False


def test_job_ends_with_its_block() -> None:
    with job():
        inside = in_job()

    assert (inside, in_job()) == (True, False)


def test_job_ends_with_an_error_as_well() -> None:
    with pytest.raises(ValueError, match="bad"), job():
        raise ValueError("bad")

    assert in_job() is False


def test_job_within_a_job_ends_alone() -> None:
    with job():
        with job():
            pass
        between = in_job()

    assert between is True


async def test_tasks_of_a_job_belong_to_it() -> None:
    async def ask() -> bool:
        await asyncio.sleep(0)
        return in_job()

    with job():
        inside = asyncio.create_task(ask())
    outside = asyncio.create_task(ask())

    assert (await inside, await outside) == (True, False)


async def test_calls_beside_a_job_are_none() -> None:
    begun, seen = asyncio.Event(), asyncio.Event()

    async def work() -> bool:
        with job():
            begun.set()
            await seen.wait()
            return in_job()

    working = asyncio.create_task(work())
    await begun.wait()
    beside = in_job()
    seen.set()

    assert (beside, await working) == (False, True)


async def test_job_gets_the_connections_for_jobs_whatever_it_asks_for(fake_manager: AsyncRedisManager) -> None:
    admin = await fake_manager.admin()

    with job():
        within = [await fake_manager.client(name) for name in POOLS]
    after = await fake_manager.main()

    assert all(client is admin for client in within)
    assert after is not admin


async def test_job_gets_threads_of_its_own(fake_manager: AsyncRedisManager) -> None:
    outside = await fake_manager.in_thread("step", thread_name)
    with job():
        inside = await fake_manager.in_thread("step", thread_name)

    assert (outside, inside) == ("kb-index", "kb-jobs")


async def test_jobs_that_take_every_thread_of_theirs_leave_the_others_free(fake_manager: AsyncRedisManager) -> None:
    await fake_manager.start()
    released = threading.Event()
    limit = fake_manager.settings.limits.index_threads

    def wait(_: redis.Redis) -> bool:
        return released.wait(20.0)

    with job():
        jobs = [asyncio.create_task(fake_manager.in_thread("step", wait)) for _ in range(limit + 1)]
    try:
        await eventually(lambda: fake_manager.stats()["jobs threads"]["waiting"])
        beside = await fake_manager.in_thread("step", thread_name)
        taken = fake_manager.stats()["jobs threads"]
    finally:
        released.set()

    assert beside == "kb-index"
    assert (taken["in_use"], taken["waiting"]) == (limit, 1)
    assert all(await asyncio.gather(*jobs))


async def test_thread_that_works_for_a_job_knows(fake_manager: AsyncRedisManager) -> None:
    with job():
        inside = await fake_manager.in_thread("step", lambda _: in_job())
    outside = await fake_manager.in_thread("step", lambda _: in_job())

    assert (inside, outside) == (True, False)
