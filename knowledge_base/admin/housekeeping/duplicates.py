"""Near duplicates: facts whose passages lie close to each other in the index of vectors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from knowledge_base.clock import iso_time
from knowledge_base.connection.admission import Admission
from knowledge_base.connection.hashes import read_bytes, read_hashes
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import WorkloadThreads, call_outside, job
from knowledge_base.errors import UnavailableError
from knowledge_base.heavy_imports import import_heavy
from knowledge_base.index.generations import Generations, is_missing_index
from knowledge_base.index.schema import POSITION_FIELD, SEQ_FIELD, VECTOR_FIELD, Generation
from knowledge_base.index.text_index import TextIndex
from knowledge_base.keyspace import Keyspace, PartName
from knowledge_base.types import DuplicateFact, DuplicateGroup, DuplicateReport, Progress

PAGE = 64
"""Facts that are looked at together."""

QUERIES_AT_ONCE = 4
"""Neighbourhoods that one round trip asks for; the server answers nobody else meanwhile."""

NEIGHBOURS = (10, 100, 1_000)
"""Passages of a neighbourhood; the next size is asked for when all of them are near."""

LONGEST_PAUSE = 0.02
"""Seconds that others have the server for themselves after a round trip, at most."""

PROBES = 16
"""Passages of a long fact whose neighbourhoods are looked at."""

COMPARED_PASSAGES = 1_000
"""Passages of a fact that are compared with those of another at most."""

COMPARING_SECONDS = 30.0
FIELDS = ("revision", "passages", "version", "created_at", "updated_at", "document", "indexed")
DISTANCE = "distance"


class _Entry(NamedTuple):
    """A fact as it is compared."""

    fact_id: str
    revision: str
    passages: int
    version: int
    created_at: int
    updated_at: int

    def shown(self, similarity: float) -> DuplicateFact:
        return {
            "id": self.fact_id,
            "similarity": min(1.0, round(similarity, 4)),
            "version": self.version,
            "created_at": iso_time(self.created_at),
            "updated_at": iso_time(self.updated_at),
        }


class _Near(NamedTuple):
    name: PartName
    similarity: float


class DuplicateFinder:
    """Looks for facts that say nearly the same, whoever may see them.

    Args:
        manager: The connections.
        generations: Where each namespace's passages are.
        texts: Finds facts by filter.
        threads: Where vectors are compared.
        admission: The places of jobs.
        wait: Seconds to wait for a place.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        generations: Generations,
        texts: TextIndex,
        threads: WorkloadThreads,
        admission: Admission,
        *,
        wait: float,
    ) -> None:
        self._manager = manager
        self._generations = generations
        self._texts = texts
        self._threads = threads
        self._admission = admission
        self._wait = wait

    async def run(
        self, namespace: str, threshold: float, clause: str, *, limit: int, progress: Progress | None
    ) -> DuplicateReport:
        """Groups the facts of a namespace; each is in one group at most.

        Args:
            namespace: Where.
            threshold: Least similarity to the first fact of a group.
            clause: Compiled filter that they must pass; blank for none.
            limit: Groups after which it ends.
            progress: Called after each page with how many facts are done and how many there are.
        """
        report: DuplicateReport = {
            "namespace": namespace,
            "threshold": threshold,
            "facts": 0,
            "not_compared": 0,
            "duplicates": 0,
            "groups": [],
            "completed": True,
        }
        async with self._admission.place(self._wait):
            with job():
                total = int(await (await self._manager.main()).zcard(Keyspace(namespace).facts))
                claimed: dict[str, DuplicateGroup] = {}
                async for generation, entries, looked_at in self._pages(namespace, clause):
                    report["facts"] += len(entries)
                    report["not_compared"] += looked_at - len(entries)
                    async for group in self._groups(generation, entries, threshold, clause, claimed):
                        report["groups"].append(group)
                        if len(report["groups"]) >= limit:
                            report["completed"] = False
                            return _counted(report)
                    if progress is not None:
                        done = report["facts"] + report["not_compared"]
                        call_outside(progress, done, max(done, total))
        return _counted(report)

    async def _pages(self, namespace: str, clause: str) -> AsyncIterator[tuple[Generation, list[_Entry], int]]:
        seq: float | None = 0.0
        keys = Keyspace(namespace)
        newest = await (await self._manager.main()).zrange(keys.facts, 0, 0, desc=True, withscores=True)
        # Whoever keeps pace with the writers never comes to an end.
        last = newest[0][1] if newest else 0.0
        while seq is not None:
            generation = await self._generations.current(namespace)
            if generation is None:
                return
            if clause:
                query = f"({clause} @{POSITION_FIELD}:[0 0] @{SEQ_FIELD}:[({seq:.0f} {last:.0f}])"
                ids, seq = await self._texts.oldest(generation, query, PAGE)
            else:
                client = await self._manager.main()
                rows = await client.zrangebyscore(keys.facts, f"({seq:.0f}", f"{last:.0f}", 0, PAGE, withscores=True)
                ids, seq = [fact_id for fact_id, _ in rows], rows[-1][1] if rows else None
            found = await self._read(namespace, ids)
            facts = [one for one in found if one is not None]
            yield generation, [entry for entry, indexed in facts if indexed], len(facts)

    async def _read(self, namespace: str, fact_ids: Sequence[str]) -> list[tuple[_Entry, bool] | None]:
        client = await self._manager.main()
        keys = [Keyspace(namespace).fact(fact_id) for fact_id in fact_ids]
        rows = [row async for some in read_hashes(client, keys, FIELDS) for row in some]
        return [_entry(fact_id, row) for fact_id, row in zip(fact_ids, rows, strict=True)]

    async def _groups(
        self,
        generation: Generation,
        entries: Sequence[_Entry],
        threshold: float,
        clause: str,
        claimed: dict[str, DuplicateGroup],
    ) -> AsyncIterator[DuplicateGroup]:
        leaders = [entry for entry in entries if entry.fact_id not in claimed]
        near = await self._neighbours(generation, leaders, threshold, clause)
        for leader in leaders:
            if leader.fact_id in claimed or await self._joins(
                generation, leader, near[leader.fact_id], claimed, threshold
            ):
                continue
            others = dict.fromkeys(one.name.fact_id for one in near[leader.fact_id])
            wanted = [fact_id for fact_id in others if fact_id != leader.fact_id and fact_id not in claimed]
            members = await self._members(generation, leader, wanted, near[leader.fact_id], threshold)
            if not members:
                continue
            members.sort(key=lambda pair: (-pair[1], pair[0].fact_id))
            group: DuplicateGroup = {
                "similarity": min(1.0, round(members[-1][1], 4)),
                "facts": [leader.shown(1.0), *(member.shown(similarity) for member, similarity in members)],
            }
            claimed.update((fact["id"], group) for fact in group["facts"])
            yield group

    async def _joins(
        self,
        generation: Generation,
        entry: _Entry,
        near: Sequence[_Near],
        claimed: dict[str, DuplicateGroup],
        threshold: float,
    ) -> bool:
        """Adds a fact to the group of its nearest neighbour: the index does not find each of many that are alike."""
        found = next((claimed[one.name.fact_id] for one in near if one.name.fact_id in claimed), None)
        if found is None:
            return False
        first = (await self._read(generation.namespace, [found["facts"][0]["id"]]))[0]
        similarity = 0.0 if first is None else await self._compared(generation, first[0], entry)
        if similarity < threshold:
            return False
        found["facts"].append(entry.shown(similarity))
        found["facts"].sort(key=lambda fact: -fact["similarity"])
        found["similarity"] = found["facts"][-1]["similarity"]
        claimed[entry.fact_id] = found
        return True

    async def _neighbours(
        self, generation: Generation, leaders: Sequence[_Entry], threshold: float, clause: str
    ) -> dict[str, list[_Near]]:
        near: dict[str, list[_Near]] = {leader.fact_id: [] for leader in leaders}
        probes = [PartName(one.fact_id, one.revision, at) for one in leaders for at in _probed(one.passages)]
        vectors = await self._vectors(generation, probes)
        asked = [(name, vector) for name, vector in zip(probes, vectors, strict=True) if vector]
        for size in NEIGHBOURS:
            crowded: list[tuple[PartName, bytes]] = []
            for begin in range(0, len(asked), QUERIES_AT_ONCE):
                some = asked[begin : begin + QUERIES_AT_ONCE]
                for (name, vector), found in zip(some, await self._search(generation, some, size, clause), strict=True):
                    if len(found) == size and found[-1].similarity >= threshold and size != NEIGHBOURS[-1]:
                        crowded.append((name, vector))
                        continue
                    near[name.fact_id] += [one for one in found if one.similarity >= threshold]
            asked = crowded
        return near

    async def _search(
        self, generation: Generation, asked: Sequence[tuple[PartName, bytes]], size: int, clause: str
    ) -> list[list[_Near]]:
        client = await self._manager.main()
        pipeline = client.pipeline(transaction=False)
        text = f"({clause or '*'})=>[KNN {size} @{VECTOR_FIELD} $vector AS {DISTANCE}]"
        options = ["RETURN", 1, DISTANCE, "SORTBY", DISTANCE, "ASC", "LIMIT", 0, size]
        for _, vector in asked:
            parameters = ["PARAMS", 2, "vector", vector, "DIALECT", 2]
            pipeline.execute_command("FT.SEARCH", generation.vector_index, text, *options, *parameters)
        begun = time.monotonic()
        try:
            replies = await pipeline.execute()
        except ResponseError as error:
            if is_missing_index(error):
                raise UnavailableError("the search index was changed meanwhile; begin anew") from error
            raise
        # A third of the server's time is for others.
        await asyncio.sleep(min(LONGEST_PAUSE, (time.monotonic() - begun) / 2))
        skipped = len(generation.passage_prefix) + 1
        return [
            [
                _Near(PartName.parse(key[skipped:]), 1.0 - float(row[1]))
                for key, row in zip(reply[1::2], reply[2::2], strict=True)
                if row
            ]
            for reply in replies
        ]

    async def _members(
        self,
        generation: Generation,
        leader: _Entry,
        others: Sequence[str],
        near: Sequence[_Near],
        threshold: float,
    ) -> list[tuple[_Entry, float]]:
        if not others:
            return []
        members: list[tuple[_Entry, float]] = []
        best = {one.name.fact_id: one for one in sorted(near, key=lambda one: one.similarity)}
        for fact_id, found in zip(others, await self._read(generation.namespace, others), strict=True):
            # A passage of a document, of a revision that is not current, or of a fact that is gone.
            if found is None or found[0].revision != best[fact_id].name.revision:
                continue
            other = found[0]
            similarity = best[fact_id].similarity
            if leader.passages > 1 or other.passages > 1:
                similarity = await self._compared(generation, leader, other)
            if similarity >= threshold:
                members.append((other, similarity))
        return members

    async def _compared(self, generation: Generation, one: _Entry, other: _Entry) -> float:
        longer, shorter = sorted((one, other), key=lambda entry: -entry.passages)
        if shorter.passages * 2 < longer.passages:
            # The half of what it says cannot be in the other one.
            return 0.0
        vectors = []
        for entry in (longer, shorter):
            names = [
                PartName(entry.fact_id, entry.revision, at) for at in range(min(entry.passages, COMPARED_PASSAGES))
            ]
            vectors.append([vector for vector in await self._vectors(generation, names) if vector])
        if not all(vectors):
            return 0.0
        return await self._threads.to_thread(
            mean_similarity, *vectors, step="comparing two facts", limit=COMPARING_SECONDS
        )

    async def _vectors(self, generation: Generation, names: Sequence[PartName]) -> list[bytes | None]:
        client = await self._manager.main()
        found: list[bytes | None] = []
        for begin in range(0, len(names), PAGE):
            keys = [
                (f"{generation.passage_prefix}:{name.node_id}", [VECTOR_FIELD]) for name in names[begin : begin + PAGE]
            ]
            found += [row[0] for row in await read_bytes(client, keys)]
        return found


def _counted(report: DuplicateReport) -> DuplicateReport:
    report["duplicates"] = sum(len(group["facts"]) - 1 for group in report["groups"])
    return report


def mean_similarity(longer: Sequence[bytes], shorter: Sequence[bytes]) -> float:
    """Returns how near the passages of one fact have theirs in another, on average; takes a thread.

    Args:
        longer: Vectors of the fact with more passages, as float32.
        shorter: Those of the other.
    """
    numpy: Any = import_heavy("numpy")
    one, other = (numpy.array([numpy.frombuffer(vector, dtype="<f4") for vector in some]) for some in (longer, shorter))
    one, other = (some / numpy.linalg.norm(some, axis=1, keepdims=True) for some in (one, other))
    return float((one @ other.T).max(axis=1).mean())


def _probed(passages: int) -> Iterator[int]:
    step = max(1, passages // PROBES)
    yield from range(0, min(passages, step * PROBES), step)


def _entry(fact_id: str, row: Sequence[str | None]) -> tuple[_Entry, bool] | None:
    revision, passages, version, created_at, updated_at, document, indexed = row
    if revision is None or document:
        return None
    times = int(created_at or 0), int(updated_at or 0)
    return _Entry(fact_id, revision, int(passages or 0), int(version or 0), *times), indexed == "1"
