"""``KnowledgeBase``, with a model that knows the vector of each passage and question."""

from __future__ import annotations

import time
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

from knowledge_base import EmbeddingSettings, KnowledgeBase, Settings
from tests.benchmarks.speed.passages import DIMENSION, QUESTIONS, TOP_K, Material, passage, question

NAMESPACE = "bench"


class KnownVectors(BaseEmbedding):
    """Looks vectors up: those of questions by the question, those of passages by the number that they begin with."""

    _questions: dict[str, list[float]] = PrivateAttr()
    _vectors: Any = PrivateAttr()

    def __init__(self, material: Material, size: int) -> None:
        super().__init__(model_name="known", embed_batch_size=500)
        asked = [question(number, size) for number in range(QUESTIONS)]
        self._questions = dict(zip(asked, material.questions.tolist(), strict=True))
        self._vectors = material.vectors

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._questions.get(query) or [1.0] * DIMENSION

    def _get_text_embedding(self, text: str) -> list[float]:
        number = text.split(maxsplit=1)[0]
        place = int(number) if number.isdigit() else 0
        vector: list[float] = self._vectors[place % len(self._vectors)].tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


class Own:
    """The calls of ``KnowledgeBase``."""

    def __init__(self, kb: KnowledgeBase, material: Material, size: int) -> None:
        self._kb = kb
        self._material = material
        self._questions = [question(number, size) for number in range(QUESTIONS)]
        self._stored = 0

    async def ask(self, what: str, number: int) -> list[int]:
        if what == "get":
            facts = await self._kb.get_fact(f"f{number}")
            assert facts
            return []
        if what == "store":
            self._stored += 1
            text = f"{number} {self._stored} {passage(number)}"
            await self._kb.store_fact(text, namespace="stored")
            return []
        if what == "stats":
            await self._kb.get_stats()
            return []
        if what == "page":
            await self._kb.get_fact(limit=100)
            return []
        results = await self._kb.search(self._questions[number], TOP_K, mode=what)  # type: ignore[arg-type]
        return [int(hit["fact_id"][1:]) for hit in results["hits"]]

    async def add(self, first: int, count: int) -> float:
        """Stores facts; returns the seconds that it took."""
        facts = [{"content": f"{number} {passage(number)}"} for number in range(first, first + count)]
        begun = time.perf_counter()
        result = await self._kb.store_facts(facts, namespace=f"bulk{first}")
        took = time.perf_counter() - begun
        assert result["succeeded"] == count, result["failed"][:3]
        return took

    async def close(self) -> None:
        await self._kb.close()


async def open(url: str, material: Material, size: int) -> Own:  # noqa: A001
    settings = Settings(redis_url=url, namespace=NAMESPACE, embedding=EmbeddingSettings(cache_size=20_000))
    kb = KnowledgeBase(settings, embed_model=KnownVectors(material, size))
    await kb.start()
    return Own(kb, material, size)
