"""Choosing passages until enough are found or the budget is spent, and merging those that stand side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from knowledge_base.facts.records import FactRecord
from knowledge_base.index.passages import join_passages
from knowledge_base.keyspace import PartName
from knowledge_base.retrieval.chunk_candidates import PassageCandidate
from knowledge_base.retrieval.chunk_passages import beside
from knowledge_base.retrieval.folding import Folding
from knowledge_base.retrieval.places import NOWHERE, Place, joined_place
from knowledge_base.settings import RetrievalConfig
from knowledge_base.types import ChunkWithContext


class Chunk(NamedTuple):
    """Neighbouring passages of one fact, as one text."""

    record: FactRecord
    first: PartName
    content: str
    similarity: float
    place: Place = NOWHERE
    """Where in its document it stands."""

    def with_tokens(self, tokens: int) -> ChunkWithContext:
        """Returns what callers get.

        Args:
            tokens: Tokens of the content.
        """
        place = self.place
        return {
            "id": self.first.node_id,
            "doc_id": self.record.document_id or self.record.fact_id,
            "chunk_index": self.first.position,
            "content": self.content,
            "section_path": list(place.section_path),
            "section_title": place.section_title,
            "page_start": place.page_start,
            "page_end": place.page_end,
            "similarity": self.similarity,
            "tokens": tokens,
        }


Cost: TypeAlias = Callable[[Chunk], int]
"""Returns what of the budget a chunk takes."""


class _Group(NamedTuple):
    rank: int
    names: tuple[PartName, ...]
    chunk: Chunk
    cost: int


class ChunkSelection:
    """What was chosen so far. Counting takes milliseconds: to be used in a thread.

    Args:
        config: How much is wanted, and whether neighbours are merged.
        cost: Says what each chunk takes of the budget.
    """

    def __init__(self, config: RetrievalConfig, cost: Cost) -> None:
        self._config = config
        self._cost = cost
        self._groups: dict[PartName, _Group] = {}
        self._chosen: list[PartName] = []
        self._records: dict[str, FactRecord] = {}
        self._similarities: dict[PartName, float] = {}
        self._texts: dict[PartName, str] = {}
        self._places: dict[PartName, Place] = {}
        self._folding = Folding()
        self._spent = 0
        self.refused = 0
        """Passages that did not fit into the budget."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was chosen."""
        return not self._chosen

    @property
    def is_full(self) -> bool:
        """Whether as many passages are chosen as are wanted."""
        return len(self._chosen) >= self._config.max_chunks

    def offer(
        self,
        candidates: Sequence[PassageCandidate],
        records: Mapping[str, FactRecord],
        texts: Mapping[PartName, str],
        places: Mapping[PartName, Place] | None = None,
    ) -> int:
        """Chooses the next best passages that are new and fit.

        Args:
            candidates: Passages of facts that are current, best first.
            records: The facts, by id.
            texts: The passages' texts, and those of their neighbours.
            places: Where in their documents they stand, as far as they are from some.

        Returns:
            How many were chosen.
        """
        self._records.update(records)
        self._texts.update(texts)
        self._places.update(places or {})
        chosen_before = len(self._chosen)
        for name, similarity in candidates:
            if self.is_full:
                break
            if name not in self._texts or self._is_known(name):
                continue
            self._similarities[name] = similarity
            if self._fits_in(name):
                self._chosen.append(name)
            else:
                self.refused += 1
        return len(self._chosen) - chosen_before

    def chunks(self) -> list[Chunk]:
        """Returns the chunks, best first, with the neighbours that the budget allows."""
        if self._config.merge_neighbours:
            for name in self._chosen:
                # First what follows: what is asked for is more often begun in a passage than ended there.
                for near in reversed(beside(name)):
                    if near in self._texts and near not in self._groups and not self._is_known(near):
                        self._fits_in(near)
        groups = {group.rank: group for group in self._groups.values()}
        return [groups[rank].chunk for rank in sorted(groups)]

    def _is_known(self, name: PartName) -> bool:
        return self._folding.is_said(name, self._texts[name])

    def _fits_in(self, name: PartName) -> bool:
        absorbed = self._adjacent(name) if self._config.merge_neighbours else []
        group = self._joined(name, absorbed)
        spent = self._spent - sum(one.cost for one in absorbed) + group.cost
        if spent > self._config.token_budget:
            return False
        self._spent = spent
        self._folding.add(name, self._texts[name])
        self._groups.update(dict.fromkeys(group.names, group))
        return True

    def _adjacent(self, name: PartName) -> list[_Group]:
        found = {self._groups[near].rank: self._groups[near] for near in beside(name) if near in self._groups}
        return list(found.values())

    def _joined(self, name: PartName, absorbed: Sequence[_Group]) -> _Group:
        names = sorted({name, *(one for group in absorbed for one in group.names)}, key=lambda one: one.position)
        record = self._records[name.fact_id]
        content = join_passages([self._texts[one] for one in names], record.content)
        similarity = max(self._similarities.get(one, 0.0) for one in names)
        places = [self._places.get(one, NOWHERE) for one in names]
        best = max(names, key=lambda one: self._similarities.get(one, 0.0))
        place = joined_place(places, self._places.get(best, NOWHERE))
        chunk = Chunk(record, names[0], content, similarity, place)
        rank = min((group.rank for group in absorbed), default=len(self._chosen))
        return _Group(rank, tuple(names), chunk, self._cost(chunk))
