"""Cutting documents along their structure into passages that the embedding model reads whole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from knowledge_base.connection.giving_way import giving_way
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.documents.blocks import Block
from knowledge_base.documents.places import places_to_cut
from knowledge_base.documents.units import Unit, UnitMaker, counting
from knowledge_base.index.language_guess import ENGLISH
from knowledge_base.index.passages import SECTION_PASSAGES, Tokenizer
from knowledge_base.index.polyglot import AUTO, Polyglot
from knowledge_base.settings import ChunkingSettings

CUT_VERSION = 1
"""Counts how often it changed where the same document is cut with the same settings."""


class Passage(NamedTuple):
    """A passage of a document, and where it stands there."""

    text: str
    section_path: tuple[str, ...]
    """Titles of the headings that it stands under, the outermost first."""
    page_start: int | None
    page_end: int | None


class DocumentCut(NamedTuple):
    """A document in parts: passages to be embedded and shown, and the stems of each section of them."""

    passages: list[Passage]
    sections: list[str]


class DocumentChunker:
    """Cuts documents at their headings, else between blocks, else between lines or sentences.

    Whether a document is cut at a place depends on what stands beside it, not on how much stands before: a change in
    one paragraph changes the passages that hold it and, at most, their neighbours in the same section.

    Args:
        settings: How long passages are.
        threads: Where documents are cut.
        polyglot: Gives the stems.
    """

    def __init__(self, settings: ChunkingSettings, threads: WorkloadThreads, polyglot: Polyglot) -> None:
        self._settings = settings
        self._threads = threads
        self._polyglot = polyglot

    def signature(self, model_tokens: int | None) -> str:
        """Returns what tells one way of cutting from another.

        Args:
            model_tokens: How many tokens the model reads, or None when unknown.
        """
        language = self._polyglot.told or AUTO
        return f"{CUT_VERSION}/{self._tokens(model_tokens)}/{self._settings.overlap_tokens}/{language}"

    async def cut(
        self,
        blocks: Sequence[Block],
        *,
        tokenizer: Tokenizer | None,
        model_tokens: int | None,
        limit: float,
        likely: str = ENGLISH,
    ) -> DocumentCut:
        """Returns the parts of a document, in order; without any where it has no text.

        Args:
            blocks: Its blocks in reading order.
            tokenizer: The embedding model's own, or None for LlamaIndex's default.
            model_tokens: How many tokens the model reads, or None when unknown.
            limit: Seconds that it may take.
            likely: The language to take for sections that do not show their own.

        Raises:
            OperationTimeoutError: It took longer.
            OverloadedError: Too many documents wait already.
        """
        return await self._threads.to_thread(
            self._cut,
            blocks,
            tokenizer,
            self._tokens(model_tokens),
            likely,
            step="cutting a document into passages",
            limit=limit,
        )

    def _tokens(self, model_tokens: int | None) -> int:
        return min(self._settings.passage_tokens, model_tokens or self._settings.passage_tokens)

    def _cut(self, blocks: Sequence[Block], tokenizer: Tokenizer | None, tokens: int, likely: str) -> DocumentCut:
        overlap = min(self._settings.overlap_tokens, tokens // 4)
        units = UnitMaker(counting(tokenizer), tokens, overlap).units(blocks)
        begins = [0, *places_to_cut(units, tokens), len(units)] if units else []
        pieces = [units[begin:end] for begin, end in pairwise(begins)]
        before: Sequence[Unit] = ()
        passages: list[Passage] = []
        for piece in giving_way(pieces):
            passages.append(_passage(piece, before, tokens, overlap))
            before = piece
        return DocumentCut(passages, self._sections(passages, likely))

    def _sections(self, passages: Sequence[Passage], likely: str) -> list[str]:
        texts = [passage.text for passage in passages]
        groups = [texts[begin : begin + SECTION_PASSAGES] for begin in range(0, len(texts), SECTION_PASSAGES)]
        likely = self._polyglot.likely(texts, likely)
        return [self._polyglot.section("\n".join(group), likely) for group in giving_way(groups)]


def _passage(units: Sequence[Unit], before: Sequence[Unit], tokens: int, overlap: int) -> Passage:
    first = units[0]
    room = tokens - sum(unit.tokens for unit in units)
    text = "".join(unit.text if at == 0 else unit.gap + unit.text for at, unit in enumerate(units))
    if first.header is not None and not first.begins_block:
        text = f"{first.header}\n{text}"
    elif first.is_sentence and not first.begins_block:
        text = _repeated(before, min(room, overlap)) + text
    pages = [unit.page for unit in units if unit.page is not None]
    return Passage(text.strip("\n"), _common_path(units), min(pages, default=None), max(pages, default=None))


def _repeated(before: Sequence[Unit], room: int) -> str:
    """Returns the last sentences of the passage before, as many as there is room for."""
    taken: list[str] = []
    for unit in reversed(before):
        room -= unit.tokens
        if room < 0 or not unit.is_sentence:
            break
        taken.append(unit.text)
        if unit.begins_block:
            break
    return "".join(reversed(taken))


def _common_path(units: Sequence[Unit]) -> tuple[str, ...]:
    # Headings in a row say where the text after them stands, not where the first of them does.
    paths = [unit.path for unit in units if not unit.level] or [units[-1].path]
    shared = paths[0]
    for path in paths:
        while path[: len(shared)] != shared:
            shared = shared[:-1]
    # What holds several sections without one around them is named after the first of them.
    return shared or paths[0]
