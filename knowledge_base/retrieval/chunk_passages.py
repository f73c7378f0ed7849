"""Reading what chunks are made of: vectors to compare, and texts with their neighbours."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from knowledge_base.connection.hashes import HashGroup, read_bytes, read_hash_groups
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.facts.draft import passage_count
from knowledge_base.facts.records import FactRecord
from knowledge_base.facts.repository import FactRepository
from knowledge_base.index.schema import VECTOR_FIELD, Generation
from knowledge_base.keyspace import PartName
from knowledge_base.retrieval.chunk_candidates import StoredPassage
from knowledge_base.retrieval.places import PLACE_FIELDS, Place, decode_place

TEXT_FIELD = "text"


class PassagesWithFacts(NamedTuple):
    """What was read of passages."""

    records: dict[str, FactRecord]
    """Their facts, by id."""
    texts: dict[PartName, str]
    places: dict[PartName, Place]
    """Where in their documents they stand, as far as they are from some."""


class ChunkPassages:
    """Reads the passages of a generation, and the facts that they are from.

    Args:
        manager: The connections.
        repository: Where the facts are kept.
    """

    def __init__(self, manager: AsyncRedisManager, repository: FactRepository) -> None:
        self._manager = manager
        self._repository = repository

    async def stored(
        self, generation: Generation, *, vectors: Collection[PartName], texts: Collection[PartName]
    ) -> dict[PartName, StoredPassage]:
        """Returns the vectors of some passages and the texts of others.

        Args:
            generation: Where they are.
            vectors: Those whose vectors are wanted.
            texts: Those whose texts are wanted.

        Raises:
            UnavailableError: Redis could not be reached, or not in time.
        """
        names = list(dict.fromkeys([*vectors, *texts]))
        if not names:
            return {}
        fields = {
            name: [field for field, wanted in ((VECTOR_FIELD, vectors), (TEXT_FIELD, texts)) if name in wanted]
            for name in names
        }
        client = await self._manager.search()
        rows = await read_bytes(client, [(_key(generation, name), fields[name]) for name in names])
        found: dict[PartName, StoredPassage] = {}
        for name, row in zip(names, rows, strict=True):
            values = dict(zip(fields[name], row, strict=True))
            text = values.get(TEXT_FIELD)
            found[name] = StoredPassage(None if text is None else text.decode(), values.get(VECTOR_FIELD))
        return found

    async def with_facts(
        self, generation: Generation, names: Sequence[PartName], principals: Sequence[str], *, neighbours: bool
    ) -> PassagesWithFacts:
        """Returns the facts of passages, and the passages' texts and places, without what is gone or not visible.

        Args:
            generation: Where they are.
            names: The passages.
            principals: Who is asking.
            neighbours: Whether the texts of those before and after each are wanted as well.

        Raises:
            UnavailableError: Redis could not be reached, or not in time.
        """
        fact_ids = list(dict.fromkeys(name.fact_id for name in names))
        wanted = list(dict.fromkeys(near for name in names for near in (beside(name) if neighbours else [name])))
        facts = self._repository.hashes(generation.namespace, fact_ids)
        texts = HashGroup([_key(generation, name) for name in wanted], [TEXT_FIELD, *PLACE_FIELDS])
        client = await self._manager.search()
        fact_rows, text_rows = await read_hash_groups(client, [facts, texts])
        records = await self._repository.visible(fact_ids, fact_rows, principals)
        found = {name: row for name, row in zip(wanted, text_rows, strict=True) if row[0] is not None}
        places = {name: decode_place(row[1:]) for name, row in found.items()}
        return PassagesWithFacts(
            {record.fact_id: record for record in records if record is not None},
            {name: row[0] for name, row in found.items() if row[0] is not None},
            {name: place for name, place in places.items() if place is not None},
        )


def beside(name: PartName) -> list[PartName]:
    """Returns a passage and those before and after it, as far as there are any.

    Args:
        name: The passage.
    """
    end = min(name.position + 2, passage_count(name.revision))
    return [name._replace(position=position) for position in range(max(0, name.position - 1), end)]


def _key(generation: Generation, name: PartName) -> str:
    return f"{generation.passage_prefix}:{name.node_id}"
