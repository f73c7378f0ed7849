"""Embedding models of the tests' own, that hang, fail and lie when told to."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import Any, Literal

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

from tests.support.hashed_words import unit_vector

Mood = Literal["well", "failing", "hanging", "wrong dimension", "not a number"]

HANGS_AT_MOST = 20.0


class EmbedderDownError(RuntimeError):
    """What a failing model raises: an error that the package has never heard of."""


class StubEmbedding(BaseEmbedding):
    """Deterministic vectors of hashed words, made at once; texts that share words are near each other.

    Only the synchronous methods are implemented, as most models that run in the process do it.
    """

    size: int = 32
    _mood: Mood = PrivateAttr(default="well")
    _released: threading.Event = PrivateAttr(default_factory=threading.Event)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)
    _texts: list[str] = PrivateAttr(default_factory=list)
    _queries: list[str] = PrivateAttr(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """Every text that was to be embedded, in order, failures included."""
        return list(self._texts)

    @property
    def queries(self) -> list[str]:
        """Every query that was to be embedded, in order, failures included."""
        return list(self._queries)

    def become(self, mood: Mood) -> None:
        """Sets how the model behaves from the next call on; those that hang are released by another mood."""
        if mood == "hanging":
            self._released.clear()
        self._mood = mood
        if mood != "hanging":
            self._released.set()

    def _vector(self, text: str) -> list[float]:
        if self._mood == "failing":
            raise EmbedderDownError("the model is away")
        if self._mood == "not a number":
            return [math.nan] * self.size
        size = self.size + 1 if self._mood == "wrong dimension" else self.size
        return unit_vector(text, size)

    def _hang(self) -> None:
        if self._mood == "hanging" and not self._released.wait(HANGS_AT_MOST):
            raise EmbedderDownError("nobody released the model")

    def _get_text_embedding(self, text: str) -> list[float]:
        with self._lock:
            self._texts.append(text)
        self._hang()
        return self._vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        with self._lock:
            self._queries.append(query)
        self._hang()
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


class AsyncStubEmbedding(StubEmbedding):
    """The same for a model behind a network: natively asynchronous, and not to be called otherwise."""

    async def _ahang(self) -> None:
        ends = time.monotonic() + HANGS_AT_MOST
        while self._mood == "hanging":
            if time.monotonic() > ends:
                raise EmbedderDownError("nobody released the model")
            await asyncio.sleep(0.01)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        self._texts.append(text)
        await self._ahang()
        return self._vector(text)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        self._queries.append(query)
        await self._ahang()
        return self._vector(query)
