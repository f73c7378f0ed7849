"""Shapes that several groups of calls share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, TypedDict

Progress: TypeAlias = Callable[[int, int], None]
"""Called with what is done and what there is in all."""


Metadata: TypeAlias = Mapping[str, Any]
"""What a caller says about a fact: any JSON object."""


OnDuplicate: TypeAlias = Literal["return", "update", "error"]
"""What ``store_fact`` does when the fact is there already."""


SearchMode: TypeAlias = Literal["hybrid", "vector", "text"]
"""How a search finds: by meaning and words, by meaning, or by words."""


Role: TypeAlias = Literal["user", "assistant", "system"]
"""Who says something in a conversation."""


OnError: TypeAlias = Literal["raise", "empty"]
"""What ``build_context`` does when something cannot be reached: raise the error, or give an empty context."""


class Failure(TypedDict, total=False):
    """One item of a bulk call that failed; exactly one key beside ``error`` says which."""

    index: int
    line: int
    path: str
    id: str
    error: str


class BulkResult(TypedDict):
    """What became of the items of a bulk call."""

    processed: int
    succeeded: int
    duplicates: int
    failed: list[Failure]
    completed: bool
