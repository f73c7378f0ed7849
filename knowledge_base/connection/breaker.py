"""The circuit breaker: what failed repeatedly is left alone until one probe succeeds.

Written here since the published ones miss what the guarded path needs: a strictly single probe, a monotonic clock,
indifference to the caller's cancellation, and deafness to outcomes from before the last change of state.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from knowledge_base.errors import CircuitOpenError
from knowledge_base.settings import BreakerSettings
from knowledge_base.types import BreakerStats

logger = logging.getLogger(__name__)

State = Literal["closed", "open", "half_open"]


class Attempt:
    """One guarded call; its outcome is a success, a failure, or unknown when nothing is said."""

    __slots__ = ("epoch", "outcome")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.outcome: Literal["succeeded", "failed", "unknown"] = "unknown"

    def succeeded(self) -> None:
        """Says that the dependency answered, be it with an error about the data."""
        self.outcome = "succeeded"

    def failed(self) -> None:
        """Says that the dependency did not answer in time, or not at all."""
        self.outcome = "failed"


class CircuitBreaker:
    """Guards one dependency; used from one event loop.

    Closed, it opens after a number of failures in a row. Open, it refuses at once. After a pause it is half-open:
    exactly one call is let through as a probe, whose outcome closes or opens it again.

    Args:
        name: The dependency, as named in errors and logs.
        settings: When it opens and for how long.
        clock: Monotonic seconds; tests bring their own.
    """

    def __init__(self, name: str, settings: BreakerSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._settings = settings
        self._clock = clock
        self._state: State = "closed"
        self._failures = 0
        self._opened = 0
        self._next_probe = 0.0
        self._epoch = 0

    @property
    def state(self) -> State:
        """The state; open although a probe is due, until a call makes it half-open."""
        return self._state

    def check(self) -> None:
        """Refuses if a call made now would be refused; reserves nothing.

        Raises:
            CircuitOpenError: It is open, or a probe is under way.
        """
        if self._state == "open" and self._clock() < self._next_probe:
            raise CircuitOpenError(self.name, self._next_probe - self._clock())
        if self._state == "half_open":
            raise CircuitOpenError(self.name, self._settings.reset_after)

    @contextmanager
    def attempt(self) -> Iterator[Attempt]:
        """Guards one call, whose outcome the block reports.

        Raises:
            CircuitOpenError: The call is refused.
        """
        self.check()
        if self._state == "open":
            self._change("half_open")
        attempt = Attempt(self._epoch)
        try:
            yield attempt
        finally:
            self._settle(attempt)

    @property
    def epoch(self) -> int:
        """How often the state has changed."""
        return self._epoch

    def count_failure(self, epoch: int) -> None:
        """Counts a caller whose deadline ended its wait for a call that others may still wait for.

        Args:
            epoch: The ``epoch`` when the call began; what began before the last change of state counts no more.
        """
        if self._state == "open":
            return
        attempt = Attempt(epoch)
        attempt.failed()
        self._settle(attempt)

    def stats(self) -> BreakerStats:
        """Returns the state in numbers."""
        retry_after = max(0.0, self._next_probe - self._clock()) if self._state == "open" else 0.0
        return {
            "name": self.name,
            "state": self._state,
            "failures": self._failures,
            "opened": self._opened,
            "retry_after": retry_after,
        }

    def _settle(self, attempt: Attempt) -> None:
        if attempt.epoch != self._epoch:
            return
        if attempt.outcome == "succeeded":
            self._failures = 0
            if self._state == "half_open":
                self._change("closed")
        elif attempt.outcome == "failed":
            self._failures += 1
            if self._state == "half_open" or self._failures >= self._settings.failures:
                self._open(self._settings.reset_after)
        elif self._state == "half_open":
            self._open(0.0)

    def _open(self, pause: float) -> None:
        self._next_probe = self._clock() + pause
        self._change("open")

    def _change(self, state: State) -> None:
        previous, self._state = self._state, state
        self._epoch += 1
        if state == "open" and previous == "closed":
            self._opened += 1
        level = logging.WARNING if state == "open" and previous == "closed" else logging.INFO
        logger.log(level, "circuit %s", state, extra={"circuit": self.name, "previous": previous})
