"""What the fake endpoint can be told to do wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Literal

Path = Literal["embeddings", "chat", "models"]

Kind = Literal[
    "well",
    "status",
    "hang",
    "cut before",
    "cut within",
    "slow body",
    "no json",
    "wrong shape",
    "too few",
    "too many",
    "permuted",
    "duplicate index",
    "wrong dimension",
    "not a number",
    "infinite",
    "zero",
]

DATED_SLACK = 1.0
"""A date has whole seconds; so much later it is never too early."""


@dataclass(frozen=True)
class Mood:
    """How requests are answered.

    ``status`` refuses; ``hang`` answers well, but only when released; ``cut before`` and ``cut within`` close the
    connection before and in the middle of the body; ``slow body`` sends it piece by piece; ``no json`` and ``wrong
    shape`` answer 200 with what is no embedding; ``permuted`` gives each vector its right index, but in another order;
    all others spoil the vectors.

    Args:
        kind: The mood.
        status: Of "status".
        retry_after: Seconds that a refusal asks to wait.
        dated: Write them as a date.
        message: Text of a refusal.
        seconds: How long a slow body takes.
        only_last: Spoil the last vector of an answer only.
        containing: Only requests with a text that holds this.
        path: Only requests of this kind; all when None.
    """

    kind: Kind = "well"
    status: int = 500
    retry_after: float | None = None
    dated: bool = False
    message: str = "the endpoint is in a bad mood"
    seconds: float = 1.0
    only_last: bool = False
    containing: str = ""
    path: Path | None = None

    def concerns(self, path: Path, texts: Sequence[str]) -> bool:
        """Tells whether a request is answered in this mood.

        Args:
            path: Kind of the request.
            texts: Its texts.
        """
        return self.path in (None, path) and (not self.containing or any(self.containing in text for text in texts))

    def headers(self) -> dict[str, str]:
        """Returns the headers of a refusal."""
        if self.retry_after is None:
            return {}
        if self.dated:
            return {"Retry-After": formatdate(time.time() + self.retry_after + DATED_SLACK, usegmt=True)}
        return {"Retry-After": f"{self.retry_after:g}"}

    def spoil(self, vectors: list[list[float]]) -> list[list[float]]:
        """Returns vectors as this mood has them.

        Args:
            vectors: The right ones.
        """
        if self.kind == "too few":
            return vectors[:-1]
        if self.kind == "too many":
            return [*vectors, vectors[-1]]
        if not self.only_last:
            return [self._spoilt(vector) for vector in vectors]
        return [*vectors[:-1], self._spoilt(vectors[-1])]

    def order(self, count: int) -> list[tuple[int, int]]:
        """Returns, for each place in an answer, which vector stands there and the index that it says.

        Args:
            count: Vectors of the answer.
        """
        places = list(range(count))
        if self.kind == "permuted":
            return [(place, place) for place in [*places[1:], *places[:1]]]
        if self.kind == "duplicate index":
            # One alone has no other to be mistaken for; its number is wrong all the same.
            return [(place, 0 if count > 1 else 1) for place in places]
        return [(place, place) for place in places]

    def _spoilt(self, vector: list[float]) -> list[float]:
        if self.kind == "wrong dimension":
            return [*vector, 0.5]
        if self.kind == "zero":
            return [0.0] * len(vector)
        wrong = {"not a number": math.nan, "infinite": math.inf}.get(self.kind)
        return vector if wrong is None else [wrong, *vector[1:]]


@dataclass
class Planned:
    """A mood for the next requests only."""

    mood: Mood
    left: int


class Moods:
    """The mood of all requests, and those of the next ones."""

    def __init__(self) -> None:
        self._lasting = Mood()
        self._planned: list[Planned] = []

    def become(self, mood: Mood) -> None:
        """Sets the mood from now on, and forgets what was planned.

        Args:
            mood: The mood.
        """
        self._lasting = mood
        self._planned.clear()

    def plan(self, mood: Mood, times: int) -> None:
        """Adds a mood for some requests.

        Args:
            mood: The mood.
            times: How many requests that it concerns.
        """
        self._planned.append(Planned(mood, times))

    def next(self, path: Path, texts: Sequence[str]) -> Mood:
        """Returns the mood in which a request is answered.

        Args:
            path: Kind of the request.
            texts: Its texts.
        """
        for planned in self._planned:
            if planned.left and planned.mood.concerns(path, texts):
                planned.left -= 1
                return planned.mood
        return self._lasting if self._lasting.concerns(path, texts) else Mood()
