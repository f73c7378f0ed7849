"""``Calls``: what every group of public calls needs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from knowledge_base.errors import InvalidInputError
from knowledge_base.facts import validation
from knowledge_base.index.filters import FilterCompiler
from knowledge_base.services import Services
from knowledge_base.settings import Settings

LONGEST_PATH = 4_096


class Calls:
    """The collaborators, and the checks of the arguments that every call takes.

    Args:
        settings: All settings.
        services: Gives each call its collaborators.
    """

    def __init__(self, settings: Settings, services: Services) -> None:
        self.settings = settings
        self._services = services
        self._filters = FilterCompiler(settings.limits.filter_clauses)

    def _namespace(self, namespace: str | None) -> str:
        return self.settings.namespace if namespace is None else validation.checked_namespace(namespace)

    def _check_version(self, expected_version: int | None) -> None:
        if expected_version is not None:
            validation.checked_number("expected_version", expected_version, 1, 2**53)

    def _principals(self, principals: Iterable[str] | None) -> Sequence[str]:
        return validation.checked_principals(principals, self.settings.limits)


def checked_path(value: Any) -> Path:
    """Returns the path that a caller has given.

    Args:
        value: Text, or anything that has a path as text.

    Raises:
        InvalidInputError: It is none, is empty or too long, or has characters that no path has.
    """
    if not isinstance(value, str | os.PathLike):
        raise InvalidInputError("path", f"must be a path, not {type(value).__name__}")
    text = os.fspath(value)
    if not isinstance(text, str) or not text:
        raise InvalidInputError("path", "must be a path that is not empty")
    validation.refuse_unstorable("path", text)
    if len(text) > LONGEST_PATH:
        raise InvalidInputError("path", f"has more than {LONGEST_PATH} characters", limit=LONGEST_PATH)
    return Path(text)
