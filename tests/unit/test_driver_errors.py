"""Errors of the Redis driver, and what becomes of each."""

from __future__ import annotations

from itertools import pairwise

import pytest
from redis import exceptions as driver
from redis._parsers.base import BaseParser

from knowledge_base.connection.driver_errors import driver_cause, is_failure, translated
from knowledge_base.errors import (
    KnowledgeBaseError,
    OperationTimeoutError,
    OverloadedError,
    PermissionDeniedError,
    ServerRequirementError,
    UnavailableError,
)

SECRET = "hunter2"

REPLIES: list[tuple[str, type[KnowledgeBaseError], str]] = [
    (f"LOADING Redis is loading the dataset {SECRET}", UnavailableError, "loading"),
    (f"NOAUTH Authentication required {SECRET}", PermissionDeniedError, "KB_REDIS_URL"),
    (f"WRONGPASS invalid username-password pair {SECRET}", PermissionDeniedError, "KB_REDIS_URL"),
    (f"NOPERM this user has no permissions {SECRET}", PermissionDeniedError, "may not"),
    (f"READONLY You can't write against a replica {SECRET}", UnavailableError, "replica"),
    (f"OOM command not allowed {SECRET}", UnavailableError, "memory"),
    (f"MASTERDOWN Link with MASTER is down {SECRET}", UnavailableError, "primary"),
    (f"CLUSTERDOWN The cluster is down {SECRET}", UnavailableError, "cluster"),
    (f"TRYAGAIN Multiple keys request {SECRET}", UnavailableError, "retry"),
    (f"BUSY Redis is busy running a script {SECRET}", UnavailableError, "busy"),
    (f"MISCONF Redis is configured to save RDB snapshots {SECRET}", UnavailableError, "disk"),
    (f"NOREPLICAS Not enough good replicas {SECRET}", UnavailableError, "replicas"),
    ("ERR max number of clients reached", OverloadedError, "connections"),
    (f"ERR unknown command 'FT.SEARCH', with args beginning with: {SECRET}", ServerRequirementError, "RediSearch"),
    (f"ERR unknown command `FT.CREATE`, with args beginning with: {SECRET}", ServerRequirementError, "RediSearch"),
    (f"ERR Timeout limit was reached {SECRET}", OperationTimeoutError, "FT.SEARCH"),
]

DATA_ANSWERS = [
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "ERR value is not an integer or out of range",
    "ERR syntax error",
    "ERR unknown command 'NO.SUCH'",
    "NOSCRIPT No matching script",
    "kb:{a}:index:1: no such index",
]

CODES = ("BUSY", "MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN")


def parsed(reply: str) -> Exception:
    """The driver's error for a server's reply."""
    error: Exception = BaseParser.parse_error(reply)
    return error


@pytest.mark.parametrize(("reply", "own", "says"), REPLIES, ids=lambda value: str(value)[:20])
def test_reply_of_a_server_becomes_ours(reply: str, own: type[KnowledgeBaseError], says: str) -> None:
    error = translated(parsed(reply), "FT.SEARCH")

    assert type(error) is own
    assert says in str(error)


@pytest.mark.parametrize(("reply", "own", "says"), REPLIES, ids=lambda value: str(value)[:20])
def test_text_of_the_server_never_enters_our_message(reply: str, own: type[KnowledgeBaseError], says: str) -> None:
    assert SECRET not in str(translated(parsed(reply), "FT.SEARCH"))
    assert SECRET not in repr(translated(parsed(reply), "FT.SEARCH"))


@pytest.mark.parametrize("reply", DATA_ANSWERS)
def test_answer_about_the_data_stays_the_drivers(reply: str) -> None:
    error = parsed(reply)

    assert translated(error, "GET") is None
    assert not is_failure(error)


@pytest.mark.parametrize(
    ("reply", "own"),
    [(reply, own) for reply, own, _ in REPLIES if reply.startswith(CODES)],
    ids=lambda value: str(value)[:20],
)
def test_reply_is_known_also_from_within_a_pipeline(reply: str, own: type[KnowledgeBaseError]) -> None:
    error = parsed(reply)
    # So the driver rewrites the error of a command that was sent in a pipeline.
    error.args = (f"Command # 1 (SET key value) of pipeline caused error: {error.args}",)

    assert type(translated(error, "pipeline")) is own


@pytest.mark.parametrize(
    ("error", "own"),
    [
        (driver.BusyLoadingError(SECRET), UnavailableError),
        (driver.AuthenticationError(SECRET), PermissionDeniedError),
        (driver.AuthorizationError(SECRET), PermissionDeniedError),
        (driver.NoPermissionError(SECRET), PermissionDeniedError),
        (driver.ReadOnlyError(SECRET), UnavailableError),
        (driver.OutOfMemoryError(SECRET), UnavailableError),
        (driver.MasterDownError(SECRET), UnavailableError),
        (driver.ClusterDownError(SECRET), UnavailableError),
        (driver.TryAgainError(SECRET), UnavailableError),
    ],
    ids=lambda value: type(value).__name__,
)
def test_refusal_is_no_failure(error: Exception, own: type[KnowledgeBaseError]) -> None:
    assert type(translated(error, "GET")) is own
    assert SECRET not in str(translated(error, "GET"))
    assert not is_failure(error)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (driver.ConnectionError(SECRET), "cannot be reached"),
        (driver.TimeoutError(SECRET), "in time"),
        (ConnectionRefusedError(111, SECRET), "cannot be reached"),
        (ConnectionRefusedError(SECRET), "cannot be reached"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unreachable_server_is_a_failure(error: Exception, says: str) -> None:
    own = translated(error, "GET")

    assert type(own) is UnavailableError
    assert own.retryable
    assert says in str(own)
    assert "GET" in str(own)
    assert SECRET not in str(own)
    assert is_failure(error)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyError("mine"), RuntimeError("READ")])
def test_error_of_other_code_stays_what_it_is(error: Exception) -> None:
    assert translated(error, "GET") is None
    assert not is_failure(error)


def chained(*errors: Exception, suppress: bool = False) -> BaseException:
    """The first error, each caused by the next."""
    for error, cause in pairwise(errors):
        if suppress:
            error.__context__ = cause
        else:
            error.__cause__ = cause
    return errors[0]


def test_cause_is_the_drivers_error_that_others_have_wrapped() -> None:
    found = driver.ResponseError("no such index")

    assert driver_cause(chained(RuntimeError("store"), ValueError("search"), found)) is found
    assert driver_cause(chained(RuntimeError("store"), found, suppress=True)) is found


def test_cause_behind_the_drivers_own_wrapper_is_preferred() -> None:
    found = driver.ResponseError("no such index")

    assert driver_cause(chained(driver.RedisError("wrapper"), found)) is found


def test_operating_systems_error_is_a_cause() -> None:
    found = ConnectionRefusedError()

    assert driver_cause(chained(RuntimeError("store"), found)) is found


def test_driver_error_caused_by_the_operating_system_stays_the_drivers() -> None:
    found = driver.ConnectionError("away")

    assert driver_cause(chained(found, OSError("refused"))) is found


def test_error_without_the_driver_in_it_is_its_own_cause() -> None:
    error = chained(RuntimeError("store"), ValueError("search"))

    assert driver_cause(error) is error
