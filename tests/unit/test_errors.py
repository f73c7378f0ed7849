"""The exception tree: every name, its place, what it tells, and that it survives a process boundary."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

import knowledge_base
from knowledge_base import errors

TREE: dict[str, tuple[str, ...]] = {
    "KnowledgeBaseError": ("Exception",),
    "InvalidInputError": ("KnowledgeBaseError", "ValueError"),
    "FactNotFoundError": ("KnowledgeBaseError", "KeyError"),
    "DocumentNotFoundError": ("FactNotFoundError",),
    "VersionConflictError": ("KnowledgeBaseError",),
    "PermissionDeniedError": ("KnowledgeBaseError",),
    "IndexMismatchError": ("KnowledgeBaseError",),
    "ServerRequirementError": ("KnowledgeBaseError",),
    "UnavailableError": ("KnowledgeBaseError",),
    "OperationTimeoutError": ("UnavailableError", "TimeoutError"),
    "CircuitOpenError": ("UnavailableError",),
    "OverloadedError": ("UnavailableError",),
    "EmbeddingUnavailableError": ("UnavailableError",),
    "LLMUnavailableError": ("UnavailableError",),
}

EXAMPLES: list[tuple[errors.KnowledgeBaseError, tuple[str, ...]]] = [
    (errors.InvalidInputError("content", "is blank"), ("content", "is blank")),
    (errors.InvalidInputError("top_k", "is above the limit", limit=1000), ("top_k", "limit")),
    (errors.FactNotFoundError("f1", "acme"), ("f1", "acme", "check")),
    (errors.DocumentNotFoundError("d1", "acme"), ("d1", "acme", "check")),
    (errors.VersionConflictError("f1", 3, 5), ("f1", "3", "5", "retry")),
    (errors.PermissionDeniedError("not allowed"), ("not allowed",)),
    (
        errors.IndexMismatchError("acme", "new/8", "old/4"),
        ("acme", "new/8", "old/4", "kb reindex --namespace acme", "KB_EMBEDDING__MODEL"),
    ),
    (errors.ServerRequirementError("no search module"), ("no search module",)),
    (errors.UnavailableError("away"), ("away",)),
    (errors.OperationTimeoutError("search", 2.5, "redis"), ("search", "2.5", "redis", "retry")),
    (errors.CircuitOpenError("redis", 4.25), ("redis", "4.2")),
    (errors.OverloadedError("pool main", 1.5), ("pool main", "1.5")),
    (errors.EmbeddingUnavailableError("no vector"), ("no vector",)),
    (errors.LLMUnavailableError("no answer"), ("no answer",)),
]


def defined_errors() -> dict[str, type[BaseException]]:
    return {
        name: thing
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, BaseException)
    }


def test_the_module_defines_exactly_the_tree() -> None:
    assert {name: tuple(base.__name__ for base in cls.__bases__) for name, cls in defined_errors().items()} == TREE


@pytest.mark.parametrize("name", TREE)
def test_every_error_is_exported_at_the_top(name: str) -> None:
    assert name in knowledge_base.__all__
    assert getattr(knowledge_base, name) is getattr(errors, name)


@pytest.mark.parametrize("name", TREE)
def test_every_error_is_drawn_and_documented(name: str) -> None:
    assert name in (errors.__doc__ or "")
    assert getattr(errors, name).__doc__


@pytest.mark.parametrize(("error", "parts"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_message_says_what_and_what_to_do(error: errors.KnowledgeBaseError, parts: tuple[str, ...]) -> None:
    for part in parts:
        assert part in str(error)


def test_every_error_has_an_example_here() -> None:
    assert {type(error).__name__ for error, _ in EXAMPLES} == set(TREE) - {"KnowledgeBaseError"}


@pytest.mark.parametrize("error", [error for error, _ in EXAMPLES], ids=lambda value: type(value).__name__)
def test_only_unavailability_is_retryable(error: errors.KnowledgeBaseError) -> None:
    assert error.retryable is isinstance(error, errors.UnavailableError)


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
@pytest.mark.parametrize("error", [error for error, _ in EXAMPLES], ids=lambda value: type(value).__name__)
def test_error_survives_being_copied(error: errors.KnowledgeBaseError, again: object) -> None:
    assert callable(again)

    other = again(error)

    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)


def test_builtin_handlers_catch_them_too() -> None:
    with pytest.raises(ValueError, match="content"):
        raise errors.InvalidInputError("content", "is blank")
    with pytest.raises(KeyError):
        raise errors.FactNotFoundError("f1", "acme")
    with pytest.raises(TimeoutError):
        raise errors.OperationTimeoutError("search", 1.0)
