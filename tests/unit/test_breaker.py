"""The circuit breaker: when it opens, whom it lets through, and what it does not listen to."""

from __future__ import annotations

import asyncio
import logging

import pytest

from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.errors import CircuitOpenError
from knowledge_base.settings import BreakerSettings
from tests.support.fake_redis import Clock

FAILURES = 3
PAUSE = 10.0


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("Redis", BreakerSettings(failures=FAILURES, reset_after=PAUSE), clock=clock)


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with breaker.attempt() as attempt:
            attempt.failed()


def state(breaker: CircuitBreaker) -> str:
    return breaker.state


def succeed(breaker: CircuitBreaker) -> None:
    with breaker.attempt() as attempt:
        attempt.succeeded()


def test_new_breaker_is_closed(breaker: CircuitBreaker) -> None:
    breaker.check()

    assert breaker.stats() == {"name": "Redis", "state": "closed", "failures": 0, "opened": 0, "retry_after": 0.0}


def test_breaker_opens_with_the_last_of_so_many_failures_in_a_row(breaker: CircuitBreaker) -> None:
    fail(breaker, FAILURES - 1)
    assert state(breaker) == "closed"

    fail(breaker)

    assert state(breaker) == "open"
    assert breaker.stats() == {"name": "Redis", "state": "open", "failures": 3, "opened": 1, "retry_after": PAUSE}


def test_success_resets_the_count(breaker: CircuitBreaker) -> None:
    fail(breaker, FAILURES - 1)
    succeed(breaker)
    assert breaker.stats()["failures"] == 0

    fail(breaker, FAILURES - 1)

    assert state(breaker) == "closed"


@pytest.mark.parametrize("error", [ValueError("data"), asyncio.CancelledError()])
def test_unreported_outcome_counts_as_nothing(breaker: CircuitBreaker, error: BaseException) -> None:
    fail(breaker, FAILURES - 1)

    for _ in range(FAILURES):
        with pytest.raises(type(error)), breaker.attempt():
            raise error

    assert breaker.stats()["failures"] == FAILURES - 1
    assert state(breaker) == "closed"


def test_failure_that_was_reported_counts_although_the_block_raises(breaker: CircuitBreaker) -> None:
    def fail_loudly() -> None:
        with breaker.attempt() as attempt:
            attempt.failed()
            raise OSError("away")

    for _ in range(FAILURES):
        with pytest.raises(OSError, match="away"):
            fail_loudly()

    assert state(breaker) == "open"


def test_open_breaker_fails_fast_and_names_next_probe(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.pass_by(4.0)
    entered = False

    with pytest.raises(CircuitOpenError, match="Redis") as caught, breaker.attempt():
        entered = True

    assert not entered
    assert caught.value.retry_after == pytest.approx(PAUSE - 4.0)
    assert caught.value.circuit == "Redis"
    assert breaker.stats()["retry_after"] == pytest.approx(PAUSE - 4.0)
    with pytest.raises(CircuitOpenError):
        breaker.check()


def test_open_breaker_refuses_until_the_very_end_of_its_pause(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.pass_by(PAUSE - 0.001)
    with pytest.raises(CircuitOpenError):
        breaker.check()

    clock.pass_by(0.001)

    breaker.check()
    assert breaker.stats()["retry_after"] == 0.0


def test_check_reserves_no_probe(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.pass_by(PAUSE)

    breaker.check()
    breaker.check()

    assert state(breaker) == "open"


def test_half_open_breaker_lets_exactly_one_probe_through(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.pass_by(PAUSE)

    with breaker.attempt() as probe:
        assert state(breaker) == "half_open"
        clock.pass_by(10 * PAUSE)
        for _ in range(5):
            with pytest.raises(CircuitOpenError) as caught, breaker.attempt():
                pytest.fail("a second probe was let through")
            assert caught.value.retry_after == PAUSE
        with pytest.raises(CircuitOpenError):
            breaker.check()
        assert breaker.stats()["retry_after"] == 0.0
        probe.succeeded()

    assert state(breaker) == "closed"


def test_successful_probe_closes_and_forgets_the_failures(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.pass_by(PAUSE)

    succeed(breaker)

    assert breaker.stats() == {"name": "Redis", "state": "closed", "failures": 0, "opened": 1, "retry_after": 0.0}
    fail(breaker, FAILURES - 1)
    assert state(breaker) == "closed"
    fail(breaker)
    assert breaker.stats()["opened"] == 2


def test_failed_probe_opens_for_another_whole_pause(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.pass_by(PAUSE + 3.0)

    fail(breaker)

    assert breaker.stats()["state"] == "open"
    assert breaker.stats()["retry_after"] == PAUSE
    assert breaker.stats()["opened"] == 1
    with pytest.raises(CircuitOpenError):
        breaker.check()


@pytest.mark.parametrize("error", [asyncio.CancelledError(), ValueError("no outcome")])
def test_probe_without_outcome_leaves_the_probe_to_the_next_call(
    breaker: CircuitBreaker, clock: Clock, error: BaseException
) -> None:
    fail(breaker, FAILURES)
    clock.pass_by(PAUSE)

    with pytest.raises(type(error)), breaker.attempt():
        raise error

    assert state(breaker) == "open"
    succeed(breaker)
    assert state(breaker) == "closed"


def test_late_failure_of_an_earlier_epoch_is_ignored(breaker: CircuitBreaker, clock: Clock) -> None:
    with breaker.attempt() as late:
        fail(breaker, FAILURES)
        clock.pass_by(PAUSE)
        succeed(breaker)
        late.failed()

    assert breaker.stats()["failures"] == 0


def test_late_failure_does_not_prolong_an_open_circuit(breaker: CircuitBreaker, clock: Clock) -> None:
    with breaker.attempt() as late:
        fail(breaker, FAILURES)
        clock.pass_by(4.0)
        late.failed()

    assert breaker.stats()["retry_after"] == pytest.approx(PAUSE - 4.0)
    assert breaker.stats()["failures"] == FAILURES


def test_late_success_does_not_close_an_open_circuit(breaker: CircuitBreaker) -> None:
    with breaker.attempt() as late:
        fail(breaker, FAILURES)
        late.succeeded()

    assert state(breaker) == "open"


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "unknown"])
def test_late_outcome_does_not_decide_for_the_probe(breaker: CircuitBreaker, clock: Clock, outcome: str) -> None:
    late = breaker.attempt()
    old = late.__enter__()
    fail(breaker, FAILURES)
    clock.pass_by(PAUSE)

    with breaker.attempt() as probe:
        old.outcome = outcome  # type: ignore[assignment]
        late.__exit__(None, None, None)
        assert state(breaker) == "half_open"
        probe.succeeded()

    assert state(breaker) == "closed"


def test_each_change_of_state_is_logged_once(
    breaker: CircuitBreaker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="knowledge_base.connection.breaker")

    fail(breaker, FAILURES)
    for _ in range(10):
        with pytest.raises(CircuitOpenError):
            breaker.check()
    clock.pass_by(PAUSE)
    fail(breaker)
    clock.pass_by(PAUSE)
    succeed(breaker)
    succeed(breaker)

    logged = [
        (record.levelname, record.getMessage(), record.__dict__["circuit"], record.__dict__["previous"])
        for record in caplog.records
    ]
    assert logged == [
        ("WARNING", "circuit open", "Redis", "closed"),
        ("INFO", "circuit half_open", "Redis", "open"),
        ("INFO", "circuit open", "Redis", "half_open"),
        ("INFO", "circuit half_open", "Redis", "open"),
        ("INFO", "circuit closed", "Redis", "half_open"),
    ]


def test_every_caller_who_gave_up_counts(breaker: CircuitBreaker) -> None:
    epoch = breaker.epoch

    for _ in range(FAILURES - 1):
        breaker.count_failure(epoch)
    assert (state(breaker), breaker.stats()["failures"]) == ("closed", FAILURES - 1)
    breaker.count_failure(epoch)

    assert breaker.stats() == {"name": "Redis", "state": "open", "failures": 3, "opened": 1, "retry_after": PAUSE}


def test_callers_who_gave_up_and_failed_calls_are_counted_together(breaker: CircuitBreaker) -> None:
    fail(breaker, FAILURES - 1)

    breaker.count_failure(breaker.epoch)

    assert state(breaker) == "open"


def test_success_resets_the_count_of_those_who_gave_up(breaker: CircuitBreaker) -> None:
    for _ in range(FAILURES - 1):
        breaker.count_failure(breaker.epoch)

    succeed(breaker)

    assert breaker.stats()["failures"] == 0


def test_epoch_tells_how_often_the_state_has_changed(breaker: CircuitBreaker, clock: Clock) -> None:
    begun = breaker.epoch
    fail(breaker, FAILURES - 1)
    assert breaker.epoch == begun

    fail(breaker)
    opened = breaker.epoch
    clock.pass_by(PAUSE)
    succeed(breaker)

    assert (opened, breaker.epoch) == (begun + 1, begun + 3)


def test_caller_who_gave_up_on_a_call_from_before_does_not_count(breaker: CircuitBreaker, clock: Clock) -> None:
    before = breaker.epoch
    fail(breaker, FAILURES)
    clock.pass_by(4.0)

    breaker.count_failure(before)
    assert breaker.stats()["retry_after"] == pytest.approx(PAUSE - 4.0)
    clock.pass_by(PAUSE)
    succeed(breaker)
    for _ in range(FAILURES):
        breaker.count_failure(before)

    assert (state(breaker), breaker.stats()["failures"]) == ("closed", 0)


def test_caller_who_gives_up_on_the_probe_decides_it(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.pass_by(PAUSE)

    with breaker.attempt():
        breaker.count_failure(breaker.epoch)
        assert state(breaker) == "open"

    assert breaker.stats()["retry_after"] == PAUSE
    with pytest.raises(CircuitOpenError):
        breaker.check()


def test_only_the_first_caller_who_gives_up_on_the_probe_decides_it(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.pass_by(PAUSE)
    with breaker.attempt():
        begun = breaker.epoch
        breaker.count_failure(begun)
        clock.pass_by(4.0)

        breaker.count_failure(begun)

    assert breaker.stats()["retry_after"] == pytest.approx(PAUSE - 4.0)


def test_caller_who_gave_up_before_the_pause_does_not_decide_the_probe(breaker: CircuitBreaker, clock: Clock) -> None:
    before = breaker.epoch
    fail(breaker, FAILURES)
    clock.pass_by(PAUSE)

    with breaker.attempt() as probe:
        breaker.count_failure(before)
        assert state(breaker) == "half_open"
        probe.succeeded()

    assert state(breaker) == "closed"


def test_caller_who_gave_up_before_anything_was_asked_does_not_prolong_the_pause(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, FAILURES)
    clock.pass_by(PAUSE)

    breaker.count_failure(breaker.epoch)

    breaker.check()
    succeed(breaker)
    assert state(breaker) == "closed"
