"""Shapes of background jobs."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypedDict

JobKind: TypeAlias = Literal["backup", "check", "duplicates", "export", "import", "ingest", "prune", "reindex"]
"""What can run in the background; each stands for the call that it makes."""

JobState: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled", "lost"]
"""Where a job is; the last four are final. ``lost``: its process has not been heard of."""


class JobFailure(TypedDict):
    """Why a job failed."""

    type: str
    """Name of the error."""
    message: str
    """What it says; never content."""
    retryable: bool
    """Whether the same job may succeed later."""


class Job(TypedDict):
    """A call that runs in the background of some process."""

    id: str
    kind: JobKind
    namespace: str | None
    """Where it works; None for all namespaces."""
    arguments: dict[str, Any]
    state: JobState
    cancelling: bool
    """Whether somebody has asked for it to be cancelled."""
    done: int
    total: int
    """What there is in all; 0 while that is not known."""
    rate: float | None
    """What gets done in a second."""
    eta_s: float | None
    """Seconds that are left at this rate."""
    created_at: str
    started_at: str | None
    finished_at: str | None
    error: JobFailure | None
    log: list[str]
    """Its last lines, each with its time; ``list_jobs`` gives the last one only."""
