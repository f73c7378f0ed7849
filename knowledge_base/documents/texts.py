"""The text of a document: as one Markdown text, and as the compressed pieces that it is kept in."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence

from knowledge_base.connection.giving_way import giving_way
from knowledge_base.documents.blocks import Block

PIECE_CHARACTERS = 65_536
"""Characters of JSON that are compressed together; so many take a millisecond or two."""

LEVEL = 3
FENCE = "```"


def packed(blocks: Sequence[Block]) -> list[bytes]:
    """Returns blocks in compressed pieces; takes a while for much text, so it is to be called in a thread.

    Args:
        blocks: The blocks.
    """
    return [zlib.compress(piece.encode(), LEVEL) for piece in giving_way(_pieces(_lines(blocks)))]


def unpacked(pieces: Iterable[bytes]) -> list[Block]:
    """Returns the blocks that were packed; to be called in a thread.

    Args:
        pieces: What ``packed`` gave, in order.
    """
    text = "".join(zlib.decompress(piece).decode() for piece in giving_way(pieces))
    return [Block(*json.loads(line)) for line in giving_way(text.split("\n")) if line]


def as_text(blocks: Iterable[Block]) -> str:
    """Returns blocks as Markdown: headings with their marks, code between fences, everything else as it is.

    Args:
        blocks: The blocks.
    """
    return "\n\n".join(_as_text(block) for block in giving_way(blocks))


def _as_text(block: Block) -> str:
    if block.kind == "heading":
        return f"{'#' * min(6, max(1, block.level))} {' '.join(block.text.split())}"
    if block.kind == "code":
        fence = FENCE
        while fence in block.text:
            fence += "`"
        return f"{fence}\n{block.text}\n{fence}"
    return block.text


def _lines(blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        yield json.dumps(list(block), ensure_ascii=False, separators=(",", ":")) + "\n"


def _pieces(lines: Iterable[str]) -> Iterator[str]:
    waiting: list[str] = []
    characters = 0
    for line in lines:
        # A character is cut nowhere: pieces are put together before they are read.
        for begin in range(0, len(line), PIECE_CHARACTERS):
            waiting.append(line[begin : begin + PIECE_CHARACTERS])
            characters += len(waiting[-1])
            if characters >= PIECE_CHARACTERS:
                yield "".join(waiting)
                waiting, characters = [], 0
    if waiting:
        yield "".join(waiting)
