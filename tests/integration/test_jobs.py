"""Background jobs: started, watched, cancelled and listed by whichever process asks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import (
    CircuitOpenError,
    InvalidInputError,
    KnowledgeBaseError,
    OverloadedError,
    UnavailableError,
)
from knowledge_base.keyspace import job_keys
from knowledge_base.settings import JobSettings, Limits
from tests.conftest import OpenKnowledgeBase
from tests.support.control import Control
from tests.support.polling import eventually
from tests.support.server import RedisServer

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

SECRET = "the launch code is 0000"
ENDED = {"done", "failed", "cancelled", "lost"}


class Work:
    """What a job does here: goes on when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.cleaned_up = 0
        self.going_on = asyncio.Event()
        self.progress: Any = None
        self.result: Any = {"ok": True}
        self.failure: BaseException | None = None
        self.seconds_of_cleanup = 0.0

    async def check_integrity(
        self, *, repair: bool = False, namespace: str | None = None, progress: Any = None, timeout: float | None = None
    ) -> Any:
        self.begun += 1
        self.progress = progress
        try:
            await self.going_on.wait()
        finally:
            await asyncio.sleep(self.seconds_of_cleanup)
            self.cleaned_up += 1
        if self.failure:
            raise self.failure
        return self.result


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def working(stub_kb: KnowledgeBase, work: Work) -> KnowledgeBase:
    """A base whose check goes on when it is told to."""
    stub_kb.check_integrity = work.check_integrity  # type: ignore[method-assign]
    return stub_kb


async def state_of(kb: KnowledgeBase, job_id: str, *wanted: str) -> dict[str, Any]:
    """The job as soon as it is in one of the states."""

    async def found() -> Any:
        job = await kb.get_job(job_id)
        return job if job["state"] in wanted else None

    job: dict[str, Any] = await eventually(found, 30.0)
    return job


@contextmanager
def other_process(url: str, namespace: str, lease: float = 30.0) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.job_process", url, namespace, str(lease)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def looking_at(server: RedisServer) -> Iterator[Control]:
    control = Control(server.url)
    try:
        yield control
    finally:
        control.close()


async def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return (await asyncio.to_thread(process.stdout.readline)).strip()


async def test_job_does_what_its_call_does(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("penguins swim")
    called = await stub_kb.check_integrity()

    started = await stub_kb.start_job("check", {"repair": False})
    job = await state_of(stub_kb, started["id"], *ENDED)

    assert (job["state"], job["kind"], job["namespace"]) == ("done", "check", stub_kb.settings.namespace)
    assert (job["arguments"], job["error"]) == ({"repair": False}, None)
    assert await stub_kb.job_result(job["id"]) == called
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    assert [line.split(" ", 1)[1] for line in job["log"]][:2] == ["queued", "running"]


async def test_progress_is_seen_while_it_runs(working: KnowledgeBase, work: Work) -> None:
    job = await working.start_job("check")
    await eventually(lambda: work.progress)
    work.progress(10, 100)
    await asyncio.sleep(0.1)
    work.progress(40, 100)

    async def advanced() -> Any:
        seen = await working.get_job(job["id"])
        return seen if seen["done"] == 40 else None

    seen = await eventually(advanced)
    work.going_on.set()
    ended = await state_of(working, job["id"], "done")

    assert (seen["state"], seen["total"]) == ("running", 100)
    assert seen["rate"] is not None
    assert 30 <= seen["rate"] <= 400
    assert seen["eta_s"] == pytest.approx(60 / seen["rate"], abs=0.1)
    assert (ended["done"], ended["eta_s"]) == (40, None)
    assert any(line.endswith("40 of 100") for line in ended["log"])


async def test_progress_is_not_written_each_time(working: KnowledgeBase, work: Work, control: Control) -> None:
    job = await working.start_job("check")
    await eventually(lambda: work.progress)
    before = control.calls("evalsha", "eval")

    for done in range(2_000):
        work.progress(done, 2_000)
        await asyncio.sleep(0)

    assert control.calls("evalsha", "eval") - before < 20
    work.going_on.set()
    await state_of(working, job["id"], "done")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"repairs": True}, "arguments.repairs"),
        ({"repair": "yes"}, "arguments.repair"),
        ({"repair": 1}, "arguments.repair"),
        ({"timeout": "soon"}, "arguments.timeout"),
        ({"progress": 1}, "arguments.progress"),
        ({"self": 1}, "arguments.self"),
        ({"namespace": "x"}, "arguments.namespace"),
        ({"timeout": float("nan")}, "arguments"),
        ({"repair": {1, 2}}, "arguments"),
        ({"timeout": [0] * 20_000}, "arguments"),
        ({1: 2}, "arguments"),
        ([], "arguments"),
        ("repair", "arguments"),
    ],
)
async def test_wrong_arguments_are_refused_at_once(stub_kb: KnowledgeBase, arguments: Any, field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await stub_kb.start_job("check", arguments)

    assert refused.value.field == field
    assert await stub_kb.list_jobs(namespace=stub_kb.settings.namespace) == []


@pytest.mark.parametrize("kind", ["", "store_fact", "close", "__class__", None, 7, "Check"])
async def test_unknown_kind_is_refused(stub_kb: KnowledgeBase, kind: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await stub_kb.start_job(kind)

    assert refused.value.field == "kind"


@pytest.mark.parametrize("job_id", ["", "x", "0" * 31, "0" * 32 + "\n", "Z" * 32, "*" * 32, None, 3])
async def test_what_is_no_job_is_refused(stub_kb: KnowledgeBase, job_id: Any) -> None:
    for call in (stub_kb.get_job, stub_kb.cancel_job, stub_kb.job_result):
        with pytest.raises(InvalidInputError) as refused:
            await call(job_id)
        assert refused.value.field == "job_id"


async def test_job_that_is_not_on_record_is_told_from_an_outage(stub_kb: KnowledgeBase) -> None:
    for call in (stub_kb.get_job, stub_kb.cancel_job, stub_kb.job_result):
        with pytest.raises(InvalidInputError):
            await call("0" * 32)


async def test_cancelled_job_runs_its_cleanup_once(working: KnowledgeBase, work: Work) -> None:
    work.seconds_of_cleanup = 1.2
    job = await working.start_job("check")
    await eventually(lambda: work.begun)

    asked = await working.cancel_job(job["id"])
    again = await working.cancel_job(job["id"])
    ended = await state_of(working, job["id"], *ENDED)

    assert (asked["state"], asked["cancelling"], again["cancelling"]) == ("running", True, True)
    assert (ended["state"], ended["cancelling"], work.cleaned_up) == ("cancelled", False, 1)
    with pytest.raises(KnowledgeBaseError, match="cancelled"):
        await working.job_result(job["id"])


async def test_ended_job_cannot_be_cancelled(stub_kb: KnowledgeBase) -> None:
    job = await stub_kb.start_job("check")
    done = await state_of(stub_kb, job["id"], "done")

    assert await stub_kb.cancel_job(job["id"]) == done


@pytest.mark.parametrize(
    ("failure", "kind", "retryable"),
    [
        (UnavailableError("Redis cannot be reached"), "UnavailableError", True),
        (CircuitOpenError("Redis", 1.0), "CircuitOpenError", True),
        (InvalidInputError("path", "is a folder"), "InvalidInputError", False),
        (RuntimeError(SECRET), "RuntimeError", False),
    ],
)
async def test_failure_is_recorded_without_content(
    working: KnowledgeBase, work: Work, failure: Exception, kind: str, retryable: bool
) -> None:
    work.failure = failure
    work.going_on.set()

    job = await working.start_job("check")
    ended = await state_of(working, job["id"], *ENDED)

    assert ended["state"] == "failed"
    assert (ended["error"]["type"], ended["error"]["retryable"]) == (kind, retryable)
    assert SECRET not in str(ended)
    expected = UnavailableError if retryable else KnowledgeBaseError
    with pytest.raises(expected, match=kind) as raised:
        await working.job_result(job["id"])
    assert raised.value.retryable is retryable


async def test_result_of_a_running_job_may_be_asked_for_later(working: KnowledgeBase, work: Work) -> None:
    job = await working.start_job("check")
    await eventually(lambda: work.begun)

    with pytest.raises(UnavailableError, match="running"):
        await working.job_result(job["id"])

    work.going_on.set()
    await state_of(working, job["id"], "done")
    assert await working.job_result(job["id"]) == {"ok": True}


async def test_long_result_is_cut_and_says_so(working: KnowledgeBase, work: Work) -> None:
    failed = [{"index": number, "error": "e" * 2_000} for number in range(5_000)]
    work.result = {"processed": 5_000, "failed": failed}
    work.going_on.set()

    job = await working.start_job("check")
    ended = await state_of(working, job["id"], "done")
    result = await working.job_result(job["id"])

    assert (result["processed"], result["failed"]) == (5_000, failed[:100])
    assert any("100 of 5000 failed" in line for line in ended["log"])


async def test_bulk_call_that_was_cut_short_by_cancelling_is_cancelled(working: KnowledgeBase, work: Work) -> None:
    async def swallowing(*, namespace: str | None = None, progress: Any = None) -> Any:
        try:
            await work.going_on.wait()
        except asyncio.CancelledError:
            return {"processed": 3, "completed": False}

    working.check_integrity = swallowing  # type: ignore[method-assign, assignment]
    job = await working.start_job("check")
    await state_of(working, job["id"], "running")

    await working.cancel_job(job["id"])

    assert (await state_of(working, job["id"], *ENDED))["state"] == "cancelled"


async def test_log_is_bounded(working: KnowledgeBase, work: Work, control: Control) -> None:
    job = await working.start_job("check")
    await eventually(lambda: work.progress)
    _, _, log = job_keys(job["id"])
    for number in range(300):
        control.run("RPUSH", log, f"{number} line {number}")

    work.going_on.set()
    ended = await state_of(working, job["id"], "done")

    assert control.run("LLEN", log) == 200
    assert len(ended["log"]) == 200
    assert ended["log"][-1].endswith("done")


async def test_only_some_run_at_once_and_only_some_may_wait(open_kb: OpenKnowledgeBase, work: Work) -> None:
    kb = open_kb(limits=Limits(concurrent_jobs=2, waiting_jobs=3))
    kb.check_integrity = work.check_integrity  # type: ignore[method-assign]
    jobs = [await kb.start_job("check") for _ in range(5)]

    with pytest.raises(OverloadedError):
        await kb.start_job("check")
    listed = await kb.list_jobs(namespace=kb.settings.namespace)
    begun = work.begun
    await kb.cancel_job(jobs[4]["id"])
    cancelled = await state_of(kb, jobs[4]["id"], *ENDED)
    work.going_on.set()
    states = [(await state_of(kb, job["id"], *ENDED))["state"] for job in jobs]

    assert [job["id"] for job in listed] == [job["id"] for job in reversed(jobs)]
    assert [job["state"] for job in listed] == ["queued"] * 3 + ["running"] * 2
    assert begun == 2
    assert (cancelled["state"], cancelled["started_at"]) == ("cancelled", None)
    assert states == ["done"] * 4 + ["cancelled"]
    assert work.begun == 4


async def test_records_are_bounded_and_live_jobs_stay(
    new_server: Callable[..., RedisServer], open_kb: OpenKnowledgeBase, work: Work
) -> None:
    server = new_server().start()
    kb = open_kb(redis_url=server.url, jobs=JobSettings(records=3))
    kb.check_integrity = work.check_integrity  # type: ignore[method-assign]
    live = await kb.start_job("check")
    await eventually(lambda: work.begun)
    kb.check_integrity = type(kb).check_integrity.__get__(kb)  # type: ignore[method-assign]
    ended = []
    for _ in range(5):
        ended.append((await kb.start_job("check"))["id"])
        await state_of(kb, ended[-1], "done")

    listed = await kb.list_jobs()
    with looking_at(server) as control:
        keys = control.run("KEYS", "kb:jobs:*")

    assert [job["id"] for job in listed] == [ended[4], ended[3], live["id"]]
    assert len(keys) == 1 + 2 * 3


async def test_no_room_on_record_is_told(
    new_server: Callable[..., RedisServer], open_kb: OpenKnowledgeBase, work: Work
) -> None:
    server = new_server().start()
    kb = open_kb(redis_url=server.url, jobs=JobSettings(records=2))
    kb.check_integrity = work.check_integrity  # type: ignore[method-assign]
    live = [await kb.start_job("check") for _ in range(2)]

    with pytest.raises(OverloadedError, match="records"):
        await kb.start_job("check")

    assert {job["id"] for job in await kb.list_jobs()} == {job["id"] for job in live}


async def test_list_is_filtered(working: KnowledgeBase, work: Work, namespace: str) -> None:
    work.going_on.set()
    here = await working.start_job("check")
    there = await working.start_job("check", namespace=f"{namespace}.b")
    for job in (here, there):
        await state_of(working, job["id"], "done")

    def ids(jobs: Any) -> list[str]:
        return [job["id"] for job in jobs if job["id"] in (here["id"], there["id"])]

    assert ids(await working.list_jobs(limit=10_000)) == [there["id"], here["id"]]
    assert ids(await working.list_jobs(namespace=namespace)) == [here["id"]]
    assert ids(await working.list_jobs(state="done", kind="check", limit=10_000)) == [there["id"], here["id"]]
    assert ids(await working.list_jobs(state="running")) == []
    assert ids(await working.list_jobs(kind="export")) == []
    for wrong in ({"state": "over"}, {"kind": "x"}, {"limit": 0}, {"namespace": "{x}"}):
        with pytest.raises(InvalidInputError):
            await working.list_jobs(**wrong)


async def test_records_are_forgotten_some_time_after_the_end(
    working: KnowledgeBase, work: Work, control: Control
) -> None:
    work.going_on.set()
    job = await working.start_job("check")
    await state_of(working, job["id"], "done")
    _, record, log = job_keys(job["id"])
    week = 7 * 86_400_000
    left = [control.run("PTTL", key) for key in (record, log)]

    control.run("DEL", record)

    assert all(week - 60_000 < one <= week for one in left)
    assert job["id"] not in {other["id"] for other in await working.list_jobs(limit=10_000)}
    assert control.run("ZSCORE", job_keys("")[0], job["id"]) is None


async def test_closing_cancels_and_records_it(open_kb: OpenKnowledgeBase, stub_kb: KnowledgeBase, work: Work) -> None:
    kb = open_kb(limits=Limits(concurrent_jobs=1))
    kb.check_integrity = work.check_integrity  # type: ignore[method-assign]
    jobs = [await kb.start_job("check") for _ in range(3)]
    await eventually(lambda: work.begun)

    await kb.close()
    seen = [await stub_kb.get_job(job["id"]) for job in jobs]

    assert [job["state"] for job in seen] == ["cancelled"] * 3
    assert any("closes" in line for line in seen[0]["log"])
    assert work.cleaned_up == 1


async def test_job_outlives_the_caller_and_his_deadline(working: KnowledgeBase, work: Work) -> None:
    caller = asyncio.create_task(working.start_job("check", timeout=1.0))
    job = await caller
    await asyncio.sleep(1.2)

    work.going_on.set()

    assert (await state_of(working, job["id"], *ENDED))["state"] == "done"


async def test_job_of_another_process_is_seen_and_cancelled(stub_kb: KnowledgeBase, redis_url: str) -> None:
    with other_process(redis_url, stub_kb.settings.namespace) as process:
        job_id = await first_line(process)

        async def advanced() -> Any:
            job = await stub_kb.get_job(job_id)
            return job if job["done"] > 10 else None

        seen = await eventually(advanced, 30.0)
        loop = asyncio.get_running_loop()
        asked = loop.time()
        await stub_kb.cancel_job(job_id)
        ended = await state_of(stub_kb, job_id, *ENDED)
        took = loop.time() - asked

    assert (seen["state"], seen["total"]) == ("running", 1_000_000)
    assert ended["state"] == "cancelled"
    assert took < 10.0


async def test_job_of_a_killed_process_is_lost(stub_kb: KnowledgeBase, redis_url: str) -> None:
    with other_process(redis_url, stub_kb.settings.namespace, lease=1.0) as process:
        job_id = await first_line(process)
        await state_of(stub_kb, job_id, "running")
        process.kill()

        ended = await state_of(stub_kb, job_id, *ENDED)
        listed = await stub_kb.list_jobs(state="lost", namespace=stub_kb.settings.namespace)

    assert ended["state"] == "lost"
    assert ended["finished_at"] is not None
    assert [job["id"] for job in listed] == [job_id]
    with pytest.raises(KnowledgeBaseError, match="lost"):
        await stub_kb.job_result(job_id)


async def test_process_that_closes_its_base_leaves_no_live_job(stub_kb: KnowledgeBase, redis_url: str) -> None:
    with other_process(redis_url, stub_kb.settings.namespace) as process:
        job_id = await first_line(process)
        await state_of(stub_kb, job_id, "running")
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.to_thread(process.wait)

    assert (await stub_kb.get_job(job_id))["state"] == "cancelled"


async def test_job_that_was_given_up_stops_and_stays_lost(
    open_kb: OpenKnowledgeBase, work: Work, control: Control
) -> None:
    kb = open_kb()
    kb.check_integrity = work.check_integrity  # type: ignore[method-assign]
    job = await kb.start_job("check")
    await eventually(lambda: work.begun)

    control.run("HSET", job_keys(job["id"])[1], "lease", 1)
    lost = await kb.get_job(job["id"])
    await eventually(lambda: work.cleaned_up)

    assert lost["state"] == "lost"
    assert (await kb.get_job(job["id"]))["state"] == "lost"


async def test_job_ends_when_nobody_can_hear_of_it(
    new_server: Callable[..., RedisServer], open_kb: OpenKnowledgeBase, work: Work
) -> None:
    server = new_server().start()
    kb = open_kb(redis_url=server.url, jobs=JobSettings(lease=1.0))
    kb.check_integrity = work.check_integrity  # type: ignore[method-assign]
    await kb.start_job("check")
    await eventually(lambda: work.begun)

    server.kill()

    await eventually(lambda: work.cleaned_up, 30.0)
