"""What a usable vector is."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence, Sized

from knowledge_base.embedding.asked import PackedVector
from knowledge_base.errors import EmbeddingUnavailableError

SHORTEST, LONGEST = 1e-15, 1e15


def checked_vector(vector: Sequence[float], dimension: int | None) -> PackedVector:
    """Returns a vector that may be stored and searched with.

    Args:
        vector: What the model gave.
        dimension: Length that it must have; None for any.

    Raises:
        EmbeddingUnavailableError: It has another length, is zero, or not finite.
    """
    try:
        if isinstance(vector, str | bytes | bytearray) or not isinstance(vector, Sized):
            raise TypeError
        packed = array("f", vector)
        length = math.hypot(*packed)
    except (TypeError, OverflowError):
        raise EmbeddingUnavailableError("the embedding model gave a vector that is not made of numbers") from None
    if not packed or len(packed) != (dimension or len(packed)):
        raise EmbeddingUnavailableError(
            f"the embedding model gave a vector of {len(packed)} dimensions instead of {dimension or 'one or more'}; "
            "check KB_EMBEDDING__MODEL and KB_EMBEDDING__DIMENSION"
        )
    # Beyond these, squares of 32 bits overflow or vanish, and the server's cosine is no number.
    if not SHORTEST < length < LONGEST:
        raise EmbeddingUnavailableError("the embedding model gave a vector that is zero or not finite")
    return packed
