"""The format of a context: numbered passages that nothing in a passage can be mistaken for.

A passage begins with its number in square brackets at the beginning of a line, and with its source where it has one;
each line of its content is indented by two spaces. A blank line stands between passages. Within contents and sources
numbers in square brackets, such as those of footnotes, stand in round ones, so that each ``[2]`` of the text is the
number of a passage.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from knowledge_base.retrieval.chunk_selection import Chunk
from knowledge_base.types import Citation

BETWEEN = "\n\n"
INDENT = "  "
NUMBERS = re.compile(r"\[(?=[\s,;\u2013\u2014-]*\d)([\s\d,;\u2013\u2014-]+)\]")


def passage_text(number: int, chunk: Chunk) -> str:
    """Returns a numbered passage.

    Args:
        number: Its number.
        chunk: The passage.
    """
    origin = ", ".join(part for part in (chunk.record.source, chunk.place.section_title) if part)
    heading = f"[{number}] {_without_numbers(' '.join(origin.split()))}".rstrip()
    lines = [line.rstrip() for line in _without_numbers(chunk.content).splitlines()]
    return "\n".join([heading, *(f"{INDENT}{line}" for line in lines if line)])


def context_text(chunks: Sequence[Chunk]) -> str:
    """Returns the passages, numbered from 1 on.

    Args:
        chunks: The passages, best first.
    """
    return BETWEEN.join(passage_text(number, chunk) for number, chunk in enumerate(chunks, start=1))


def citation(number: int, chunk: Chunk) -> Citation:
    """Returns what stands behind a number.

    Args:
        number: The number.
        chunk: The passage.
    """
    place = chunk.place
    return {
        "number": number,
        "fact_id": chunk.record.fact_id,
        "document_id": chunk.record.document_id,
        "source": chunk.record.source,
        "content": chunk.content,
        "similarity": chunk.similarity,
        "chunk_index": chunk.first.position,
        "section_title": place.section_title,
        "page_start": place.page_start,
        "page_end": place.page_end,
    }


def _without_numbers(text: str) -> str:
    return NUMBERS.sub(r"(\1)", text)
