"""``Asked``: one text whose vector somebody waits for."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["query", "passage"]
"""What a text is: models may embed a question otherwise than what answers it."""

Vector: TypeAlias = list[float]

if TYPE_CHECKING:
    PackedVector: TypeAlias = array[float]
else:
    PackedVector = array
"""Floats of 32 bits, as the index keeps them. The garbage collector looks at one object instead of hundreds."""

Outcome: TypeAlias = PackedVector | Exception
"""What came of embedding one text."""

STEP = "the embedding model"
"""A request to the model, as named in errors."""


class Asked(NamedTuple):
    """A text to embed. Two that are equal have the same vector, and may share a request and a place in a cache."""

    kind: Kind
    namespace: str
    """Whose text it is: one tenant cannot find out, by how long it takes, what another has asked."""
    text: str
