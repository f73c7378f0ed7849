"""What is recorded of background jobs in Redis, where every process finds it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from knowledge_base.clock import iso_time
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import Argument, LuaScript
from knowledge_base.keyspace import job_keys
from knowledge_base.settings import JobSettings
from knowledge_base.types import Job

FIELDS = (
    *("id", "kind", "namespace", "arguments", "state", "cancelling", "done", "total", "rate"),
    *("created_at", "started_at", "finished_at", "error"),
)
RESULT_FIELDS = ("state", "error", "result")
DAY_MS = 86_400_000
READ_AT_ONCE = 100
"""Jobs that one script reads."""

LINES_SHOWN = 200
LINE_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a job is.

    Attributes:
        done: What is done.
        total: What there is in all; 0 while that is not known.
        rate: What gets done in a second, or None.
        lines: New lines of its log.
    """

    done: int
    total: int
    rate: float | None
    lines: Sequence[str]

    def arguments(self) -> list[Argument]:
        """Returns it as scripts take it, without the lines."""
        return [self.done, self.total, "" if self.rate is None else f"{self.rate:.6g}"]


class JobRecords:
    """Writes and reads the records of jobs.

    Each change is made by the process that owns the job, named by a token, and only while the job is under way: what
    has ended, or was given up as lost, never changes any more.

    Args:
        manager: The connections.
        settings: How long a job may be silent, how long it is kept, and how many are.
    """

    def __init__(self, manager: AsyncRedisManager, settings: JobSettings) -> None:
        self._manager = manager
        self._lease_ms = int(settings.lease * 1000)
        self._keep_ms = int(settings.keep_days * DAY_MS)
        self._most = settings.records
        self._open, self._beat, self._end, self._cancel, self._read, self._read_all = (
            LuaScript("knowledge_base.admin", "jobs", name, repeatable=True)
            for name in ("open_job", "beat_job", "end_job", "cancel_job", "read_job", "read_jobs")
        )

    async def open(self, job_id: str, owner: str, fields: Mapping[str, str]) -> bool:
        """Records a job that waits for its turn.

        Args:
            job_id: The job.
            owner: The token of whoever runs it.
            fields: Kind, namespace and arguments.

        Returns:
            Whether there was room; there is none when nothing but live jobs is on record.
        """
        client = await self._manager.main()
        pairs = [word for pair in {**fields, "owner": owner}.items() for word in pair]
        arguments: list[Argument] = [job_id, self._lease_ms, self._keep_ms, self._most, *pairs]
        return bool(await self._open(client, job_keys(job_id), arguments))

    async def beat(self, job_id: str, owner: str, advance: Advance, *, running: bool) -> tuple[str, bool]:
        """Renews the lease of a job and tells how far it is.

        Args:
            job_id: The job.
            owner: The token of whoever runs it.
            advance: How far it is.
            running: Whether its turn has come.

        Returns:
            Its state, ``queued`` or ``running`` unless it is not the owner's any more; and whether it is to be
            cancelled.
        """
        client = await self._manager.main()
        head: list[Argument] = [owner, self._lease_ms, int(running)]
        state, cancelling = await self._beat(
            client, job_keys(job_id), [*head, *advance.arguments(), *_lines(advance.lines)]
        )
        return state, cancelling == "1"

    async def end(self, job_id: str, owner: str, advance: Advance, state: str, *, result: str, error: str) -> None:
        """Records how a job ended, unless it was given up as lost before.

        Args:
            job_id: The job.
            owner: The token of whoever ran it.
            advance: How far it came.
            state: ``done``, ``failed`` or ``cancelled``.
            result: What the call returned, as JSON; blank without.
            error: A ``JobFailure`` as JSON; blank without.
        """
        client = await self._manager.main()
        arguments: list[Argument] = [owner, state, *advance.arguments(), result, error, *_lines(advance.lines)]
        await self._end(client, job_keys(job_id), arguments)

    async def cancel(self, job_id: str) -> None:
        """Asks for a job to be cancelled; one that has ended, or is unknown, is left alone.

        Args:
            job_id: The job.
        """
        client = await self._manager.main()
        await self._cancel(client, job_keys(job_id), [])

    async def read(self, job_id: str) -> Job | None:
        """Returns a job with its log, or None when there is no record of it.

        Args:
            job_id: The job.
        """
        client = await self._manager.main()
        reply = await self._read(client, job_keys(job_id), [LINES_SHOWN, *FIELDS])
        return _job(*reply) if reply else None

    async def newest(self, limit: int, wanted: Mapping[str, str]) -> list[Job]:
        """Returns jobs, newest first, with the last line of their logs.

        Args:
            limit: How many at most.
            wanted: Values that some of their fields must have.
        """
        client = await self._manager.main()
        found: list[Job] = []
        place = 0
        while len(found) < limit:
            arguments: list[Argument] = [place, READ_AT_ONCE, 1, *FIELDS]
            looked_at, there, rows = await self._read_all(client, job_keys("")[:1], arguments)
            jobs = [_job(*row) for row in rows]
            found += [job for job in jobs if all(job.get(name) == value for name, value in wanted.items())]
            place += int(there)
            if int(looked_at) < READ_AT_ONCE:
                break
        return found[:limit]

    async def outcome(self, job_id: str) -> tuple[str, str, str] | None:
        """Returns state, error and result of a job as they are recorded, or None when there is no record.

        Args:
            job_id: The job.
        """
        client = await self._manager.main()
        reply = await self._read(client, job_keys(job_id), [0, *RESULT_FIELDS])
        if not reply:
            return None
        state, error, result = reply[0]
        return state, error or "", result or ""


def _lines(lines: Sequence[str]) -> list[str]:
    return [" ".join(line.split())[:LINE_CHARACTERS] for line in lines]


def _job(values: Sequence[str | None], lines: Sequence[str]) -> Job:
    read = {name: value or "" for name, value in zip(FIELDS, values, strict=True)}
    done, total = int(read["done"] or 0), int(read["total"] or 0)
    rate = float(read["rate"]) if read["rate"] else None
    is_running = read["state"] == "running"
    job = {
        "id": read["id"],
        "kind": read["kind"],
        "namespace": read["namespace"] or None,
        "arguments": json.loads(read["arguments"]),
        "state": read["state"],
        "cancelling": is_running and read["cancelling"] == "1",
        "done": done,
        "total": total,
        "rate": rate,
        "eta_s": round((total - done) / rate, 1) if is_running and rate and total >= done else None,
        "created_at": iso_time(int(read["created_at"])),
        "started_at": _time(read["started_at"]),
        "finished_at": _time(read["finished_at"]),
        "error": json.loads(read["error"]) if read["error"] else None,
        "log": [_shown(line) for line in lines],
    }
    return cast("Job", job)


def _time(value: str) -> str | None:
    return iso_time(int(value)) if value else None


def _shown(line: str) -> str:
    at, _, text = line.partition(" ")
    return f"{iso_time(int(at))} {text}"
