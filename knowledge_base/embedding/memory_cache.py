"""``MemoryCache``: the vectors that were asked for last, in this process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from knowledge_base.embedding.asked import Asked, PackedVector


class MemoryCache:
    """Keeps so many vectors for so long; which was not asked for longest goes first.

    Args:
        size: Vectors at most.
        ttl: Seconds that each is kept.
        clock: Monotonic seconds.
    """

    def __init__(self, size: int, ttl: float, clock: Callable[[], float]) -> None:
        self._size = size
        self._ttl = ttl
        self._clock = clock
        self._kept: OrderedDict[Asked, tuple[float, PackedVector]] = OrderedDict()

    def get(self, asked: Asked) -> PackedVector | None:
        """Returns the vector of a text, or None where it is not known any more.

        Args:
            asked: The text.
        """
        known = self._kept.get(asked)
        if known is None:
            return None
        if self._clock() - known[0] >= self._ttl:
            del self._kept[asked]
            return None
        self._kept.move_to_end(asked)
        return known[1]

    def put(self, asked: Asked, vector: PackedVector) -> None:
        """Keeps a vector.

        Args:
            asked: The text.
            vector: Its vector.
        """
        if not self._size:
            return
        self._kept[asked] = (self._clock(), vector)
        self._kept.move_to_end(asked)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
