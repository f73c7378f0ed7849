"""Parts of facts: labels and digest, made in worker threads when there is much of them."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.embedding.service import EmbeddingService
from knowledge_base.errors import InvalidInputError
from knowledge_base.facts.draft import content_digest
from knowledge_base.facts.parts import INLINE_CHARACTERS, INLINE_VALUES, PartMaker, has_few_values, labels
from knowledge_base.index.namespace_languages import NamespaceLanguages
from knowledge_base.index.passages import PassageSplitter
from knowledge_base.index.polyglot import Polyglot
from knowledge_base.settings import BreakerSettings, ChunkingSettings, EmbeddingSettings
from tests.support.embeddings import StubEmbedding


class Watched(dict[str, Any]):
    """Metadata that notes which threads read it."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.read_by: set[threading.Thread] = set()

    def items(self) -> Any:
        self.read_by.add(threading.current_thread())
        return super().items()


@pytest.fixture
async def maker(fake_manager: AsyncRedisManager) -> AsyncIterator[PartMaker]:
    threads = WorkloadThreads("splitting", threads=1, waiting=10)
    embedding = EmbeddingService(EmbeddingSettings(), timeout=20.0, breaker=BreakerSettings(), model=StubEmbedding())
    polyglot = Polyglot()
    languages = NamespaceLanguages(fake_manager, polyglot)
    yield PartMaker(PassageSplitter(ChunkingSettings(), threads, polyglot), embedding, threads, languages, 30.0)
    await threads.close(5)
    await embedding.close(5)


@pytest.mark.parametrize(
    ("content", "metadata", "in_loop"),
    [
        ("short", {"n": 1}, True),
        ("x" * INLINE_CHARACTERS, {"n": list(range(INLINE_VALUES - 1))}, True),
        ("x" * (INLINE_CHARACTERS + 1), {"n": 1}, False),
        ("short", {"n": list(range(INLINE_VALUES))}, False),
    ],
    ids=["little", "as much as may be", "long content", "many values"],
)
async def test_what_is_large_is_labelled_in_a_thread(
    maker: PartMaker, content: str, metadata: dict[str, Any], in_loop: bool
) -> None:
    watched = Watched(metadata)

    parts = await maker.make("n", content, watched, ["t"], "web", ["ann"], cut=False)

    assert (
        watched.read_by == {threading.current_thread()}
        if in_loop
        else threading.current_thread() not in watched.read_by
    )
    assert parts.labels == labels(metadata, ["t"], "web", ["ann"])
    assert parts.digest == content_digest(content, ["ann"])
    assert (list(parts.passages), list(parts.sections)) == ([], [])


async def test_content_is_cut_unless_it_stays(maker: PartMaker) -> None:
    parts = await maker.make("n", "Wings lift.", {}, [], None, [])

    assert list(parts.passages) == ["Wings lift."]
    assert len(parts.sections) == 1
    assert parts.digest == content_digest("Wings lift.", [])


async def test_too_many_labels_for_so_many_passages_are_refused(maker: PartMaker) -> None:
    metadata = {"n": [f"{at:0200d}" for at in range(300)]}

    with pytest.raises(InvalidInputError) as caught:
        await maker.make("n", "Wings lift the plane. " * 10_000, metadata, [], None, [])

    assert caught.value.field == "metadata"


@pytest.mark.parametrize(
    ("make", "few"),
    [
        (lambda most: {}, True),
        (lambda most: {"n": list(range(most - 1))}, True),
        (lambda most: {"n": list(range(most))}, False),
        (lambda most: {str(at): at for at in range(most)}, True),
        (lambda most: {str(at): at for at in range(most + 1)}, False),
        (lambda most: {"n": [[0]] * (most // 2)}, False),
        (lambda most: {"n": {"m": {str(at): (1, 2) for at in range(most // 2)}}}, False),
    ],
)
def test_values_are_counted_at_every_depth(make: Callable[[int], dict[str, Any]], few: bool) -> None:
    assert has_few_values(make(INLINE_VALUES)) is few
