"""What a usable vector is."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from knowledge_base.embedding.asked import PackedVector
from knowledge_base.errors import EmbeddingUnavailableError


def checked_vector(vector: Sequence[float], dimension: int | None) -> PackedVector:
    """Returns a vector that may be stored and searched with.

    Args:
        vector: What the model gave.
        dimension: Length that it must have; None for any.

    Raises:
        EmbeddingUnavailableError: It has another length, is zero, or not finite.
    """
    if not len(vector) or len(vector) != (dimension or len(vector)):
        raise EmbeddingUnavailableError(
            f"the embedding model gave a vector of {len(vector)} dimensions instead of {dimension or 'one or more'}; "
            "check KB_EMBEDDING__MODEL and KB_EMBEDDING__DIMENSION"
        )
    try:
        packed = array("f", vector)
        length = math.hypot(*packed)
    except (TypeError, OverflowError):
        raise EmbeddingUnavailableError("the embedding model gave a vector that is not made of numbers") from None
    if not math.isfinite(length) or length == 0.0:
        raise EmbeddingUnavailableError("the embedding model gave a vector that is zero or not finite")
    return packed
