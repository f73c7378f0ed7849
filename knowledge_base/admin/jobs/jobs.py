"""Jobs: long calls that run in the background of this process, and what all processes know of them."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from redis.exceptions import ResponseError

from knowledge_base.admin.jobs.record import Advance, JobRecords
from knowledge_base.connection.admission import Admission
from knowledge_base.connection.deadline import deadline
from knowledge_base.connection.workload import job as inside_job
from knowledge_base.errors import InvalidInputError, KnowledgeBaseError, OverloadedError, UnavailableError
from knowledge_base.settings import ONE_DAY
from knowledge_base.types import Job, Progress

logger = logging.getLogger(__name__)

Work: TypeAlias = Callable[[Progress], Awaitable[Any]]
"""What a job does: a call that reports its progress."""

BEAT_SECONDS = 0.5
"""Pause between two signs of life; a cancellation is seen within it."""

BEAT_BUDGET = 5.0
ENDING_PAUSE = 0.5
"""Seconds between two attempts to record how a job ended."""

RESULT_CHARACTERS = 262_144
ITEMS_KEPT = (1_000, 100, 10, 0)
"""Items of each list in a result that are kept; fewer when the result is still too long."""

MILESTONES = 10
"""Lines that a job's progress makes in its log."""


@dataclass(eq=False)
class _Running:
    """A job of this process."""

    job_id: str
    owner: str
    work: Work
    calling: asyncio.Task[Any] | None = None
    """The call, and the wait for its turn."""
    task: asyncio.Task[None] | None = None
    """What records how it ends; never cancelled along with the call."""
    has_begun: bool = False
    is_cancelled: bool = False
    done: int = 0
    total: int = 0
    lines: list[str] = field(default_factory=list)
    heard: float = field(default_factory=time.monotonic)
    _first: tuple[float, int] | None = None
    _milestone: int = 0

    def progress(self, done: int, total: int) -> None:
        """Notes how far it is; it is written with the next sign of life."""
        if self._first is None:
            self._first = (time.monotonic(), done)
        self.done, self.total = done, total
        milestone = done * MILESTONES // total if total > 0 else 0
        if milestone > self._milestone:
            self._milestone = milestone
            self.lines.append(f"{done} of {total}")

    def advance(self) -> Advance:
        """Takes what is to be written."""
        rate = None
        if self._first is not None:
            began, done_before = self._first
            seconds = time.monotonic() - began
            rate = (self.done - done_before) / seconds if seconds > 0 and self.done > done_before else None
        lines, self.lines = self.lines, []
        return Advance(self.done, self.total, rate, lines)

    def cancel(self) -> None:
        """Ends the call; only once, since its cleanup must not be cancelled too."""
        if self.calling is not None and not self.is_cancelled:
            self.is_cancelled = True
            self.calling.cancel()


class Jobs:
    """Runs calls in the background, some at a time, and tells every process of them.

    Args:
        records: What all processes know.
        places: Jobs that run at once in this process.
        waiting: Jobs that may wait for their turn.
        lease: Seconds without a sign of this process after which its jobs count as lost.
        beat: Seconds between two signs.
    """

    def __init__(
        self, records: JobRecords, *, places: int, waiting: int, lease: float, beat: float = BEAT_SECONDS
    ) -> None:
        self._records = records
        self._places = Admission("background jobs", places)
        self._most = places + waiting
        self._lease = lease
        self._beat = min(beat, lease / 3)
        self._running: dict[str, _Running] = {}
        self._heart: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self, kind: str, namespace: str | None, arguments: Mapping[str, Any], work: Work) -> Job:
        """Starts a job, or puts it in the queue.

        Args:
            kind: What it is.
            namespace: Where it works, or None for everywhere.
            arguments: What it was asked for, as JSON has it.
            work: What it does.

        Returns:
            The job as it is recorded.

        Raises:
            OverloadedError: Too many wait already, here or on record.
            UnavailableError: Redis cannot be reached, or the base is being closed.
        """
        if len(self._running) >= self._most:
            raise OverloadedError("background jobs")
        running = _Running(secrets.token_hex(16), secrets.token_hex(8), work)
        # Counted from now on, so that no others slip in while it is being recorded.
        self._running[running.job_id] = running
        try:
            fields = {"kind": kind, "namespace": namespace or "", "arguments": json.dumps(arguments)}
            if not await self._records.open(running.job_id, running.owner, fields):
                raise OverloadedError("the records of background jobs")
            if self._closed:
                raise UnavailableError("this knowledge base is being closed")
        except BaseException:
            del self._running[running.job_id]
            raise
        # Free of the caller's deadline, and of its end.
        loop = asyncio.get_running_loop()
        running.calling = loop.create_task(self._call(running), name=f"kb-job-{kind}", context=Context())
        running.task = loop.create_task(self._attend(running, running.calling), name="kb-job-end", context=Context())
        if self._heart is None or self._heart.done():
            self._heart = loop.create_task(self._keep_beating(), name="kb-job-heartbeat", context=Context())
        try:
            return await self.get(running.job_id)
        except BaseException:
            # Nobody would know its id.
            running.cancel()
            raise

    async def get(self, job_id: str) -> Job:
        """Returns a job.

        Args:
            job_id: The job, of whatever process.

        Raises:
            InvalidInputError: There is no record of it.
        """
        found = await self._records.read(job_id)
        if found is None:
            raise _unknown()
        return found

    async def newest(self, limit: int, wanted: Mapping[str, str]) -> list[Job]:
        """Returns jobs of all processes, newest first.

        Args:
            limit: How many at most.
            wanted: Values that some of their fields must have.
        """
        return await self._records.newest(limit, wanted)

    async def cancel(self, job_id: str) -> Job:
        """Asks for a job to be cancelled, whichever process runs it.

        Args:
            job_id: The job; one that has ended stays as it is.

        Raises:
            InvalidInputError: There is no record of it.
        """
        await self._records.cancel(job_id)
        if job_id in self._running:
            self._running[job_id].cancel()
        return await self.get(job_id)

    async def result(self, job_id: str) -> Any:
        """Returns what the call of a job returned.

        Args:
            job_id: The job.

        Raises:
            InvalidInputError: There is no record of it.
            UnavailableError: It is not done yet; or it failed with an error that may pass.
            KnowledgeBaseError: It failed, was cancelled or is lost.
        """
        outcome = await self._records.outcome(job_id)
        if outcome is None:
            raise _unknown()
        state, error, result = outcome
        if state == "done":
            return json.loads(result)
        if state in ("queued", "running"):
            raise UnavailableError(f"the job is {state}; ask for its result when it is done")
        if state == "failed":
            failure = json.loads(error)
            kind = UnavailableError if failure["retryable"] else KnowledgeBaseError
            raise kind(f"the job failed with {failure['type']}: {failure['message']}")
        raise KnowledgeBaseError(f"the job has no result: it is {state}; start another one")

    async def close(self, within: float) -> None:
        """Cancels the jobs of this process, and records it.

        Args:
            within: Seconds to wait at most; what is not recorded by then shows as lost when its lease ends.
        """
        self._closed = True
        tasks = {running.task for running in self._running.values() if running.task is not None}
        for running in list(self._running.values()):
            running.lines.append("its process closes the knowledge base")
            running.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=within / 2)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=within / 2)
        if self._heart is not None:
            self._heart.cancel()
            await asyncio.gather(self._heart, return_exceptions=True)

    async def _call(self, running: _Running) -> Any:
        with inside_job():
            async with self._places.place(ONE_DAY):
                await self._begin(running)
                return await running.work(running.progress)

    async def _attend(self, running: _Running, calling: asyncio.Task[Any]) -> None:
        state, result, error = "cancelled", "", ""
        try:
            with inside_job():
                await asyncio.wait({calling})
                if calling.cancelled():
                    running.lines.append("cancelled")
                elif (failure := calling.exception()) is not None:
                    state, error = "failed", _encoded_failure(failure, running.lines)
                else:
                    result = _encoded_result(calling.result(), running.lines)
                    state = _state_of(calling.result(), is_cancelled=running.is_cancelled)
                    running.lines.append(state)
                await self._end(running, state, result, error)
        finally:
            calling.cancel()
            del self._running[running.job_id]

    async def _begin(self, running: _Running) -> None:
        running.has_begun = True
        running.lines.append("running")
        # Not before everybody can see it; whoever has cancelled it meanwhile is heard at the last sleep.
        is_seen = False
        while not is_seen:
            is_seen = await self._has_beaten(running)
            await asyncio.sleep(0 if is_seen else self._beat)

    async def _end(self, running: _Running, state: str, result: str, error: str) -> None:
        advance = running.advance()
        while True:
            try:
                async with deadline("recording the end of a job", BEAT_BUDGET):
                    await self._records.end(running.job_id, running.owner, advance, state, result=result, error=error)
                return
            except (KnowledgeBaseError, ResponseError) as failure:
                reason = type(failure).__name__
            if time.monotonic() - running.heard > self._lease:
                logger.warning("the end of a job could not be recorded; it shows as lost", extra={"reason": reason})
                return
            await asyncio.sleep(ENDING_PAUSE)

    async def _keep_beating(self) -> None:
        with inside_job():
            while self._running:
                for running in list(self._running.values()):
                    if running.calling is not None:
                        await self._has_beaten(running)
                await asyncio.sleep(self._beat)

    async def _has_beaten(self, running: _Running) -> bool:
        lines: list[str] = []
        try:
            async with deadline("the heartbeat of a job", BEAT_BUDGET):
                advance = running.advance()
                lines = list(advance.lines)
                state, cancelling = await self._records.beat(
                    running.job_id, running.owner, advance, running=running.has_begun
                )
        except (KnowledgeBaseError, ResponseError):
            running.lines[:0] = lines
            if time.monotonic() - running.heard > self._lease:
                # Others take it for lost and may begin the same work.
                running.cancel()
            return False
        running.heard = time.monotonic()
        if cancelling or state not in ("queued", "running"):
            running.cancel()
        return True


def _unknown() -> InvalidInputError:
    return InvalidInputError("job_id", "names no job that is on record; the oldest are forgotten")


def _state_of(result: Any, *, is_cancelled: bool) -> str:
    # A bulk call tells what it had done when it was cut short.
    was_cut_short = isinstance(result, Mapping) and result.get("completed") is False
    return "cancelled" if is_cancelled and was_cut_short else "done"


def _encoded_failure(failure: BaseException, lines: list[str]) -> str:
    name = type(failure).__name__
    if isinstance(failure, KnowledgeBaseError):
        message, retryable = str(failure), failure.retryable
    else:
        # Its text may quote content.
        message, retryable = f"unexpected {name}", False
        logger.error("a job failed", exc_info=failure)
    lines.append(f"failed with {name}: {message}")
    return json.dumps({"type": name, "message": message, "retryable": retryable})


def _encoded_result(result: Any, lines: list[str]) -> str:
    encoded = ""
    for most in ITEMS_KEPT:
        encoded = json.dumps(_cut(result, most))
        if len(encoded) <= RESULT_CHARACTERS:
            break
    if isinstance(result, Mapping):
        for name, value in result.items():
            if isinstance(value, list) and len(value) > most:
                lines.append(f"the recorded result has {most} of {len(value)} {name}")
    return encoded


def _cut(result: Any, most: int) -> Any:
    if isinstance(result, Mapping):
        return {name: value[:most] if isinstance(value, list) else value for name, value in result.items()}
    return result
