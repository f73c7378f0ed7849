"""Models that refuse, or never come back from, some texts only."""

from __future__ import annotations

from llama_index.core.bridge.pydantic import PrivateAttr

from tests.support.embeddings import AsyncStubEmbedding, StubEmbedding


class PoisonedEmbedding(StubEmbedding):
    """Fails for every text that holds a word; well otherwise."""

    _poison: str = PrivateAttr(default="")

    def refuse(self, word: str) -> None:
        """Refuses texts with this word from now on; the empty word is held by none."""
        self._poison = word

    def _vector(self, text: str) -> list[float]:
        if self._poison and self._poison in text:
            raise ValueError(f"cannot embed {text!r}")
        return super()._vector(text)


class SlowPassages(StubEmbedding):
    """Hangs for passages only, when told to; queries are answered."""

    def _get_query_embedding(self, query: str) -> list[float]:
        self._queries.append(query)
        return self._vector(query)


class SlowAsyncPassages(AsyncStubEmbedding):
    """The same for a model behind a network."""

    async def _aget_query_embedding(self, query: str) -> list[float]:
        self._queries.append(query)
        return self._vector(query)
