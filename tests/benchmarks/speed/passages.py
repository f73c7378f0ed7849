"""Passages, questions and their vectors: made up, the same for the same numbers, and shaped as real ones are.

Words follow Zipf's law, vectors stand in clusters. Only the standard library and numpy, since peers read them in
environments of their own.
"""

from __future__ import annotations

import random
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

DIMENSION = 384
VOCABULARY = 20_000
WORDS = 50
ASKED_WORDS = 6
CLUSTER_SIZE = 5
"""Passages that stand together: those of one subject."""

QUESTIONS = 500
TOP_K = 10
SYLLABLES = ("ba", "den", "fi", "gor", "hu", "jan", "ke", "lom", "mi", "nus", "pe", "rad", "si", "tov", "wu", "zel")


@cache
def _vocabulary() -> tuple[list[str], list[float]]:
    words = []
    for number in range(VOCABULARY):
        # From 16³ on, so that each has four syllables or more and none is a stop word.
        rest, word = number + len(SYLLABLES) ** 3, ""
        while rest:
            rest, place = divmod(rest, len(SYLLABLES))
            word += SYLLABLES[place]
        words.append(word)
    return words, list(accumulate(1 / (rank + 10) for rank in range(VOCABULARY)))


def passage(number: int) -> str:
    """The text of a passage."""
    words, weights = _vocabulary()
    return " ".join(random.Random(number).choices(words, cum_weights=weights, k=WORDS))


def question(number: int, passages: int) -> str:
    """A question in words of one of the first so many passages."""
    chosen = random.Random(-1 - number)
    words = passage(chosen.randrange(passages)).split()
    return " ".join(chosen.sample(words, ASKED_WORDS))


def unit_vectors(count: int, first: int, clusters: int) -> Any:
    """Float32 unit vectors of passages (or of questions, by other numbers) around so many centres."""
    centres = np.random.default_rng(7).standard_normal((clusters, DIMENSION), dtype=np.float32)
    own = np.random.default_rng([11, first]).standard_normal((count, DIMENSION), dtype=np.float32)
    vectors = centres[np.arange(first, first + count) % clusters] + 0.6 * own
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class Material:
    """The vectors of passages and questions, in files that every process maps.

    Args:
        folder: Where the files are; made by ``make``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.vectors: Any = np.load(folder / "vectors.npy", mmap_mode="r")
        self.questions: Any = np.load(folder / "questions.npy")

    @classmethod
    def make(cls, folder: Path, passages: int, sizes: tuple[int, ...]) -> Material:
        """Writes the files for bases of the first so many passages."""
        clusters = max(1, passages // CLUSTER_SIZE)
        np.save(folder / "vectors.npy", unit_vectors(passages, 0, clusters))
        # Spread over all centres, those of the smallest base included.
        asked = np.random.default_rng(5).choice(clusters, QUESTIONS)
        centres = np.random.default_rng(7).standard_normal((clusters, DIMENSION), dtype=np.float32)
        own = np.random.default_rng(13).standard_normal((QUESTIONS, DIMENSION), dtype=np.float32)
        questions = centres[asked] + 0.6 * own
        np.save(folder / "questions.npy", questions / np.linalg.norm(questions, axis=1, keepdims=True))
        material = cls(folder)
        for size in sizes:
            nearest = np.argsort(-(material.vectors[:size] @ material.questions.T), axis=0)[:TOP_K].T
            np.save(folder / f"nearest_{size}.npy", nearest)
        return material

    def nearest(self, size: int) -> Any:
        """For each question the numbers of the nearest of the first so many passages, by exact search."""
        return np.load(self._folder / f"nearest_{size}.npy")
