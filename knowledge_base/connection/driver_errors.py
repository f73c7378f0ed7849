"""Where errors of the Redis driver become ours.

The text of a server's reply can hold keys and values, so it stays in ``__cause__`` and never enters our messages.
"""

from __future__ import annotations

from redis import exceptions as driver

from knowledge_base.errors import (
    KnowledgeBaseError,
    OperationTimeoutError,
    OverloadedError,
    PermissionDeniedError,
    ServerRequirementError,
    UnavailableError,
)

TOO_MANY_CLIENTS = "max number of clients reached"

_BY_TYPE: tuple[tuple[type[Exception], type[KnowledgeBaseError], str], ...] = (
    (driver.BusyLoadingError, UnavailableError, "Redis is loading its data; retry in a moment"),
    (
        driver.AuthenticationError,
        PermissionDeniedError,
        "Redis refused the user or password; check the credentials in KB_REDIS_URL",
    ),
    (
        driver.NoPermissionError,
        PermissionDeniedError,
        "the Redis user may not run this command; grant it as the documentation on access lists tells",
    ),
    (driver.AuthorizationError, PermissionDeniedError, "Redis refused the user; check its access list"),
    (driver.ReadOnlyError, UnavailableError, "this Redis is a read-only replica; connect to the primary"),
    (
        driver.OutOfMemoryError,
        UnavailableError,
        "Redis has reached its memory limit; raise maxmemory or delete facts",
    ),
    (driver.MasterDownError, UnavailableError, "this Redis has lost its primary; retry when the failover is done"),
    (driver.ClusterDownError, UnavailableError, "the Redis cluster is down; retry when it has recovered"),
    (driver.TryAgainError, UnavailableError, "the Redis cluster is moving slots; retry in a moment"),
)

_BY_PREFIX: tuple[tuple[str, type[KnowledgeBaseError], str], ...] = (
    ("NOAUTH", PermissionDeniedError, "Redis wants a password; put it into KB_REDIS_URL (redis://:password@host)"),
    ("WRONGPASS", PermissionDeniedError, "Redis refused the user or password; check KB_REDIS_URL"),
    ("NOPERM", PermissionDeniedError, "the Redis user may not run this command or touch these keys"),
    ("OOM", UnavailableError, "Redis has reached its memory limit; raise maxmemory or delete facts"),
    ("READONLY", UnavailableError, "this Redis is a read-only replica; connect to the primary"),
    ("MASTERDOWN", UnavailableError, "this Redis has lost its primary; retry when the failover is done"),
    ("LOADING", UnavailableError, "Redis is loading its data; retry in a moment"),
    ("CLUSTERDOWN", UnavailableError, "the Redis cluster is down; retry when it has recovered"),
    ("TRYAGAIN", UnavailableError, "the Redis cluster is moving slots; retry in a moment"),
    ("BUSY", UnavailableError, "Redis is busy running a script; retry in a moment"),
    ("MISCONF", UnavailableError, "Redis cannot write its data to disk and refuses writes; mend its disk"),
    ("NOREPLICAS", UnavailableError, "Redis has too few replicas and refuses writes; mend its replication"),
    ("unknown command 'FT.", ServerRequirementError, ""),
    ("unknown command `FT.", ServerRequirementError, ""),
    (TOO_MANY_CLIENTS, OverloadedError, "Redis connections"),
)

PIPELINE_PREFIX = " of pipeline caused error: "
"""Ends what the driver puts before the server's text when a command was one of a pipeline."""

NO_SEARCH_MODULE = (
    "this Redis has no query engine (RediSearch); use Redis 8, Redis Stack or the embedded server "
    "(unset KB_REDIS_URL and install knowledge-base[embedded])"
)


def is_failure(error: BaseException) -> bool:
    """Tells whether an error says that Redis cannot be reached, as opposed to an answer that refuses.

    Args:
        error: What the driver raised.
    """
    if isinstance(error, driver.BusyLoadingError | driver.AuthenticationError | driver.AuthorizationError):
        return False
    return isinstance(
        error, driver.ConnectionError | driver.TimeoutError | driver.InvalidResponse | ConnectionError | TimeoutError
    )


def is_lost_connection(error: BaseException) -> bool:
    """Tells whether an established connection died under an exchange, which a fresh one may survive.

    Args:
        error: What the driver raised.
    """
    cause = driver_cause(error)
    if not isinstance(cause, driver.ConnectionError | ConnectionError) or not is_failure(cause):
        return False
    if TOO_MANY_CLIENTS in str(cause):
        return False
    never_connected = (driver.MaxConnectionsError, ConnectionRefusedError, FileNotFoundError)
    return not isinstance(cause, never_connected) and not isinstance(cause.__context__, never_connected)


def translated(error: Exception, operation: str) -> KnowledgeBaseError | None:
    """Returns our error for one of the driver's, or None for an answer that is about the data.

    Args:
        error: What the driver raised.
        operation: The command, as named in messages.
    """
    for driver_type, own_type, message in _BY_TYPE:
        if isinstance(error, driver_type):
            return own_type(message)
    text = str(error).rpartition(PIPELINE_PREFIX)[2].lstrip("('\"")
    for prefix, own_type, message in _BY_PREFIX:
        if text.startswith((prefix, "ERR " + prefix)):
            return own_type(message or NO_SEARCH_MODULE)
    if isinstance(error, driver.ResponseError) and "Timeout limit was reached" in text:
        return OperationTimeoutError(operation, 0.5, "the server's own search timeout")
    if isinstance(error, driver.InvalidResponse):
        return UnavailableError("what answers there does not speak Redis; check KB_REDIS_URL")
    if isinstance(error, driver.TimeoutError):
        return UnavailableError(f"Redis did not answer {operation} in time; retry when it is reachable")
    if is_failure(error):
        return UnavailableError(f"Redis cannot be reached ({operation}); check that it runs, and KB_REDIS_URL")
    return None


def driver_cause(error: BaseException) -> BaseException:
    """Returns the driver's error that another library has wrapped, or the error itself.

    Args:
        error: What the other library raised.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, driver.RedisError | ConnectionError | TimeoutError):
            found: BaseException = cause
            inner = cause.__cause__
            # What aborts a transaction is the command's own error, not its consequence.
            if isinstance(inner, driver.RedisError) and not isinstance(inner, driver.ExecAbortError):
                found = inner
            return found
        cause = cause.__cause__ or cause.__context__
    return error
