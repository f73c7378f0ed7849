"""Many short facts with clustered vectors, stored quickly: no model is asked, and each fact is one write."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from knowledge_base.admin.transfer.patience import patiently
from knowledge_base.clock import now_ms
from knowledge_base.connection.workload import job
from knowledge_base.facts.restore import WholeFact

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

BATCH = 500
WORDS = [
    first + rest for first in ("ka", "mo", "ri", "tu", "ze", "pla", "shi", "wen") for rest in ("dor", "lin", "mar")
]
WORDS += [word + end for word in WORDS for end in ("a", "en", "is", "ost", "ux")]


def unit_vectors(count: int, dimension: int, *, first: int = 0, clusters: int = 100) -> Any:
    """Returns float32 unit vectors around some centres, as those of real passages are; the same for the same numbers.

    Args:
        count: How many.
        dimension: Their length.
        first: The number of the first.
        clusters: How many centres there are.
    """
    centres = np.random.default_rng(7).standard_normal((clusters, dimension), dtype=np.float32)
    own = np.random.default_rng([11, first]).standard_normal((count, dimension), dtype=np.float32)
    vectors = centres[np.arange(first, first + count) % clusters] + 0.5 * own
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def content(number: int) -> str:
    """Returns the content of a fact: some words, and its number."""
    words = random.Random(number).choices(WORDS, k=12)
    return f"Fact {number}: {' '.join(words)}."


async def populate(
    kb: KnowledgeBase,
    count: int,
    *,
    first: int = 0,
    namespace: str | None = None,
    with_vectors: bool = True,
    clusters: int = 100,
    **fields: Any,
) -> list[str]:
    """Stores facts named ``f<number>``, found by words and, with vectors, by meaning.

    The vectors have the dimension of the base's model and nothing else to do with it.

    Args:
        kb: A started knowledge base.
        count: How many.
        first: The number of the first.
        namespace: Where to; the base's own where none is given.
        with_vectors: Whether they have vectors; without, they are pending.
        clusters: How many centres the vectors have.
        **fields: Fields of ``WholeFact`` that all of them have, or functions from the number to the field.

    Returns:
        Their ids, in order.
    """
    services = await kb._services.start()
    where = namespace or kb.settings.namespace
    generation = await services.indexer.generation(where)
    stored: list[str] = []
    with job():
        for begin in range(first, first + count, BATCH):
            numbers = range(begin, min(begin + BATCH, first + count))
            entries = [await _fact(services, where, number, fields) for number in numbers]
            if with_vectors:
                entries = list(_with_vectors(entries, begin, generation.dimension, clusters))
            stored += await patiently(partial(_restored, services, generation, entries))
    return stored


async def _restored(services: Any, generation: Any, entries: list[WholeFact], again: bool) -> list[str]:
    outcomes = await services.restorer.restore(generation, entries)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        assert outcome.is_written or (again and outcome.status == "same"), outcome
    return [outcome.fact_id for outcome in outcomes]


async def _fact(services: Any, namespace: str, number: int, fields: Mapping[str, Any]) -> WholeFact:
    own = {name: value(number) if callable(value) else value for name, value in fields.items()}
    text = own.pop("content", None) or content(number)
    described = {"metadata": {}, "tags": [], "source": None, "principals": []} | {
        name: own.pop(name) for name in ("metadata", "tags", "source", "principals") if name in own
    }
    parts = await services.parts.make(namespace, text, *described.values())
    now = now_ms()
    times = {"version": 1, "created_at": now, "updated_at": now, "expires_at": None, "history": []} | own
    return WholeFact(f"f{number}", text, **described, parts=parts, **times)


def _with_vectors(entries: list[WholeFact], first: int, dimension: int, clusters: int) -> Iterator[WholeFact]:
    passages = sum(len(entry.parts.passages) for entry in entries)
    vectors = iter(unit_vectors(passages, dimension, first=first, clusters=clusters))
    for entry in entries:
        yield entry._replace(vectors=[next(vectors).tobytes() for _ in entry.parts.passages])
