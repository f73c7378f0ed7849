"""Many facts in one call: each stands or falls by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import groupby, islice
from typing import Any, NamedTuple

from knowledge_base.clock import stored_time
from knowledge_base.connection.admission import Admission
from knowledge_base.connection.driver_errors import translated
from knowledge_base.connection.one_behind import OneBehind
from knowledge_base.connection.workload import call_outside, job
from knowledge_base.errors import InvalidInputError, KnowledgeBaseError, UnavailableError, VersionConflictError
from knowledge_base.facts.draft import FactDraft, draft_item
from knowledge_base.facts.parts import Described, FactParts, PartMaker
from knowledge_base.facts.reader import FactReader
from knowledge_base.facts.repository import FactRepository
from knowledge_base.facts.writer import FactWriter, first_passages
from knowledge_base.index.background import BackgroundIndexer
from knowledge_base.index.generations import GenerationMovedError, Generations
from knowledge_base.index.indexer import Indexer, PassageSet
from knowledge_base.index.schema import Generation
from knowledge_base.settings import Limits, Timeouts
from knowledge_base.types import BulkResult, Failure, Progress

BATCH = 64
"""Facts that go to Redis, and to the model, at a time."""


SHORT = 4_000
"""Characters of a content up to which it is cut in one go with others; a longer one takes ten milliseconds and more."""


class _Item(NamedTuple):
    place: int
    draft: FactDraft
    parts: FactParts


class BulkWriter:
    """Stores and deletes many facts.

    Args:
        writer: Knows how one fact is stored.
        parts: Makes the parts of facts.
        repository: Where facts are kept.
        reader: Finds what is to be deleted.
        indexer: Gives passages their vectors.
        background: Completes what has to wait for them.
        generations: Where each namespace's passages are.
        timeouts: The caps of the steps.
        limits: The limits.
    """

    def __init__(
        self,
        writer: FactWriter,
        parts: PartMaker,
        repository: FactRepository,
        reader: FactReader,
        indexer: Indexer,
        background: BackgroundIndexer,
        generations: Generations,
        timeouts: Timeouts,
        limits: Limits,
    ) -> None:
        self._writer = writer
        self._parts = parts
        self._repository = repository
        self._reader = reader
        self._indexer = indexer
        self._background = background
        self._generations = generations
        self._limits = limits
        self._wait = timeouts.bulk
        self.admission = Admission("jobs", limits.concurrent_jobs, limits.waiting_jobs)

    async def store(self, facts: Iterable[Any], namespace: str, progress: Progress | None) -> BulkResult:
        """Stores facts in batches and indexes each batch.

        Args:
            facts: Mappings with the arguments of ``store_fact`` as keys.
            namespace: Used where an item names none.
            progress: Called after each batch.

        Returns:
            The counts; ``completed`` is False when the call's budget or Redis cut it short.

        Raises:
            InvalidInputError: ``facts`` is no list of mappings.
        """
        if isinstance(facts, str | bytes) or not isinstance(facts, Iterable):
            raise InvalidInputError("facts", "must be a list of mappings")
        total = len(facts) if isinstance(facts, Sequence) else 0
        result = _empty_result()
        items = enumerate(facts)
        async with self._job(), OneBehind() as indexing:
            while batch := call_outside(_next_batch, items):
                async with _cut_short(result):
                    await self._store_batch(batch, namespace, result, indexing)
                if not result["completed"]:
                    break
                _report(progress, result["processed"], total or result["processed"])
                await asyncio.sleep(0)
        return result

    async def delete(
        self,
        namespace: str,
        filters: Any,
        principals: Sequence[str],
        *,
        dry_run: bool,
        progress: Progress | None,
    ) -> BulkResult:
        """Deletes the visible facts that match a filter.

        Args:
            namespace: Where.
            filters: What they must match; the caller has refused an empty one.
            principals: Who is asking.
            dry_run: Whether to count only.
            progress: Called after each page.

        Returns:
            The counts.
        """
        result = _empty_result()
        async with self._job():
            await self._delete(result, namespace, filters, principals, dry_run=dry_run, progress=progress)
        return result

    @asynccontextmanager
    async def _job(self) -> AsyncIterator[None]:
        async with self.admission.place(self._wait):
            with job():
                yield

    async def _delete(
        self,
        result: BulkResult,
        namespace: str,
        filters: Any,
        principals: Sequence[str],
        *,
        dry_run: bool,
        progress: Progress | None,
    ) -> None:
        seq: float | None = 0.0
        while seq is not None and result["completed"]:
            async with _cut_short(result):
                page, seq = await self._reader.page_after(namespace, principals, filters, seq)
                for fact in page:
                    try:
                        # What was changed since it matched may match no longer.
                        deleted = dry_run or await self._writer.delete(
                            namespace, fact["id"], principals, fact["version"], stored_time(fact["created_at"])
                        )
                    except (VersionConflictError, UnavailableError) as error:
                        if isinstance(error, UnavailableError) and not result["processed"]:
                            raise
                        result["processed"] += 1
                        result["failed"].append({"id": fact["id"], "error": str(error)})
                        if isinstance(error, UnavailableError):
                            raise
                        continue
                    result["processed"] += 1
                    result["succeeded"] += int(deleted)
                _report(progress, result["processed"], result["processed"])

    async def _store_batch(
        self, batch: Sequence[tuple[int, Any]], namespace: str, result: BulkResult, indexing: OneBehind
    ) -> None:
        drafts: list[tuple[int, FactDraft]] = []
        refused: dict[int, KnowledgeBaseError] = {}
        for index, raw in batch:
            try:
                drafts.append((index, draft_item(raw, namespace, self._limits)))
            except InvalidInputError as error:
                refused[index] = error
            # Checking one takes up to some milliseconds.
            await asyncio.sleep(0)
        drafts.sort(key=lambda drafted: drafted[1].namespace)
        groups: list[tuple[str, list[_Item]]] = []
        for name, group in groupby(drafts, key=lambda drafted: drafted[1].namespace):
            items: list[_Item] = []
            for (index, draft), parts in await self._with_parts(name, list(group)):
                if isinstance(parts, InvalidInputError):
                    refused[index] = parts
                else:
                    items.append(_Item(index, draft, parts))
            groups.append((name, items))
        for index in sorted(refused):
            _fail(result, index, refused[index])
        for name, items in groups:
            if items:
                await self._store_group(name, items, result, indexing)

    async def _with_parts(
        self, namespace: str, drafts: Sequence[tuple[int, FactDraft]]
    ) -> list[tuple[tuple[int, FactDraft], FactParts | InvalidInputError]]:
        """Returns drafts with their parts: those of short facts made together, since each way to a thread costs."""
        short = [drafted for drafted in drafts if len(drafted[1].content) <= SHORT]
        described = [Described(d.content, d.metadata, d.tags, d.source, d.principals) for _, d in short]
        made: dict[int, FactParts | InvalidInputError] = {}
        if short:
            parts = await self._parts.make_all(namespace, described, self._parts.limit)
            made.update(zip((index for index, _ in short), parts, strict=True))
        for index, draft in drafts:
            if index not in made:
                try:
                    made[index] = await self._parts.make(
                        namespace, draft.content, draft.metadata, draft.tags, draft.source, draft.principals
                    )
                except InvalidInputError as error:
                    made[index] = error
        return [(drafted, made[drafted[0]]) for drafted in drafts]

    async def _store_group(
        self, namespace: str, group: Sequence[_Item], result: BulkResult, indexing: OneBehind
    ) -> None:
        generation = await self._indexer.generation(namespace)
        try:
            generation, replies = await self._replies(generation, group)
            new, stop = await self._counted(group, replies, result)
        except BaseException:
            # Some or all of them may be written; those that are not, the background does not find on record.
            self._leave(namespace, [item.draft.fact_id for item in group])
            raise
        if new:
            left = partial(self._leave, namespace, [item.fact_id for item in new])
            await indexing.begin(partial(self._index, generation, new), left)
        if stop is not None:
            raise stop

    async def _counted(
        self, group: Sequence[_Item], replies: Sequence[Any], result: BulkResult
    ) -> tuple[list[PassageSet], KnowledgeBaseError | None]:
        """Counts what came of facts, and returns the passages of the new ones and what ends the call, if anything."""
        new: list[PassageSet] = []
        stop: KnowledgeBaseError | None = None
        for item, reply in zip(group, replies, strict=True):
            try:
                if isinstance(reply, KnowledgeBaseError):
                    raise reply
                if isinstance(reply, Exception):
                    raise translated(reply, "store") or KnowledgeBaseError("the fact could not be stored") from reply
                if reply.status == "success":
                    new.append(first_passages(item.draft, item.parts))
                    status = "success"
                else:
                    status = (await self._writer.resolve_duplicate(item.draft, reply))["status"]
            except KnowledgeBaseError as error:
                _fail(result, item.place, error)
                stop = error if error.retryable else stop
                continue
            result["processed"] += 1
            result["succeeded" if status == "success" else "duplicates"] += 1
        return new, stop

    async def _replies(self, generation: Generation, group: Sequence[_Item]) -> tuple[Generation, list[Any]]:
        replies = await self._repository.store(generation, [(item.draft, item.parts) for item in group])
        moved = [at for at, reply in enumerate(replies) if isinstance(reply, GenerationMovedError)]
        if moved:
            self._generations.forget(generation.namespace)
            generation = await self._indexer.generation(generation.namespace)
            again = await self._repository.store(generation, [(group[at].draft, group[at].parts) for at in moved])
            for at, reply in zip(moved, again, strict=True):
                replies[at] = reply
        return generation, replies

    async def _index(self, generation: Generation, sets: Sequence[PassageSet]) -> None:
        try:
            await self._indexer.index(generation, sets)
        except UnavailableError:
            self._leave(generation.namespace, [item.fact_id for item in sets])

    def _leave(self, namespace: str, fact_ids: Sequence[str]) -> None:
        # Stored, found by words, and recorded as pending: the background completes them.
        self._background.leave(namespace, fact_ids)


def _next_batch(items: Iterator[tuple[int, Any]]) -> list[tuple[int, Any]]:
    return list(islice(items, BATCH))


def _empty_result() -> BulkResult:
    return {"processed": 0, "succeeded": 0, "duplicates": 0, "failed": [], "completed": True}


def _fail(result: BulkResult, index: int, error: Exception) -> None:
    failure: Failure = {"index": index, "error": str(error)}
    result["processed"] += 1
    result["failed"].append(failure)


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        call_outside(progress, done, total)


@asynccontextmanager
async def _cut_short(result: BulkResult) -> AsyncIterator[None]:
    done_before = result["processed"]
    try:
        yield
    except UnavailableError:
        if not result["processed"] and not done_before:
            raise
        result["completed"] = False
