"""An embedding model that gives the answers it was told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr

from knowledge_base.embedding.service import EmbeddingService
from tests.support.embeddings import StubEmbedding

NewService = Callable[..., EmbeddingService]


class ScriptedEmbedding(StubEmbedding):
    """Gives the answers that it was told to, and raises those that are errors; then vectors of its own."""

    _answers: list[Any] = PrivateAttr(default_factory=list)

    def then(self, *answers: Any) -> None:
        """Adds answers to whole requests."""
        self._answers += answers

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        if not self._answers:
            return [self._get_text_embedding(text) for text in texts]
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        found: list[list[float]] = answer
        return found
