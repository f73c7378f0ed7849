"""The calls about background jobs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from knowledge_base.admin.jobs.arguments import checked_arguments
from knowledge_base.calls.base import Calls
from knowledge_base.errors import InvalidInputError
from knowledge_base.facts import validation
from knowledge_base.keyspace import EVERY_NAMESPACE
from knowledge_base.types import Job, JobKind, JobState, Progress

CALLS = {
    "backup": "backup",
    "check": "check_integrity",
    "duplicates": "find_duplicates",
    "export": "export_all_data",
    "import": "import_data",
    "ingest": "ingest_path",
    "prune": "prune_facts",
    "reindex": "rebuild_search_index",
}
"""The call of each kind of job."""

EVERYWHERE = frozenset({"export", "import"})
"""Kinds whose call takes ``"*"`` for all namespaces."""

JOB_ID_PATTERN = re.compile(r"[0-9a-f]{32}")
MOST_LISTED = 10_000


class JobCalls(Calls):
    """Background jobs: long calls that nobody waits for."""

    async def start_job(
        self,
        kind: JobKind,
        arguments: Mapping[str, Any] | None = None,
        *,
        namespace: str | None = None,
        timeout: float | None = None,
    ) -> Job:
        """Starts a long call in the background of this process; every process can ask for it then.

        Args:
            kind: Which call: ``"backup"``, ``"check"`` (``check_integrity``), ``"duplicates"`` (``find_duplicates``),
                ``"export"`` (``export_all_data``), ``"import"`` (``import_data``), ``"ingest"`` (``ingest_path``),
                ``"prune"`` (``prune_facts``) or ``"reindex"`` (``rebuild_search_index``).
            arguments: The arguments of that call, as JSON has them.
            namespace: Where it works; ``"*"`` for an export or import of all namespaces.

        Returns:
            The job; it waits for its turn when ``limits.concurrent_jobs`` others run.

        Raises:
            InvalidInputError: The call takes no such argument, or no such value.
            OverloadedError: ``limits.waiting_jobs`` wait already, or all ``jobs.records`` are of jobs under way.
        """
        call = self._call_of(kind)
        given = checked_arguments(call, arguments)
        takes_namespace = "namespace" in inspect.signature(call).parameters
        if namespace is not None and not takes_namespace:
            raise InvalidInputError("namespace", f"a {kind} job works in all namespaces")
        if takes_namespace and namespace != EVERY_NAMESPACE:
            where: str | None = self._namespace(namespace)
        elif takes_namespace and kind not in EVERYWHERE:
            raise InvalidInputError("namespace", f"a {kind} job works in one namespace")
        else:
            where = EVERY_NAMESPACE if takes_namespace else None

        async def work(progress: Progress) -> Any:
            scope = {} if where is None else {"namespace": where}
            return await call(**given, **scope, progress=progress)

        async with self._services.call("start_job", timeout, self.settings.timeouts.job_call) as services:
            return await services.jobs.start(kind, None if where == EVERY_NAMESPACE else where, given, work)

    async def get_job(self, job_id: str, *, timeout: float | None = None) -> Job:
        """Returns a job with its log, whichever process runs or ran it.

        Args:
            job_id: The job.

        Raises:
            InvalidInputError: There is no such job on record.
        """
        self._check_job_id(job_id)
        async with self._services.call("get_job", timeout, self.settings.timeouts.job_call) as services:
            return await services.jobs.get(job_id)

    async def list_jobs(
        self,
        *,
        state: JobState | None = None,
        kind: JobKind | None = None,
        namespace: str | None = None,
        limit: int = 100,
        timeout: float | None = None,
    ) -> list[Job]:
        """Returns jobs of all processes, newest first, each with the last line of its log.

        Args:
            state: Only jobs that are in this state.
            kind: Only jobs of this kind.
            namespace: Only jobs that work in this namespace; without one, those of all.
            limit: How many at most.
        """
        validation.checked_number("limit", limit, 1, MOST_LISTED)
        wanted: dict[str, str] = {}
        for name, value, choices in (("state", state, get_args(JobState)), ("kind", kind, get_args(JobKind))):
            if value is not None:
                if value not in choices:
                    raise InvalidInputError(name, f"must be one of {', '.join(choices)}")
                wanted[name] = value
        if namespace is not None:
            wanted["namespace"] = validation.checked_namespace(namespace)
        async with self._services.call("list_jobs", timeout, self.settings.timeouts.job_call) as services:
            return await services.jobs.newest(limit, wanted)

    async def cancel_job(self, job_id: str, *, timeout: float | None = None) -> Job:
        """Asks for a job to be cancelled; its process sees that within a second. One that has ended stays as it is.

        Args:
            job_id: The job, of whatever process.

        Returns:
            The job; ``state`` is ``cancelled`` once its cleanup has run.

        Raises:
            InvalidInputError: There is no such job on record.
        """
        self._check_job_id(job_id)
        async with self._services.call("cancel_job", timeout, self.settings.timeouts.job_call) as services:
            return await services.jobs.cancel(job_id)

    async def job_result(self, job_id: str, *, timeout: float | None = None) -> Any:
        """Returns what the call of a job returned; of long lists in it, the first 1 000 items.

        Args:
            job_id: The job.

        Raises:
            InvalidInputError: There is no such job on record.
            UnavailableError: It is not done yet, or failed with an error that may pass.
            KnowledgeBaseError: It failed, was cancelled or is lost; ``get_job`` tells more.
        """
        self._check_job_id(job_id)
        async with self._services.call("job_result", timeout, self.settings.timeouts.job_call) as services:
            return await services.jobs.result(job_id)

    def _call_of(self, kind: Any) -> Callable[..., Any]:
        # The calls are of other groups; only the whole base has them.
        call: Callable[..., Any] | None = getattr(self, CALLS.get(kind, ""), None) if isinstance(kind, str) else None
        if call is None:
            raise InvalidInputError("kind", f"must be one of {', '.join(CALLS)}")
        return call

    def _check_job_id(self, job_id: Any) -> None:
        if not isinstance(job_id, str) or not JOB_ID_PATTERN.fullmatch(job_id):
            raise InvalidInputError("job_id", "names no job; an id has 32 hexadecimal digits")
