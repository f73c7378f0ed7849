"""What a reranker is given, and what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias


class Passage(NamedTuple):
    """A hit as a reranker is given it."""

    node_id: str
    """Names it among the others."""
    owner: str
    """The fact or document that it is from."""
    text: str
    metadata: Mapping[str, Any]
    score: float
    """What it was ranked by so far."""


class Judged(NamedTuple):
    """What a reranker says of a passage that it keeps."""

    place: int
    """Which one of those that it was given, from 0."""
    raw: float | None
    """Its score, on whatever scale; None where it gave none."""
    score: float | None
    """The same between 0 and 1."""


Expired: TypeAlias = Callable[[], bool]
"""Tells whether nobody waits any more."""


class Judge(Protocol):
    """Orders passages by how well they answer a query; runs in a worker thread."""

    def __call__(self, query: str, passages: Sequence[Passage], expired: Expired) -> list[Judged]:
        """Returns what is kept, best first."""
        ...


def sigmoid(logit: float) -> float:
    """Returns a logit as a probability, from 0 to 1.

    Args:
        logit: Any finite number.
    """
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    grown = math.exp(logit)
    return grown / (1.0 + grown)


def calibrated(raw: Sequence[float]) -> list[float]:
    """Returns scores of an unknown kind between 0 and 1, in the same order.

    Those that are all between 0 and 1 are taken as they are; others for logits.

    Args:
        raw: Its scores, on whatever scale.
    """
    if all(0.0 <= score <= 1.0 for score in raw):
        return list(raw)
    return [sigmoid(score) for score in raw]
