"""``SharedCache``: the vectors of queries in Redis, for every process that uses the same model."""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
from array import array
from collections.abc import Sequence

from redis.exceptions import RedisError

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.embedding.asked import Asked, PackedVector
from knowledge_base.embedding.vector_check import checked_vector
from knowledge_base.errors import EmbeddingUnavailableError, KnowledgeBaseError
from knowledge_base.keyspace import Keyspace

logger = logging.getLogger(__name__)

DIGEST_CHARS = 32
"""Hexadecimal digits that tell two texts apart."""


class SharedCache:
    """A fixed number of slots in each namespace; a text's digest says which is its own.

    Texts that share a slot take it from each other, so that nothing has to be counted or cleaned up to keep within
    bounds. What cannot be read or written is as if it were not there: the model is asked instead.

    Args:
        manager: The connections.
        size: Slots of each namespace.
        ttl: Seconds that a vector is kept.
    """

    def __init__(self, manager: AsyncRedisManager, size: int, ttl: float) -> None:
        self._manager = manager
        self._size = size
        self._ttl_ms = max(1, int(ttl * 1000))

    async def get(self, model: str, dimension: int, asked: Sequence[Asked]) -> list[PackedVector | None]:
        """Returns the vectors of texts, None for each that is not there.

        Args:
            model: Identity of the model.
            dimension: Length of its vectors.
            asked: The texts.
        """
        digests = [_digest(model, dimension, one) for one in asked]
        keys = [self._key(one, digest) for one, digest in zip(asked, digests, strict=True)]
        try:
            client = await self._manager.main()
            pipeline = client.pipeline(transaction=False)
            for key in keys:
                pipeline.get(key)
            values = await pipeline.execute()
        except (KnowledgeBaseError, RedisError) as error:
            logger.debug("the shared cache was not read", extra={"reason": type(error).__name__})
            return [None] * len(asked)
        return [_decoded(value, digest, dimension) for value, digest in zip(values, digests, strict=True)]

    async def put(self, model: str, dimension: int, found: Sequence[tuple[Asked, PackedVector]]) -> None:
        """Keeps vectors.

        Args:
            model: Identity of the model.
            dimension: Length of its vectors.
            found: The texts and their vectors.
        """
        try:
            client = await self._manager.main()
            pipeline = client.pipeline(transaction=False)
            for asked, vector in found:
                digest = _digest(model, dimension, asked)
                value = f"{digest}:{base64.b64encode(vector.tobytes()).decode()}"
                pipeline.set(self._key(asked, digest), value, px=self._ttl_ms)
            await pipeline.execute()
        except (KnowledgeBaseError, RedisError) as error:
            logger.debug("the shared cache was not written", extra={"reason": type(error).__name__})

    def _key(self, asked: Asked, digest: str) -> str:
        return Keyspace(asked.namespace).cached_vector(int(digest[:12], 16) % self._size)


def _digest(model: str, dimension: int, asked: Asked) -> str:
    parts = (model, str(dimension), asked.kind, asked.text)
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:DIGEST_CHARS]


def _decoded(value: str | None, digest: str, dimension: int) -> PackedVector | None:
    if value is None or not value.startswith(digest + ":"):
        return None
    vector = array("f")
    try:
        vector.frombytes(base64.b64decode(value[DIGEST_CHARS + 1 :], validate=True))
    except (ValueError, binascii.Error):
        return None
    try:
        return checked_vector(vector, dimension)
    except EmbeddingUnavailableError:
        return None
