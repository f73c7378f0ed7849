"""Every error that the package raises.

::

    KnowledgeBaseError
    ├── InvalidInputError (ValueError)
    ├── FactNotFoundError (KeyError)
    │   └── DocumentNotFoundError
    ├── VersionConflictError
    ├── PermissionDeniedError
    ├── IndexMismatchError
    ├── ServerRequirementError
    └── UnavailableError                        retryable
        ├── OperationTimeoutError (TimeoutError)
        ├── CircuitOpenError
        ├── OverloadedError
        ├── EmbeddingUnavailableError
        └── LLMUnavailableError

Messages name fields, limits and what to do next. They never carry stored content, queries or secrets.
"""

from __future__ import annotations


class KnowledgeBaseError(Exception):
    """The root of every error of this package.

    Attributes:
        retryable: Whether the same call may succeed later without being changed.
    """

    retryable: bool = False


class InvalidInputError(KnowledgeBaseError, ValueError):
    """An argument or a setting was refused; nothing was changed.

    Attributes:
        field: Name of the argument or setting.
        problem: What is wrong with its value.
        limit: The limit that was passed, when there is one.
    """

    def __init__(self, field: str, problem: str, *, limit: float | None = None) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem
        self.limit = limit

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_invalid_input, (self.field, self.problem, self.limit)


def _rebuild_invalid_input(field: str, problem: str, limit: float | None) -> InvalidInputError:
    return InvalidInputError(field, problem, limit=limit)


class FactNotFoundError(KnowledgeBaseError, KeyError):
    """No fact of this id is visible to the caller in this namespace.

    Attributes:
        fact_id: The id that was asked for.
        namespace: The namespace that was searched.
    """

    def __init__(self, fact_id: str, namespace: str) -> None:
        super().__init__(fact_id, namespace)
        self.fact_id = fact_id
        self.namespace = namespace

    def __str__(self) -> str:
        return (
            f"no fact {self.fact_id!r} in namespace {self.namespace!r}; check the id, the namespace and the principals"
        )


class DocumentNotFoundError(FactNotFoundError):
    """No document of this id is visible to the caller in this namespace.

    Attributes:
        fact_id: The id that was asked for.
        namespace: The namespace that was searched.
    """

    def __str__(self) -> str:
        return (
            f"no document {self.fact_id!r} in namespace {self.namespace!r}; "
            "check the id, the namespace and the principals"
        )


class VersionConflictError(KnowledgeBaseError):
    """The fact has changed since the caller read it; nothing was written.

    Attributes:
        fact_id: The fact.
        expected: The version that the caller expected (0: that there is none).
        found: The version that is stored (0: there is none).
    """

    def __init__(self, fact_id: str, expected: int, found: int) -> None:
        super().__init__(fact_id, expected, found)
        self.fact_id = fact_id
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return f"fact {self.fact_id!r}: expected version {self.expected}, found {self.found}; read it again and retry"


class PermissionDeniedError(KnowledgeBaseError):
    """The caller, or the Redis user, may not do this."""


class IndexMismatchError(KnowledgeBaseError):
    """The namespace's index was built with another embedding model or dimension.

    Attributes:
        namespace: The namespace.
        expected: Identity of the configured embedding model, as ``model/dimension``.
        found: Identity that the index was built with.
    """

    def __init__(self, namespace: str, expected: str, found: str) -> None:
        super().__init__(namespace, expected, found)
        self.namespace = namespace
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return (
            f"the index of {self.namespace!r} was built with {self.found}, but {self.expected} is configured: "
            f"build it anew for the configured model (kb reindex --namespace {self.namespace}), configure the model it "
            "was built with (KB_EMBEDDING__MODEL), or use a new namespace (KB_NAMESPACE)"
        )


class ServerRequirementError(KnowledgeBaseError):
    """The Redis server, or what is installed here, lacks something that the package needs."""


class UnavailableError(KnowledgeBaseError):
    """Something that the call needs cannot be reached just now; the same call may succeed later."""

    retryable = True


class OperationTimeoutError(UnavailableError, TimeoutError):
    """The call's budget was spent before it was done.

    Attributes:
        operation: The call.
        budget: Its budget in seconds.
        spent_in: The step in which the budget ran out.
    """

    def __init__(self, operation: str, budget: float, spent_in: str | None = None) -> None:
        super().__init__(operation, budget, spent_in)
        self.operation = operation
        self.budget = budget
        self.spent_in = spent_in

    def __str__(self) -> str:
        where = f" (spent in {self.spent_in})" if self.spent_in else ""
        return f"{self.operation} was not done within {self.budget:.3g} s{where}; retry, or raise its timeout"


class CircuitOpenError(UnavailableError):
    """A dependency failed repeatedly and is not asked again before the next probe.

    Attributes:
        circuit: Name of the circuit that is open.
        retry_after: Seconds until the next probe.
    """

    def __init__(self, circuit: str, retry_after: float) -> None:
        super().__init__(circuit, retry_after)
        self.circuit = circuit
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.circuit} failed repeatedly; the next probe is in {self.retry_after:.1f} s"


class OverloadedError(UnavailableError):
    """Too much is waiting already; the call was not begun.

    Attributes:
        resource: What everybody waits for.
        retry_after: Seconds after which a retry is sensible.
    """

    def __init__(self, resource: str, retry_after: float = 1.0) -> None:
        super().__init__(resource, retry_after)
        self.resource = resource
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.resource}: too much is waiting already; retry in {self.retry_after:.1f} s"


class EmbeddingUnavailableError(UnavailableError):
    """The embedding model did not give a usable vector."""


class LLMUnavailableError(UnavailableError):
    """The LLM gave no answer."""
