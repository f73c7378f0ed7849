"""Vectors of hashed words: the same everywhere, made at once, and near each other where texts share words."""

from __future__ import annotations

import hashlib
import math
import re
from functools import lru_cache

WORD = re.compile(r"\w+")
FLOOR = 0.001
"""What every dimension has, so that a text without words has a vector too."""


@lru_cache(maxsize=100_000)
def _hashed(word: str) -> int:
    return int.from_bytes(hashlib.sha256(word.encode("utf-8", "replace")).digest()[:4], "big")


def unit_vector(text: str, size: int) -> list[float]:
    """Returns the unit vector of a text.

    Args:
        text: Any text.
        size: Dimensions.
    """
    vector = [FLOOR] * size
    for word in WORD.findall(text.lower()):
        vector[_hashed(word) % size] += 1.0
    length = math.hypot(*vector)
    return [value / length for value in vector]
