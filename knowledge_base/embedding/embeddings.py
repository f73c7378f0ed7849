"""The embedding models of a base: the one that it has, and while it is moved to another one that as well."""

from __future__ import annotations

import asyncio

from knowledge_base.embedding.service import EmbeddingService
from knowledge_base.types import BreakerStats, PoolStats


class Embeddings:
    """Gives each index the model that it was built with.

    Args:
        current: The model of new indexes.
        upcoming: The model that the base is being moved to, or None.
    """

    def __init__(self, current: EmbeddingService, upcoming: EmbeddingService | None = None) -> None:
        self.current = current
        self.upcoming = upcoming

    @property
    def target(self) -> EmbeddingService:
        """The model that a rebuild is for."""
        return self.upcoming or self.current

    async def serving(self, model: str, dimension: int) -> EmbeddingService:
        """Returns the model of an index; the current one where none of them made it.

        Args:
            model: Identity of the model that the index was built with.
            dimension: Length of its vectors.

        Raises:
            EmbeddingUnavailableError: Two models of one name can only be told apart by asking, and did not answer.
        """
        if self.upcoming is None or not await self.upcoming.may_make(model, dimension):
            return self.current
        if not await self.current.may_make(model, dimension):
            return self.upcoming
        # Both bear the name, and one at least does not know how long its vectors are: it has to be asked.
        return self.current if await self.current.identity() == (model, dimension) else self.upcoming

    def stats(self) -> dict[str, PoolStats]:
        """Returns the use of the threads and requests of each."""
        return {name: stats for service in self._all() for name, stats in service.stats().items()}

    def breakers(self) -> list[BreakerStats]:
        """Returns the state of the breaker of each."""
        return [breaker for service in self._all() for breaker in service.breakers()]

    async def load(self) -> None:
        """Loads each."""
        for service in self._all():
            await service.load()

    async def close(self, within: float) -> None:
        """Closes each.

        Args:
            within: Seconds to wait at most.
        """
        await asyncio.gather(*(service.close(within) for service in self._all()))

    def _all(self) -> list[EmbeddingService]:
        return [service for service in (self.current, self.upcoming) if service is not None]
