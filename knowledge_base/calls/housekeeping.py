"""The calls that keep a base in order: duplicates, retention, namespaces."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from knowledge_base.calls.base import Calls
from knowledge_base.errors import InvalidInputError
from knowledge_base.facts import validation
from knowledge_base.types import (
    BulkResult,
    DuplicateReport,
    NamespaceReport,
    NamespaceStats,
    Progress,
    PrunedBy,
)

if TYPE_CHECKING:
    from llama_index.core.vector_stores.types import MetadataFilters

MOST_GROUPS = 100_000
TIMES = ("updated_at", "created_at")


class HousekeepingCalls(Calls):
    """Calls of whoever runs the base: they see and change what every principal stored."""

    async def find_duplicates(
        self,
        threshold: float = 0.95,
        *,
        limit: int = 1_000,
        namespace: str | None = None,
        filters: Mapping[str, Any] | MetadataFilters | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> DuplicateReport:
        """Finds facts that say nearly the same, by their vectors; nothing is changed.

        A group is a fact and those that are near to it; each fact is in one group at most. Two facts of several
        passages are as near as their passages are on average.

        Args:
            threshold: Least cosine similarity to the first fact of a group.
            limit: Groups after which it ends.
            filters: Only facts that match.
            progress: Called with how many facts are done and how many there are.

        Returns:
            The groups: ids, similarities and times, no content.

        Raises:
            UnavailableError: The index was rebuilt meanwhile; begin anew.
        """
        where = self._namespace(namespace)
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0.5 <= threshold <= 1.0:
            raise InvalidInputError("threshold", "must be a number from 0.5 to 1")
        validation.checked_number("limit", limit, 1, MOST_GROUPS)
        clause = self._filters.clause(filters)
        async with self._services.call("find_duplicates", timeout, self.settings.timeouts.job) as services:
            return await services.duplicates.run(where, threshold, clause, limit=limit, progress=progress)

    async def prune_facts(
        self,
        older_than: float | timedelta,
        by: PrunedBy = "updated_at",
        *,
        filters: Mapping[str, Any] | MetadataFilters | None = None,
        dry_run: bool = False,
        namespace: str | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> BulkResult:
        """Deletes the facts that are older than some time, whoever may see them; documents stay.

        Args:
            older_than: Seconds, or a ``timedelta``.
            by: Which time counts: ``"updated_at"`` or ``"created_at"``.
            filters: Only facts that match.
            dry_run: Whether to count only.
            progress: Called with how many are done so far.

        Returns:
            How many are so old (``processed``) and were, or would be, deleted (``succeeded``).
        """
        where = self._namespace(namespace)
        seconds = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 1e10:
            raise InvalidInputError("older_than", "must be seconds, or a timedelta, of 0 or more")
        if by not in TIMES:
            raise InvalidInputError("by", f"must be one of {', '.join(TIMES)}")
        clause = self._filters.clause(filters)
        async with self._services.call("prune_facts", timeout, self.settings.timeouts.job) as services:
            return await services.pruning.run(where, seconds, by, clause, dry_run=dry_run, progress=progress)

    async def list_namespaces(self, *, timeout: float | None = None) -> list[NamespaceStats]:
        """Returns what is in each namespace, in order of name."""
        async with self._services.call("list_namespaces", timeout, self.settings.timeouts.check) as services:
            return await services.namespaces.all()

    async def drop_namespace(
        self, namespace: str, *, confirm: str, progress: Progress | None = None, timeout: float | None = None
    ) -> NamespaceReport:
        """Removes a namespace with its facts, documents, history and indices, for good.

        Writers and readers of the namespace are refused until it is gone; whoever writes thereafter begins a new one.

        Args:
            namespace: The namespace.
            confirm: The same name once more.
            progress: Called with how many keys are removed so far.

        Raises:
            InvalidInputError: ``confirm`` is another name, or there is no such namespace.
            UnavailableError: Redis could not be reached; the namespace stays off until the same call is made again.
        """
        where = validation.checked_namespace(namespace)
        if confirm != where:
            raise InvalidInputError("confirm", "must repeat the name of the namespace that is to be dropped")
        async with self._services.call("drop_namespace", timeout, self.settings.timeouts.job) as services:
            if await services.namespaces.one(where) is None:
                raise InvalidInputError("namespace", f"there is no namespace {where!r}")
            return await services.namespaces.drop(where, progress)

    async def copy_namespace(
        self, source: str, target: str, *, progress: Progress | None = None, timeout: float | None = None
    ) -> NamespaceReport:
        """Copies a namespace, which may be in use meanwhile: ids, versions, times, history, vectors and documents.

        Args:
            source: Where from.
            target: Where to; must not exist. A copy that was broken off is gone on with by the same call.
            progress: Called with how many facts and documents are done and how many there are.

        Raises:
            InvalidInputError: There is no such source, or the target exists.
            UnavailableError: Somebody else is copying there, or Redis could not be reached.
        """
        names = self._two_names(source, target)
        async with self._services.call("copy_namespace", timeout, self.settings.timeouts.job) as services:
            return await services.copies.copy(*names, progress)

    async def rename_namespace(
        self, source: str, target: str, *, progress: Progress | None = None, timeout: float | None = None
    ) -> NamespaceReport:
        """Moves everything of a namespace to another name.

        It is copied while it is in use; then it is off while what was changed meanwhile follows and both are compared.

        Args:
            source: The old name.
            target: The new name; must not exist. A call that was broken off is gone on with by the same call.
            progress: Called with how many facts and documents are done and how many there are.

        Raises:
            InvalidInputError: There is no such source, or the target exists.
            UnavailableError: Somebody else is at it, or Redis could not be reached.
        """
        names = self._two_names(source, target)
        async with self._services.call("rename_namespace", timeout, self.settings.timeouts.job) as services:
            return await services.copies.rename(*names, progress)

    def _two_names(self, source: str, target: str) -> tuple[str, str]:
        names = validation.checked_namespace(source), validation.checked_namespace(target)
        if names[0] == names[1]:
            raise InvalidInputError("target", "must be another name than the source")
        return names
