"""``Calls``: what every group of public calls needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from knowledge_base.facts import validation
from knowledge_base.index.filters import FilterCompiler
from knowledge_base.services import Services
from knowledge_base.settings import Settings


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

    def _principals(self, principals: Iterable[str] | None) -> Sequence[str]:
        return validation.checked_principals(principals, self.settings.limits)
