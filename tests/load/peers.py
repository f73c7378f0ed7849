"""How naive services ask an endpoint: one request after another, or a thread and a client for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from knowledge_base.retrieval.evaluation import Document
from tests.benchmarks.search import peer_retriever
from tests.load.questions import Question
from tests.support.hashed_words import unit_vector
from tests.support.remote import KEY, MODEL


class Peers:
    """LlamaIndex's retriever over a RedisVectorStore with the same passages and vectors, on the same server.

    Args:
        url: The server.
        base_url: The endpoint.
        documents: The passages.
        size: Dimensions of a vector; what ``peer_retriever`` has.
    """

    def __init__(self, url: str, base_url: str, documents: Sequence[Document], size: int) -> None:
        self._base_url = base_url
        texts = [document.text for document in documents]
        vectors = [unit_vector(text, size) for text in texts]
        self._retriever = peer_retriever(url, texts, vectors, self._model())

    async def sequentially(self, questions: Sequence[Question]) -> list[tuple[bool, float]]:
        """Answers one caller after the other; all of them came at the same time."""
        began = time.perf_counter()
        outcomes = []
        for question in questions:
            nodes = await self._retriever.aretrieve(question.text)
            outcomes.append((bool(nodes), time.perf_counter() - began))
        return outcomes

    async def in_threads(self, questions: Sequence[Question]) -> list[tuple[bool, float]]:
        """Answers each caller in a thread, with a client made for this one request."""
        from llama_index.core.schema import QueryBundle

        began = time.perf_counter()

        def answer(question: Question) -> tuple[bool, float]:
            try:
                vector = self._model().get_query_embedding(question.text)
                nodes = self._retriever.retrieve(QueryBundle(query_str=question.text, embedding=vector))
            except Exception:
                return False, time.perf_counter() - began
            return bool(nodes), time.perf_counter() - began

        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(len(questions)) as threads:
            return await asyncio.gather(*(loop.run_in_executor(threads, answer, question) for question in questions))

    def _model(self) -> Any:
        from llama_index.embeddings.openai import OpenAIEmbedding

        return OpenAIEmbedding(model_name=MODEL, api_base=self._base_url, api_key=KEY)
