"""``LocalEmbedding``: the local model as LlamaIndex knows embeddings. Slow to import: LlamaIndex comes with it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

from knowledge_base.embedding.local_model import LocalModel

BATCH = 32
THREADS = 2


class LocalEmbedding(BaseEmbedding):
    """A local model behind LlamaIndex's interface; ``model_name`` is the model's identity.

    The asynchronous methods run the model in threads of their own, so that they never hold up the event loop.

    Args:
        model: A model that is loaded already; without one the default model is loaded, which takes a second or so.

    Raises:
        ServerRequirementError: A package is missing or damaged.
    """

    _model: LocalModel = PrivateAttr()
    _threads: ThreadPoolExecutor = PrivateAttr()

    def __init__(self, model: LocalModel | None = None) -> None:
        loaded = model or LocalModel.load()
        super().__init__(model_name=loaded.identity, embed_batch_size=BATCH)
        self._model = loaded
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="kb-local-embedding")

    @classmethod
    def load(cls, directory: Path | None = None) -> LocalEmbedding:
        """Loads a model; call it in a thread.

        Args:
            directory: See ``LocalModel.load``.

        Raises:
            ServerRequirementError: A package is missing or damaged.
            InvalidInputError: The directory does not hold a usable model.
        """
        return cls(LocalModel.load(directory))

    @classmethod
    def class_name(cls) -> str:
        """Returns the name by which LlamaIndex knows the class."""
        return "LocalEmbedding"

    @property
    def local_model(self) -> LocalModel:
        """The model."""
        return self._model

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._model.embed_queries([query])[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._model.embed_passages([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._model.embed_passages(texts)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._get_text_embeddings, texts)
