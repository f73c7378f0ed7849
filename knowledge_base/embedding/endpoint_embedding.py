"""``EndpointEmbedding``: LlamaIndex's OpenAI embedding, stricter. Slow to import: LlamaIndex comes with it."""

from __future__ import annotations

from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.embeddings.openai import OpenAIEmbedding

from knowledge_base.embedding.prefixes import Prefixes
from knowledge_base.errors import EmbeddingUnavailableError


class EndpointEmbedding(OpenAIEmbedding):
    """An OpenAI-compatible endpoint: any model name, its prefixes, and each vector for the text it belongs to.

    An endpoint numbers its vectors; LlamaIndex takes them as they come, so that an endpoint which answers in another
    order would give each text another's vector.

    Args:
        prefixes: What is put before queries and passages.
        **options: What ``OpenAIEmbedding`` takes.
    """

    _prefixes: Prefixes = PrivateAttr()

    def __init__(self, prefixes: Prefixes, **options: Any) -> None:
        super().__init__(**options)
        self._prefixes = prefixes

    @classmethod
    def class_name(cls) -> str:
        """Returns the name by which LlamaIndex knows the class."""
        return "EndpointEmbedding"

    async def aget_query_embedding_batch(self, queries: list[str]) -> list[list[float]]:
        """Returns the vectors of queries, by one request.

        Args:
            queries: At least one, as many as the endpoint takes.

        Raises:
            EmbeddingUnavailableError: The answer is not one.
            openai.OpenAIError: The endpoint refused, or could not be reached.
        """
        return await self._ask([self._prefixes.query + query for query in queries])

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self.aget_query_embedding_batch([query]))[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._ask([self._prefixes.passage + text for text in texts])

    async def _ask(self, texts: list[str]) -> list[list[float]]:
        client = self._get_aclient()
        answer = await client.embeddings.create(input=texts, model=self._text_engine, **self.additional_kwargs)
        given = {datum.index: datum.embedding for datum in answer.data}
        if len(answer.data) != len(texts) or set(given) != set(range(len(texts))):
            raise EmbeddingUnavailableError(
                f"the embedding endpoint did not number its {len(answer.data)} vectors for {len(texts)} texts from 0 on"
            )
        return [given[place] for place in range(len(texts))]
