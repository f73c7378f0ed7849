"""JSON, as lines that name each value with its path; JSON lines, a row each."""

from __future__ import annotations

import json
from collections.abc import Iterator

from knowledge_base.documents.blocks import ExtractedDocument
from knowledge_base.documents.encodings import decode_text
from knowledge_base.documents.readers.block_list import BlockList, on_one_line
from knowledge_base.documents.readers.request import ReadRequest
from knowledge_base.documents.unreadable import UnreadableFileError

GROUP_CHARACTERS = 2_000
MAX_DEPTH = 100
MAX_VALUES = 2_000_000
_TITLES = ("title", "name")


def read(data: bytes, request: ReadRequest) -> ExtractedDocument:
    """Reads JSON: a line per value, ``path.to[0].it: value``, in lists that end where a top-level entry does.

    Args:
        data: The bytes of the file.
        request: What is known of it.

    Raises:
        UnreadableFileError: It is no JSON, is nested too deeply, or has no values.
    """
    value = _parsed(decode_text(data))
    blocks = BlockList(request.max_characters)
    lines: list[str] = []
    size = 0
    for entry in _entries(value):
        entry_lines = list(_lines(*entry))
        entry_size = sum(map(len, entry_lines))
        if lines and size + entry_size > GROUP_CHARACTERS:
            _add(lines, blocks)
            lines, size = [], 0
        lines += entry_lines
        size += entry_size
    _add(lines, blocks)
    return blocks.document(title=_title(value), media_type="application/json")


def read_lines(data: bytes, request: ReadRequest) -> ExtractedDocument:
    """Reads JSON lines: a table when each line is a flat object, else a line ``name: value | name: value`` each.

    Args:
        data: The bytes of the file.
        request: What is known of it.

    Raises:
        UnreadableFileError: A line is no JSON, or there are no values.
    """
    values = [
        _parsed(line, number) for number, line in enumerate(decode_text(data).split("\n"), start=1) if line.strip()
    ]
    blocks = BlockList(request.max_characters)
    header = _common_header(values)
    if header:
        blocks.add_table(
            [header, *([_scalar(value.get(name)) for name in header] for value in values if isinstance(value, dict))]
        )
    else:
        _add([" | ".join(_lines("", value)) for value in values], blocks)
    return blocks.document(title=None, media_type="application/jsonl")


def _parsed(text: str, line: int | None = None) -> object:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise UnreadableFileError(f"is nested deeper than {MAX_DEPTH} levels", limit=MAX_DEPTH) from None
    except ValueError as error:
        place = line or getattr(error, "lineno", 1)
        raise UnreadableFileError(f"is broken: line {place} is not JSON") from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    # A name that is repeated has all of its values, not the last one alone.
    values: dict[str, list[object]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: several if len(several) > 1 else several[0] for name, several in values.items()}


def _entries(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        for index, element in enumerate(value):
            yield f"[{index}]", element
    else:
        yield "", value


def _lines(path: str, value: object) -> Iterator[str]:
    waiting: list[tuple[int, str, object]] = [(0, path, value)]
    seen = 0
    while waiting:
        depth, at, found = waiting.pop()
        seen += 1
        if depth > MAX_DEPTH:
            raise UnreadableFileError(f"is nested deeper than {MAX_DEPTH} levels", limit=MAX_DEPTH)
        if seen > MAX_VALUES:
            raise UnreadableFileError(f"has more than {MAX_VALUES:,} values in one entry", limit=MAX_VALUES)
        if isinstance(found, dict):
            inner = [(f"{at}.{key}" if at else str(key), child) for key, child in found.items()]
            waiting.extend((depth + 1, name, child) for name, child in reversed(inner))
        elif isinstance(found, list):
            numbered = list(enumerate(found))
            waiting.extend((depth + 1, f"{at}[{index}]", child) for index, child in reversed(numbered))
        else:
            text = _scalar(found)
            if text:
                yield f"{at}: {text}" if at else text


def _scalar(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return on_one_line(value)
    return json.dumps(value) if isinstance(value, (bool, float)) else str(value)


def _common_header(values: list[object]) -> list[str]:
    first = values[0] if values else None
    if not isinstance(first, dict):
        return []
    header = [str(name) for name in first]
    names = set(header)
    return header if all(_is_flat(value, names) for value in values) else []


def _is_flat(value: object, names: set[str]) -> bool:
    if not isinstance(value, dict) or not value.keys() <= names:
        return False
    return not any(isinstance(child, dict | list) for child in value.values())


def _add(lines: list[str], blocks: BlockList) -> None:
    group: list[str] = []
    size = 0
    for line in lines:
        if group and size + len(line) > GROUP_CHARACTERS:
            blocks.add("list", "\n".join(group))
            group, size = [], 0
        group.append(line)
        size += len(line)
    blocks.add("list", "\n".join(group))


def _title(value: object) -> str | None:
    if isinstance(value, dict):
        for name in _TITLES:
            if isinstance(value.get(name), str):
                return str(value[name])
    return None
