"""The smallest pieces of a document: what a passage is put together from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from time import sleep
from typing import Any, NamedTuple, TypeAlias

from knowledge_base.connection.giving_way import giving_way
from knowledge_base.documents.blocks import Block
from knowledge_base.heavy_imports import import_heavy
from knowledge_base.index.passages import MOST_TOKENS_A_CHARACTER, Tokenizer

Count: TypeAlias = Callable[[str], int]
"""Returns how many tokens a text has at most."""

HEADING = 100
"""The strength of the place before a heading of level 0; that of others is less by their level."""
BLOCK = 50
LINE_AFTER_BLANK, LINE, INDENTED_LINE = 4, 3, 2
SENTENCE = 3
WORD = 1
GLUED = 0
"""Between a heading and what follows it, be it another heading."""

SENTENCE_ENDS = re.compile(r"(?<=[.!?])[\"')\]\u2019\u201d]*\s+|(?<=[\u3002\uff01\uff1f])\s*|\n+")
TIGHT = 0.8
"""A cut within a word or sentence that is too long leaves so much of a passage's room unused."""


class Unit(NamedTuple):
    """A piece that is never cut."""

    text: str
    tokens: int
    strength: int
    """How good a place the one before it is to cut at."""
    path: tuple[str, ...]
    page: int | None
    gap: str
    """What stands between the one before and this."""
    begins_block: bool = True
    header: str | None = None
    """The first line of the table that it is from."""
    is_sentence: bool = False
    level: int = 0
    """Of a heading, 1 to 6; else 0."""
    reserved: int = 0
    """Tokens that a passage which begins with it, in the middle of a block, needs for what is repeated there."""


def counting(tokenizer: Tokenizer | None) -> Count:
    """Returns what counts tokens.

    Args:
        tokenizer: The embedding model's own, or None for LlamaIndex's default.
    """
    utils: Any = import_heavy("llama_index.core.utils") if tokenizer is None else None
    tokenize: Tokenizer = utils.get_tokenizer() if tokenizer is None else tokenizer

    def count(text: str) -> int:
        # Between two texts, whoever waits for the interpreter goes first.
        sleep(0)
        return len(tokenize(text))

    return count


class UnitMaker:
    """Takes blocks apart as far as they do not fit into a passage.

    Args:
        count: Counts tokens.
        tokens: Tokens of a passage at most.
        overlap: Tokens that neighbours within a paragraph share at most.
    """

    def __init__(self, count: Count, tokens: int, overlap: int) -> None:
        self._count = count
        self._tokens = tokens
        self._overlap = overlap

    def units(self, blocks: Sequence[Block]) -> list[Unit]:
        """Returns the units of a document, in order.

        Args:
            blocks: Its blocks in reading order.
        """
        units: list[Unit] = []
        headings: list[tuple[int, str]] = []
        after_heading = False
        for block in giving_way(blocks):
            if not block.text.strip():
                continue
            if block.kind == "heading":
                level = _level(block)
                headings = [outer for outer in headings if outer[0] < level]
                headings.append((level, " ".join(block.text.split())))
            path = tuple(title for _, title in headings)
            own = self._of(block, path)
            if after_heading:
                own[0] = own[0]._replace(strength=GLUED)
            elif block.kind == "heading":
                own[0] = own[0]._replace(strength=HEADING - _level(block))
            units += own
            after_heading = block.kind == "heading"
        return units

    def _of(self, block: Block, path: tuple[str, ...]) -> list[Unit]:
        text = block.text.strip("\n")
        tokens = self._count_up_to(text)
        if tokens <= self._tokens:
            return [Unit(text, tokens, BLOCK, path, block.page, "\n\n", level=_level(block))]
        if block.kind in ("heading", "paragraph"):
            pieces = list(self._sentences(text, path, block.page))
        else:
            pieces = list(self._lines(block, text, path))
        first = pieces[0]
        return [first._replace(strength=BLOCK, gap="\n\n", begins_block=True), *pieces[1:]]

    def _count_up_to(self, text: str) -> int:
        # A token has one character at least, mostly; what is far too long need not be counted.
        if len(text) * MOST_TOKENS_A_CHARACTER <= self._tokens // 8:
            return max(1, len(text) * MOST_TOKENS_A_CHARACTER)
        if len(text) > self._tokens * 64:
            return self._tokens + 1
        return self._count(text)

    def _lines(self, block: Block, text: str, path: tuple[str, ...]) -> Iterator[Unit]:
        lines = text.split("\n")
        header = lines[0] if block.kind == "table" and len(lines) > 1 else None
        reserved = 0 if header is None else self._count(header) + 1
        if reserved > self._tokens // 2:
            header, reserved = None, 0
        was_blank = False
        for at, line in enumerate(giving_way(lines)):
            strength = INDENTED_LINE if line[:1].isspace() else LINE_AFTER_BLANK if was_blank else LINE
            was_blank = not line.strip()
            tokens = self._count_up_to(line) if line else 0
            if tokens + reserved <= self._tokens:
                begins = at == 0
                yield Unit(line, tokens, strength, path, block.page, "\n", begins, header, reserved=reserved)
                continue
            for place, piece in enumerate(self._fitting(line, self._tokens - reserved)):
                own = strength if place == 0 else WORD
                gap = "\n" if place == 0 else ""
                count = self._count(piece)
                yield Unit(piece, count, own, path, block.page, gap, False, header, reserved=reserved)

    def _sentences(self, text: str, path: tuple[str, ...], page: int | None) -> Iterator[Unit]:
        begin = 0
        ends = [found.end() for found in SENTENCE_ENDS.finditer(text)]
        for end in giving_way([*ends, len(text)]):
            sentence = text[begin:end]
            begin = end
            if not sentence:
                continue
            room = self._tokens - self._overlap
            tokens = self._count_up_to(sentence)
            pieces = [sentence] if tokens <= room else self._fitting(sentence, room)
            for place, piece in enumerate(pieces):
                count = tokens if len(pieces) == 1 else self._count(piece)
                strength = SENTENCE if place == 0 else WORD
                yield Unit(
                    piece, count, strength, path, page, "", False, None, is_sentence=True, reserved=self._overlap
                )

    def _fitting(self, text: str, room: int) -> list[str]:
        """Cuts between words, else anywhere, so that each piece fits."""
        pieces: list[str] = []
        begin = 0
        size = max(1, room)
        while begin < len(text):
            piece = text[begin : begin + size * 4]
            count = self._count(piece)
            if count > room:
                piece = piece[: max(1, int(len(piece) * room / count * TIGHT))]
                while len(piece) > 1 and self._count(piece) > room:
                    piece = piece[: len(piece) // 2]
            if begin + len(piece) < len(text):
                space = piece.rfind(" ")
                if space > len(piece) // 2:
                    piece = piece[: space + 1]
            pieces.append(piece)
            begin += len(piece)
        return pieces


def _level(block: Block) -> int:
    return min(6, max(1, block.level)) if block.kind == "heading" else 0
