"""Retention: facts that are too old go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Sequence
from typing import NamedTuple

from knowledge_base.connection.admission import Admission
from knowledge_base.connection.hashes import read_hashes
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import call_outside, job
from knowledge_base.errors import UnavailableError, VersionConflictError
from knowledge_base.facts.repository import FactRepository
from knowledge_base.index.filters import WEIGHTLESS
from knowledge_base.index.generations import Generations
from knowledge_base.index.schema import POSITION_FIELD, SEQ_FIELD, Generation
from knowledge_base.index.text_index import TextIndex
from knowledge_base.keyspace import Keyspace
from knowledge_base.types import BulkResult, Progress, PrunedBy

PAGE = 200
"""Facts that are looked for at a time."""

AT_ONCE = 8
"""Deletions under way at once; the server does one after the other, and takes the vectors out of its index."""

FIELDS = ("version", "principals", "created_at", "document")


class _Old(NamedTuple):
    fact_id: str
    version: int
    principals: Sequence[str]
    created_at: int


class Pruning:
    """Deletes the facts of a namespace that are older than some time, whoever may see them.

    Args:
        manager: The connections.
        repository: Deletes facts.
        texts: Finds facts by their times.
        generations: Where each namespace's passages are.
        admission: The places of jobs.
        wait: Seconds to wait for a place.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        repository: FactRepository,
        texts: TextIndex,
        generations: Generations,
        admission: Admission,
        *,
        wait: float,
    ) -> None:
        self._manager = manager
        self._repository = repository
        self._texts = texts
        self._generations = generations
        self._admission = admission
        self._wait = wait

    async def run(
        self,
        namespace: str,
        older_than: float,
        by: PrunedBy,
        clause: str,
        *,
        dry_run: bool,
        progress: Progress | None,
    ) -> BulkResult:
        """Deletes facts.

        Args:
            namespace: Where.
            older_than: Seconds; from now, when the call begins.
            by: Which time counts.
            clause: Compiled filter that they must pass as well; blank for none.
            dry_run: Whether to count only.
            progress: Called after each page with how many are done so far.

        Returns:
            How many are so old (``processed``) and were, or would be, deleted (``succeeded``).
        """
        result: BulkResult = {"processed": 0, "succeeded": 0, "duplicates": 0, "failed": [], "completed": True}
        oldest_kept = self._repository.now() - int(older_than * 1000)
        scope = f"{clause} @{by}:[-inf ({oldest_kept}]{WEIGHTLESS} @{POSITION_FIELD}:[0 0]"
        async with self._admission.place(self._wait):
            with job():
                try:
                    await self._prune(namespace, scope, result, dry_run=dry_run, progress=progress)
                except UnavailableError:
                    if not result["processed"]:
                        raise
                    result["completed"] = False
        return result

    async def _prune(
        self, namespace: str, scope: str, result: BulkResult, *, dry_run: bool, progress: Progress | None
    ) -> None:
        seq: float | None = 0.0
        while seq is not None:
            generation = await self._generations.current(namespace)
            if generation is None:
                return
            query = f"({scope} @{SEQ_FIELD}:[({seq:.0f} +inf])"
            ids, seq = await self._texts.oldest(generation, query, PAGE)
            old = await self._read(namespace, ids)
            for begin in range(0, len(old), AT_ONCE):
                some = old[begin : begin + AT_ONCE]
                outcomes: list[bool | BaseException] = [True] * len(some)
                if not dry_run:
                    deleting = (self._delete(namespace, fact) for fact in some)
                    outcomes = await asyncio.gather(*deleting, return_exceptions=True)
                _note(some, outcomes, result)
            if progress is not None:
                call_outside(progress, result["processed"], result["processed"])

    async def _read(self, namespace: str, fact_ids: Sequence[str]) -> list[_Old]:
        client = await self._manager.main()
        keys = [Keyspace(namespace).fact(fact_id) for fact_id in fact_ids]
        rows = [row async for some in read_hashes(client, keys, FIELDS) for row in some]
        # Documents go with the files they come from.
        return [
            _Old(fact_id, int(version), json.loads(principals or "[]"), int(created_at or 0))
            for fact_id, (version, principals, created_at, document) in zip(fact_ids, rows, strict=True)
            if version is not None and not document
        ]

    async def _delete(self, namespace: str, fact: _Old) -> bool:
        # What was changed since it was found may be young again.
        def delete(generation: Generation) -> Awaitable[bool]:
            return self._repository.delete(generation, fact.fact_id, fact.principals, fact.version, fact.created_at)

        return await self._generations.in_live(namespace, delete, nothing=False)


def _note(facts: Sequence[_Old], outcomes: Sequence[bool | BaseException], result: BulkResult) -> None:
    failure: BaseException | None = None
    for fact, outcome in zip(facts, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            if not isinstance(outcome, VersionConflictError):
                failure = outcome
                continue
            result["failed"].append({"id": fact.fact_id, "error": str(outcome)})
        else:
            result["succeeded"] += int(outcome)
        result["processed"] += 1
    if failure is not None:
        raise failure
