"""``KnowledgeBase``: each method checks its arguments, opens the deadline, and asks one collaborator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from knowledge_base.connection.deadline import deadline
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.errors import InvalidInputError
from knowledge_base.facts import validation
from knowledge_base.facts.draft import draft_fact
from knowledge_base.facts.writer import FactChange
from knowledge_base.index.filters import FilterCompiler
from knowledge_base.retrieval.searcher import SearchRequest
from knowledge_base.services import Services
from knowledge_base.settings import Settings
from knowledge_base.types import (
    BulkResult,
    DetailedStats,
    Fact,
    FactVersion,
    Health,
    IntegrityReport,
    Metadata,
    OnDuplicate,
    Progress,
    SearchMode,
    SearchResults,
    Stats,
    StoreResult,
)

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.vector_stores.types import MetadataFilters


class KnowledgeBase:
    """Facts in Redis, found again by meaning and by words.

    Nothing is done before ``start()``, which the first call implies. Every call takes ``timeout``, its whole budget
    in seconds; without one, ``Settings.timeouts`` has it. ``namespace`` is ``Settings.namespace`` where none is given.
    ``principals`` says who is asking: a fact that has principals is only seen by a caller who brings one of them.
    ``filters`` is a mapping, as ``docs/how-to/search.md`` shows, or LlamaIndex ``MetadataFilters``.

    All calls may raise ``InvalidInputError`` for a refused argument, ``OperationTimeoutError`` when their budget is
    spent, ``UnavailableError`` when Redis cannot be reached, ``CircuitOpenError`` when it could not be reached
    repeatedly, and ``OverloadedError`` when too much is waiting.

    Args:
        settings: All settings; from the environment where none are given.
        redis: A connection manager to share; closed by whoever made it.
        embed_model: A LlamaIndex embedding to use instead of the one that the settings name.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        redis: AsyncRedisManager | None = None,
        embed_model: BaseEmbedding | None = None,
    ) -> None:
        self.settings = settings or (redis.settings if redis is not None else Settings())
        self._filters = FilterCompiler(self.settings.limits.filter_clauses)
        self._services = Services(self.settings, redis=redis, embed_model=embed_model)

    async def start(self) -> None:
        """Connects, begins to load the embedding model, and starts to index what was left pending.

        Raises:
            UnavailableError: Redis cannot be reached; the next call tries again.
            PermissionDeniedError: Redis refused the user or password.
            ServerRequirementError: The embedded server cannot run here.
        """
        async with deadline("start", self.settings.timeouts.start):
            await self._services.start()
        self._services.preload()

    async def close(self) -> None:
        """Ends every task, thread and connection within ``timeouts.close``; unfinished indexing goes on elsewhere."""
        await self._services.close()

    async def __aenter__(self) -> KnowledgeBase:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

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
            generation = await services.generations.current(where)
            if generation is None:
                return False
            return await services.repository.delete(generation, fact_id, who, expected_version)

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

    async def search(
        self,
        query: str,
        top_k: int = 10,
        *,
        mode: SearchMode = "hybrid",
        namespace: str | None = None,
        principals: Iterable[str] | None = None,
        filters: Mapping[str, Any] | MetadataFilters | None = None,
        min_score: float | None = None,
        timeout: float | None = None,
    ) -> SearchResults:
        """Returns the best passages, one a fact.

        Args:
            query: What is asked, in the user's words; nothing in it is taken for an operator.
            top_k: How many hits at most.
            mode: "hybrid" (by meaning and words), "vector" (by meaning) or "text" (by words).
            min_score: The least ``score`` of a hit, from 0 to 1.

        Returns:
            The hits, best first. ``degraded`` names the retrievers of a hybrid search that could not answer.

        Raises:
            IndexMismatchError: The namespace was built with another embedding model.
            EmbeddingUnavailableError: In mode "vector", the model gave no vector.
        """
        limits = self.settings.limits
        validation.checked_choice("mode", mode, validation.MODES)
        self._filters.clause(filters)
        request = SearchRequest(
            namespace=self._namespace(namespace),
            query=validation.checked_text("query", query, limits.query_chars),
            mode=mode,
            top_k=validation.checked_number("top_k", top_k, 1, limits.top_k),
            principals=self._principals(principals),
            filters=filters,
            min_score=validation.checked_score(min_score),
        )
        async with self._services.call("search", timeout, self.settings.timeouts.search) as services:
            return await services.searcher.search(request, self.settings.timeouts.search)

    async def get_stats(self, *, namespace: str | None = None, timeout: float | None = None) -> Stats:
        """Returns the counts of a namespace; they are kept, not scanned for."""
        where = self._namespace(namespace)
        async with self._services.call("get_stats", timeout, self.settings.timeouts.stats) as services:
            return await services.statistics.counts(where)

    async def get_detailed_stats(self, *, namespace: str | None = None, timeout: float | None = None) -> DetailedStats:
        """Returns the counts of a namespace, per tag and source, and the state of what serves it.

        They count what every principal stored: show them to whoever runs the base.
        """
        where = self._namespace(namespace)
        async with self._services.call("get_detailed_stats", timeout, self.settings.timeouts.stats) as services:
            return await services.statistics.details(where)

    async def health(self, *, timeout: float | None = None) -> Health:
        """Says which part is ill; raises nothing that an ill part causes.

        Returns:
            ``live`` is whether this process does its work; ``ready`` whether searches and stores can be served now:
            Redis answers, the query engine searches, the index was built with the configured model, the model gives
            vectors, and there is room. Each part says what it found and how long that took.
        """
        limit = self.settings.timeouts.health if timeout is None else validation.checked_seconds("timeout", timeout)
        return await self._services.health(limit)

    async def check_integrity(
        self,
        *,
        repair: bool = False,
        namespace: str | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> IntegrityReport:
        """Counts the facts that still wait to be found by meaning, and lists those that were given up.

        Args:
            repair: Whether those that were given up are tried again.
            progress: Called with how many facts are done and how many there are.

        Returns:
            The counts; of each fact that was given up, why, after how many attempts and when.
        """
        where = self._namespace(namespace)
        async with self._services.call("check_integrity", timeout, self.settings.timeouts.check) as services:
            return await services.integrity.run(where, repair=repair, progress=progress)

    def _namespace(self, namespace: str | None) -> str:
        return self.settings.namespace if namespace is None else validation.checked_namespace(namespace)

    def _principals(self, principals: Iterable[str] | None) -> Sequence[str]:
        return validation.checked_principals(principals, self.settings.limits)

    def _check_version(self, expected_version: int | None) -> None:
        if expected_version is not None:
            validation.checked_number("expected_version", expected_version, 1, 2**53)
