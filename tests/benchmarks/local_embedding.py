"""What the embedding service costs on top of the local model, on the same cores in the same run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from knowledge_base import BreakerSettings, EmbeddingSettings
from knowledge_base.embedding.local_embedding import LocalEmbedding
from knowledge_base.embedding.local_model import LocalModel
from knowledge_base.embedding.service import EmbeddingService
from tests.benchmarks.collection import texts
from tests.benchmarks.speed.figures import Figures, json_path

LIMIT = 1.10
SINGLE = 300
CONCURRENT = 100
ROUNDS = 4
PASSAGES = 120
TIMEOUT = 120.0

Run = Callable[[Sequence[str]], Awaitable[object]]


async def seconds(run: Run, given: Sequence[str]) -> float:
    began = time.perf_counter()
    await run(given)
    return time.perf_counter() - began


def note(figures: Figures, name: str, bare: Sequence[float], served: Sequence[float], texts_each: int) -> None:
    """Notes the figures of both, and the median of the ratios of neighbours, who shared whatever else went on."""
    ratio = median(one / other for one, other in zip(served, bare, strict=True))
    bare_ms, served_ms = (median(took) / texts_each * 1000 for took in (bare, served))
    figures.row(texts=name, bare_ms=bare_ms, served_ms=served_ms)
    figures.ratio(f"local model, {name}: service / bare model", ratio, most=LIMIT)


class Comparison:
    """The bare model in as many threads as the service has, and the service.

    Args:
        model: The model of both.
        service: The service; each of its answers must be new to it.
        threads: Where the bare model runs.
        number: How many threads there are.
        figures: Where the measurements go.
    """

    def __init__(
        self, model: LocalModel, service: EmbeddingService, threads: ThreadPoolExecutor, number: int, figures: Figures
    ) -> None:
        self._figures = figures
        self._model = model
        self._service = service
        self._threads = threads
        self._number = number

    async def single(self, questions: Sequence[str]) -> None:
        """Asks for one query after the other, of either in turn."""
        bare, served = [], []
        for question in questions:
            bare.append(await seconds(self._one_bare, [question]))
            served.append(await seconds(self._concurrent_queries, [question]))
        note(self._figures, "single query, p50", bare, served, 1)

    async def batches(self, name: str, batches: Sequence[Sequence[str]], *, query: bool) -> None:
        """Asks for many texts at the same time, of either in turn."""
        bare, served = [], []
        for given in batches:
            bare.append(await seconds(self._bare_queries if query else self._bare_passages, given))
            served.append(await seconds(self._concurrent_queries if query else self._passages, given))
        note(self._figures, name, bare, served, len(batches[0]))

    async def _one_bare(self, given: Sequence[str]) -> None:
        # In this thread: nothing is cheaper.
        self._model.embed_queries(given)

    async def _bare_queries(self, given: Sequence[str]) -> None:
        await self._in_threads(self._model.embed_queries, given)

    async def _bare_passages(self, given: Sequence[str]) -> None:
        await self._in_threads(self._model.embed_passages, given)

    async def _in_threads(self, embed: Callable[[Sequence[str]], object], given: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        shares = [given[start :: self._number] for start in range(self._number)]
        await asyncio.gather(*(loop.run_in_executor(self._threads, embed, share) for share in shares))

    async def _concurrent_queries(self, given: Sequence[str]) -> None:
        await asyncio.gather(*(self._service.embed_query(text, "bench") for text in given))

    async def _passages(self, given: Sequence[str]) -> None:
        await self._service.embed_passages(given, "bench")


async def measure() -> None:
    figures = Figures(json_path(), "local_embedding")
    settings = EmbeddingSettings()
    embedding = LocalEmbedding.load()
    service = EmbeddingService(settings, timeout=TIMEOUT, breaker=BreakerSettings(), model=embedding)
    questions, passages = texts("queries"), texts("corpus")[:PASSAGES]
    await service.embed_passages(["warm"], "bench")
    with ThreadPoolExecutor(settings.threads) as threads:
        compared = Comparison(embedding.local_model, service, threads, settings.threads, figures)
        await compared.single(questions[:SINGLE])
        left = questions[SINGLE:]
        asked = [left[begin : begin + CONCURRENT] for begin in range(0, ROUNDS * CONCURRENT, CONCURRENT)]
        await compared.batches(f"{CONCURRENT} queries at once", asked, query=True)
        # New texts in each round: what the service knows it does not embed again.
        rounds = [[f"{number} {text}" for text in passages] for number in range(ROUNDS)]
        await compared.batches(f"{len(passages)} passages", rounds, query=False)
    await service.close(1.0)
    figures.write()


def main() -> None:
    asyncio.run(measure())
