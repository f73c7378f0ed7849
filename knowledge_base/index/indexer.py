"""The indexer: gives passages their vectors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import Call, LuaScript
from knowledge_base.embedding.embeddings import Embeddings
from knowledge_base.errors import IndexMismatchError
from knowledge_base.index.generations import MOVES, GenerationMovedError, Generations
from knowledge_base.index.joint_inserts import JointInserts
from knowledge_base.index.pending import PendingFacts
from knowledge_base.index.schema import VECTOR_FIELD, Generation
from knowledge_base.index.vector_index import EmbeddedPassage, VectorIndex
from knowledge_base.keyspace import Keyspace, PartName

Result = TypeVar("Result")

PASSAGES_AT_ONCE = 128
"""Passages that are embedded and written before what they complete is settled."""


class PassageSet(NamedTuple):
    """The passages of one revision of a fact."""

    fact_id: str
    revision: str
    texts: Sequence[str]


class Indexer:
    """Embeds passages and writes their vectors.

    Args:
        manager: The connections.
        generations: Where each namespace's passages live.
        embeddings: Make the vectors.
        vectors: Writes them.
        pending: The record of what waits for vectors.
        inserts: Inserts under way at once, those of jobs apart; the others wait.
        insert_timeout: Seconds that an insert may take at most, its wait for a turn included.
    """

    def __init__(
        self,
        manager: AsyncRedisManager,
        generations: Generations,
        embeddings: Embeddings,
        vectors: VectorIndex,
        pending: PendingFacts,
        *,
        inserts: int,
        insert_timeout: float,
    ) -> None:
        self._manager = manager
        self._generations = generations
        self._embeddings = embeddings
        self._pending = pending
        self._inserts = JointInserts(vectors, at_once=inserts, timeout=insert_timeout)
        self._settle = LuaScript("knowledge_base.index", "settle", repeatable=True)

    async def close(self) -> None:
        """Ends the inserts that are under way."""
        await self._inserts.close()

    async def generation(self, namespace: str) -> Generation:
        """Returns the generation that is written to, made for the configured model on the first write.

        Args:
            namespace: The namespace.

        Raises:
            IndexMismatchError: The index was built with another model or dimension.
            EmbeddingUnavailableError: The model's dimension is not known and cannot be asked for.
        """
        generation = await self._generations.current(namespace)
        if generation is None or not await self._can_embed(generation):
            identity = await self._embeddings.current.identity()
            generation = generation or await self._generations.ensure(namespace, identity.model, identity.dimension)
            if (generation.model, generation.dimension) != identity:
                raise IndexMismatchError(namespace, f"{identity.model}/{identity.dimension}", generation.identity)
        return await self._generations.ensure(namespace, generation.model, generation.dimension)

    async def in_generation(self, namespace: str, work: Callable[[Generation], Awaitable[Result]]) -> Result:
        """Does something in the generation that is written to; again when another one became live meanwhile.

        Args:
            namespace: The namespace.
            work: What to do; must be harmless when it is repeated.

        Returns:
            What the work returned.

        Raises:
            GenerationMovedError: Yet another one became live.
            IndexMismatchError: The index was built with another model or dimension.
            EmbeddingUnavailableError: The model's dimension is not known and cannot be asked for.
        """
        for _ in range(MOVES - 1):
            try:
                return await work(await self.generation(namespace))
            except GenerationMovedError:
                self._generations.forget(namespace)
        return await work(await self.generation(namespace))

    async def _can_embed(self, generation: Generation) -> bool:
        service = await self._embeddings.serving(generation.model, generation.dimension)
        return await service.may_make(generation.model, generation.dimension)

    async def embed_ahead(self, generation: Generation, item: PassageSet) -> None:
        """Embeds and writes the passages of a revision that a fact is to be switched to.

        Args:
            generation: Where to.
            item: The passages.

        Raises:
            UnavailableError: The model or Redis could not be reached.
        """
        await self._pending.expect(generation.namespace, item.fact_id, item.revision)
        await self.embed(generation, [item])

    async def index(
        self, generation: Generation, sets: Sequence[PassageSet], *, only_missing: bool = False
    ) -> list[bool]:
        """Embeds passages, writes their vectors and marks the facts as indexed.

        Args:
            generation: Where to.
            sets: The passages of facts that are recorded as pending.
            only_missing: Whether to look first which passages have their vectors already.

        Returns:
            For each, whether the fact is indexed now.

        Raises:
            UnavailableError: The model or Redis could not be reached; the facts stay recorded as pending.
        """
        indexed: list[bool] = []
        with self._pending.held(generation.namespace, [item.fact_id for item in sets]):
            for group in passage_groups(sets):
                await self.embed(generation, group, only_missing=only_missing)
                indexed += await self.settle(generation, group)
        return indexed

    async def settle(self, generation: Generation, sets: Sequence[PassageSet]) -> list[bool]:
        """Marks facts as indexed whose vectors are there; takes back what came too late.

        Args:
            generation: Where the vectors were written.
            sets: The passages.

        Returns:
            For each, whether the fact is indexed now.
        """
        keys = Keyspace(generation.namespace)
        client = await self._manager.main()
        calls: list[Call] = [
            (
                [
                    *(keys.fact(item.fact_id), keys.pending, keys.attempts, keys.inserts, keys.parked),
                    *(keys.generation, keys.rebuild, keys.changed),
                ],
                [
                    item.fact_id,
                    item.revision,
                    len(item.texts),
                    f"{generation.passage_prefix}:{item.fact_id}:{item.revision}:",
                    generation.number,
                ],
            )
            for item in sets
        ]
        replies = [await self._settle(client, *calls[0])] if len(calls) == 1 else await self._settle.many(client, calls)
        return [reply == 1 for reply in replies]

    async def embed(self, generation: Generation, sets: Sequence[PassageSet], *, only_missing: bool = False) -> None:
        """Embeds passages and writes their vectors; settles nothing.

        Args:
            generation: Where to.
            sets: The passages.
            only_missing: Whether to look first which passages have their vectors already.

        Raises:
            IndexMismatchError: The vectors are not as long as those of the generation.
            UnavailableError: The model or Redis could not be reached.
        """
        names = [PartName(item.fact_id, item.revision, at) for item in sets for at in range(len(item.texts))]
        texts = [text for item in sets for text in item.texts]
        if only_missing:
            there = await self._have_vectors(generation, names)
            texts = [text for text, is_there in zip(texts, there, strict=True) if not is_there]
            names = [name for name, is_there in zip(names, there, strict=True) if not is_there]
        service = await self._embeddings.serving(generation.model, generation.dimension)
        for begin in range(0, len(texts), PASSAGES_AT_ONCE):
            some = slice(begin, begin + PASSAGES_AT_ONCE)
            vectors = await service.embed_passages(texts[some], generation.namespace)
            if len(vectors[0]) != generation.dimension:
                # The server would take it, and index nothing.
                given = f"{generation.model}/{len(vectors[0])}"
                raise IndexMismatchError(generation.namespace, given, generation.identity)
            rows = [EmbeddedPassage(*row) for row in zip(names[some], texts[some], vectors, strict=True)]
            await self._inserts.insert(generation, rows)

    async def _have_vectors(self, generation: Generation, names: Sequence[PartName]) -> list[bool]:
        client = await self._manager.main()
        found: list[bool] = []
        for begin in range(0, len(names), PASSAGES_AT_ONCE):
            pipeline = client.pipeline(transaction=False)
            for name in names[begin : begin + PASSAGES_AT_ONCE]:
                pipeline.hexists(f"{generation.passage_prefix}:{name.node_id}", VECTOR_FIELD)
            found += await pipeline.execute()
        return found


def passage_groups(sets: Sequence[PassageSet]) -> Iterator[list[PassageSet]]:
    """Yields facts in groups that are embedded and settled together.

    Args:
        sets: The passages of the facts.
    """
    group: list[PassageSet] = []
    passages = 0
    for item in sets:
        if group and passages + len(item.texts) > PASSAGES_AT_ONCE:
            yield group
            group, passages = [], 0
        group.append(item)
        passages += len(item.texts)
    if group:
        yield group
