"""The real local model, which fails when it is told to."""

from __future__ import annotations

from llama_index.core.bridge.pydantic import PrivateAttr

from knowledge_base.embedding.local_embedding import LocalEmbedding
from tests.support.embeddings import EmbedderDownError


class FailingLocalEmbedding(LocalEmbedding):
    """The local model behind a switch."""

    _failing: bool = PrivateAttr(default=False)

    def fail(self, failing: bool) -> None:
        """Sets whether every request fails from now on."""
        self._failing = failing

    def _refuse_when_failing(self) -> None:
        if self._failing:
            raise EmbedderDownError("the model is away")

    def _get_query_embedding(self, query: str) -> list[float]:
        self._refuse_when_failing()
        return super()._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        self._refuse_when_failing()
        return super()._get_text_embedding(text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self._refuse_when_failing()
        return super()._get_text_embeddings(texts)
