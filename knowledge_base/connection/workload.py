"""Whether what is awaited is a job, which must not hold up those who wait for an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_job: ContextVar[bool] = ContextVar("knowledge_base_is_job", default=False)


def in_job() -> bool:
    """Returns whether a job is under way: it uses connections and threads of its own."""
    return _is_job.get()


@contextmanager
def job() -> Iterator[None]:
    """Makes what is awaited inside a job."""
    token = _is_job.set(True)
    try:
        yield
    finally:
        _is_job.reset(token)
