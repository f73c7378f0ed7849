"""Source code: a block per definition where that is cheap, else per group of lines."""

from __future__ import annotations

import ast
import warnings
from itertools import pairwise
from pathlib import PurePath

from knowledge_base.documents.blocks import ExtractedDocument
from knowledge_base.documents.encodings import decode_text
from knowledge_base.documents.readers.block_list import BlockList, cleaned
from knowledge_base.documents.readers.request import ReadRequest

GROUP_CHARACTERS = 2_000
_PYTHON = {".py", ".pyi"}


def read(data: bytes, request: ReadRequest) -> ExtractedDocument:
    """Reads source code; the file's stem is the title.

    Args:
        data: The bytes of the file.
        request: What is known of it.

    Raises:
        UnreadableFileError: It is no text, or has none.
    """
    path = PurePath(request.name)
    lines = cleaned(decode_text(data)).split("\n")
    is_python = path.suffix.lower() in _PYTHON
    blocks = BlockList(request.max_characters)
    for first, last in (_python_parts(lines) if is_python else None) or _blank_line_groups(lines):
        blocks.add("code", "\n".join(lines[first:last]))
    return blocks.document(title=path.stem or None, media_type="text/x-python" if is_python else "text/x-source")


def _python_parts(lines: list[str]) -> list[tuple[int, int]] | None:
    """Returns the lines of each definition, and of what stands between them; None when it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse("\n".join(lines)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    cuts = [0]
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
            while first > cuts[-1] and lines[first - 1].startswith("#"):
                first -= 1
            cuts += [first, node.end_lineno or node.lineno]
    cuts.append(len(lines))
    return [(first, last) for first, last in pairwise(cuts) if first < last]


def _blank_line_groups(lines: list[str]) -> list[tuple[int, int]]:
    """Returns groups of lines that end at a blank line before a line that is not indented."""
    groups: list[tuple[int, int]] = []
    start, size, last_cut = 0, 0, 0
    for number, line in enumerate(lines):
        is_cut = number > start and not lines[number - 1].strip() and line[:1] not in ("", " ", "\t", "}", ")")
        if is_cut:
            if size > GROUP_CHARACTERS and last_cut > start:
                groups.append((start, last_cut))
                size -= sum(len(line) + 1 for line in lines[start:last_cut])
                start = last_cut
            last_cut = number
        size += len(line) + 1
    if size > GROUP_CHARACTERS and last_cut > start:
        groups.append((start, last_cut))
        start = last_cut
    groups.append((start, len(lines)))
    return groups
