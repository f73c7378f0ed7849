"""Real questions, each with the passage that answers it, as ``kb demo`` has them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from importlib import resources
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

from knowledge_base import KnowledgeBase, SearchResults, Settings
from knowledge_base.retrieval.evaluation import Document, read_collection

TOP_K = 10
AT_ONCE = 20
WORDS = 60


class Question(NamedTuple):
    """A question and the id of the passage that answers it."""

    text: str
    expected: str


def collection() -> tuple[list[Document], list[Question]]:
    """Returns every passage and every question."""
    with resources.as_file(resources.files("knowledge_base.interfaces.cli") / "data" / "xquad_en") as folder:
        found = read_collection(Path(folder))
    judged = {query: max(scores, key=scores.__getitem__) for query, scores in found.judgements.items()}
    return list(found.documents), [Question(query.text, judged[query.query_id]) for query in found.queries]


async def answerable(settings: Settings, questions: Iterable[Question]) -> list[Question]:
    """Returns the questions that search answers when nothing is in its way; of the others, load says nothing.

    Args:
        settings: Name the namespace and the endpoint; whatever is asked here is not cached.
        questions: All of them.
    """
    uncached = settings.embedding.model_copy(update={"cache_size": 0, "shared_cache_size": 0})
    places = asyncio.Semaphore(AT_ONCE)
    async with KnowledgeBase(settings.model_copy(update={"embedding": uncached})) as kb:

        async def is_answered(question: Question) -> bool:
            async with places:
                return hits(question, await kb.search(question.text, TOP_K))

        asked = list(questions)
        answered = await asyncio.gather(*map(is_answered, asked))
    return [question for question, holds in zip(asked, answered, strict=True) if holds]


def hits(question: Question, results: SearchResults) -> bool:
    """Tells whether a search found what it should, by meaning too."""
    return results["degraded"] == [] and question.expected in {hit["fact_id"] for hit in results["hits"]}


def short_passages(wanted: int) -> Iterator[str]:
    """Yields real texts of a passage each, no two alike."""
    documents, _ = collection()
    beginnings = [" ".join(document.text.split()[:WORDS]) for document in documents]
    return (f"{number} {beginning}" for number, beginning in enumerate(islice(cycle(beginnings), wanted)))
