"""The calls about facts: storing, reading, changing and deleting them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from knowledge_base.calls.base import Calls
from knowledge_base.errors import InvalidInputError
from knowledge_base.facts import validation
from knowledge_base.facts.draft import draft_fact
from knowledge_base.facts.writer import FactChange
from knowledge_base.types import BulkResult, Fact, FactVersion, Metadata, OnDuplicate, Progress, StoreResult

if TYPE_CHECKING:
    from llama_index.core.vector_stores.types import MetadataFilters


class FactCalls(Calls):
    """Facts; each method checks its arguments, opens the deadline, and asks one collaborator."""

    async def store_fact(
        self,
        content: str,
        metadata: Metadata | None = None,
        *,
        namespace: str | None = None,
        fact_id: str | None = None,
        tags: Iterable[str] = (),
        source: str | None = None,
        principals: Iterable[str] | None = None,
        expires_in: float | timedelta | None = None,
        on_duplicate: OnDuplicate = "return",
        wait_indexed: bool = True,
        timeout: float | None = None,
    ) -> StoreResult:
        """Stores a fact. It is durable, and found by words, when the call returns.

        Args:
            content: The text, 1 000 000 characters at most.
            metadata: A JSON object, 64 KiB at most; copied.
            fact_id: An id of the caller's, matching ``[A-Za-z0-9_.:-]{1,255}``.
            tags: Labels to filter on.
            source: Where the fact comes from.
            principals: Who may see it; without any, everybody in the namespace.
            expires_in: Seconds, or a ``timedelta``, after which it is gone.
            on_duplicate: What to do when the content (for the same principals) or the id is there already:
                ``"return"`` what is there, ``"update"`` it, or raise an ``"error"``.
            wait_indexed: Whether to wait until it is found by meaning as well.

        Returns:
            The status ("success" or "duplicate"), the fact's id and version, and whether it is found by meaning yet.

        Raises:
            VersionConflictError: With ``on_duplicate="error"``, it is there already; else, the id has another content.
            PermissionDeniedError: With ``on_duplicate="update"``, the id belongs to a fact of other principals.
            IndexMismatchError: The namespace was built with another embedding model.
        """
        draft = draft_fact(
            content,
            metadata,
            namespace=self._namespace(namespace),
            limits=self.settings.limits,
            fact_id=fact_id,
            tags=tags,
            source=source,
            principals=principals,
            expires_in=expires_in,
            on_duplicate=on_duplicate,
        )
        async with self._services.call("store_fact", timeout, self.settings.timeouts.store) as services:
            return await services.writer.store(draft, wait_indexed=wait_indexed)

    async def store_facts(
        self,
        facts: Iterable[Mapping[str, Any]],
        *,
        namespace: str | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> BulkResult:
        """Stores many facts; a bad one fails alone.

        Args:
            facts: Mappings with the arguments of ``store_fact`` as keys.
            progress: Called with how many are done and how many there are.

        Returns:
            The counts, and for each that failed its index and why. ``completed`` is False when the call was cut short.

        Raises:
            IndexMismatchError: The namespace was built with another embedding model.
        """
        where = self._namespace(namespace)
        async with self._services.call("store_facts", timeout, self.settings.timeouts.bulk) as services:
            return await services.bulk.store(facts, where, progress)

    async def get_fact(
        self,
        fact_id: str | None = None,
        query: str | None = None,
        *,
        namespace: str | None = None,
        principals: Iterable[str] | None = None,
        filters: Mapping[str, Any] | MetadataFilters | None = None,
        limit: int = 100,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Fact]:
        """Returns facts: one by its id, those that hold a query's words (best first), or all (newest first).

        Args:
            fact_id: The fact; the answer has one or none.
            query: Words to find.
            limit: How many at most.
            offset: How many to skip.
        """
        where = self._namespace(namespace)
        who = self._principals(principals)
        limits = self.settings.limits
        validation.checked_number("limit", limit, 1, limits.page)
        validation.checked_number("offset", offset, 0, limits.offset)
        if query is not None:
            validation.checked_text("query", query, limits.query_chars)
        if fact_id is not None:
            validation.checked_fact_id(fact_id)
            if query is not None or filters:
                field = "query" if query is not None else "filters"
                raise InvalidInputError(field, f"give either fact_id or {field}, not both")
        self._filters.clause(filters)
        async with self._services.call("get_fact", timeout, self.settings.timeouts.get) as services:
            if fact_id is not None:
                return await services.reader.by_id(where, fact_id, who)
            if query is not None:
                return await services.searcher.facts_by_words(where, query, who, filters, limit=limit, offset=offset)
            return await services.reader.newest(where, who, filters, limit=limit, offset=offset)

    async def iter_facts(
        self,
        *,
        namespace: str | None = None,
        principals: Iterable[str] | None = None,
        filters: Mapping[str, Any] | MetadataFilters | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[Fact]:
        """Yields facts, oldest first; each that exists all the while exactly once. ``timeout`` is for each page."""
        where = self._namespace(namespace)
        who = self._principals(principals)
        self._filters.clause(filters)
        place: float | None = 0.0
        while place is not None:
            async with self._services.call("iter_facts", timeout, self.settings.timeouts.get) as services:
                page, place = await services.reader.page_after(where, who, filters, place)
            for fact in page:
                yield fact

    async def update_fact(
        self,
        fact_id: str,
        *,
        content: str | None = None,
        metadata: Metadata | None = None,
        tags: Iterable[str] | None = None,
        source: str | None = None,
        expected_version: int | None = None,
        namespace: str | None = None,
        principals: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> Fact:
        """Changes a fact; what is None stays. The old content is found until the new one is.

        Args:
            fact_id: The fact.
            content: The new text.
            metadata: The new metadata, in place of the old.
            tags: The new tags, in place of the old.
            source: The new source.
            expected_version: The version that the caller has read; without one the last writer wins.

        Returns:
            The fact as it is now.

        Raises:
            FactNotFoundError: It is not there, or not visible.
            VersionConflictError: It has another version, or another fact has the new content.
            IndexMismatchError: The namespace was built with another embedding model.
        """
        where = self._namespace(namespace)
        who = self._principals(principals)
        validation.checked_fact_id(fact_id)
        self._check_version(expected_version)
        change = FactChange.checked(self.settings.limits, content=content, metadata=metadata, tags=tags, source=source)
        async with self._services.call("update_fact", timeout, self.settings.timeouts.update) as services:
            return await services.writer.update(where, fact_id, change, who, expected_version)

    async def delete_fact(
        self,
        fact_id: str,
        *,
        expected_version: int | None = None,
        namespace: str | None = None,
        principals: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Deletes a fact with its history.

        Args:
            fact_id: The fact.
            expected_version: The version that it must have.

        Returns:
            Whether it was there and visible.

        Raises:
            VersionConflictError: It has another version.
        """
        where = self._namespace(namespace)
        who = self._principals(principals)
        validation.checked_fact_id(fact_id)
        self._check_version(expected_version)
        async with self._services.call("delete_fact", timeout, self.settings.timeouts.delete) as services:
            return await services.writer.delete(where, fact_id, who, expected_version)

    async def delete_facts(
        self,
        filters: Mapping[str, Any] | MetadataFilters,
        *,
        dry_run: bool = False,
        namespace: str | None = None,
        principals: Iterable[str] | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> BulkResult:
        """Deletes the visible facts that match a filter; an empty filter is refused.

        Args:
            dry_run: Whether to count only.
            progress: Called with how many are done so far.

        Returns:
            How many matched (``processed``) and were, or would be, deleted (``succeeded``).
        """
        where = self._namespace(namespace)
        who = self._principals(principals)
        if not self._filters.clause(filters):
            raise InvalidInputError("filters", "an empty filter would match every fact; name what is to be deleted")
        async with self._services.call("delete_facts", timeout, self.settings.timeouts.bulk) as services:
            return await services.bulk.delete(where, filters, who, dry_run=dry_run, progress=progress)

    async def get_fact_history(
        self,
        fact_id: str,
        *,
        namespace: str | None = None,
        principals: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> list[FactVersion]:
        """Returns the versions of a fact, the current one first; 20 earlier ones are kept.

        Args:
            fact_id: The fact.

        Raises:
            FactNotFoundError: It is not there, or not visible.
        """
        where = self._namespace(namespace)
        who = self._principals(principals)
        validation.checked_fact_id(fact_id)
        async with self._services.call("get_fact_history", timeout, self.settings.timeouts.get) as services:
            return await services.reader.history(where, fact_id, who)
