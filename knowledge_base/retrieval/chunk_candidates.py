"""From what the retrievers found to passages, each with its similarity, in one ranking."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from knowledge_base.facts.draft import passage_count
from knowledge_base.heavy_imports import import_heavy
from knowledge_base.index.candidate import Candidates
from knowledge_base.index.passages import passages_of_section
from knowledge_base.index.polyglot import QueryWords
from knowledge_base.keyspace import PartName
from knowledge_base.retrieval.match import meaning_matches

NUMBER = "<f4"
"""How a number of a stored vector is written."""


class Section(NamedTuple):
    """A section that was found by words."""

    passages: Sequence[PartName]
    """What it is made of."""
    match: float
    """How well its words match, from 0 to 1."""


class StoredPassage(NamedTuple):
    """What was read of a passage; None for what was not asked for, or is not there."""

    text: str | None
    vector: bytes | None


class PassageCandidate(NamedTuple):
    """A passage that was found."""

    name: PartName
    similarity: float
    """From 0 to 1."""


def expanded(candidates: Candidates, most: int) -> list[Section]:
    """Returns the best sections as their passages.

    Args:
        candidates: Sections, best first.
        most: Passages of all of them at most; a section is never cut.
    """
    sections: list[Section] = []
    passages = 0
    for candidate, match in zip(candidates, candidates.matches, strict=True):
        fact_id, revision, place = candidate.name
        positions = passages_of_section(place, passage_count(revision))
        passages += len(positions)
        if passages > most and sections:
            break
        sections.append(Section([PartName(fact_id, revision, position) for position in positions], match))
    return sections


class PassageRanking:
    """Ranks passages by meaning and by words, as ``convex_combination`` ranks facts.

    Words are found in sections, of several passages each, and each passage matches as its section does; in a section
    whose words are looked at, less by the share of the words that its best passage has and this one has not. To look at
    the words of five sections is as good as of all.

    Args:
        weight: Share of the meaning, from 0 to 1.
    """

    def __init__(self, weight: float) -> None:
        self._weight = weight

    def ranked(
        self,
        words: QueryWords,
        nearest: Candidates,
        sections: Sequence[Section],
        stored: Mapping[PartName, StoredPassage],
        vector: Sequence[float] | None,
        *,
        background: float = 0.0,
        compared: Collection[PartName] = (),
    ) -> list[PassageCandidate]:
        """Returns the passages, best first; takes milliseconds, so it is to be called in a thread.

        Args:
            words: What was asked.
            nearest: What was found by meaning, best first.
            sections: What was found by words, best first.
            stored: Vectors and texts of the passages that were found by words only, and texts of those in ``compared``.
            vector: The query's vector, or None.
            background: Cosine similarity of texts that have nothing in common.
            compared: The passages of the sections whose words are looked at.
        """
        shares = _Shares(words, stored)
        near = {candidate.name: candidate.score for candidate in nearest}
        cosines = {} if vector is None else _cosines(vector, {name: one.vector for name, one in stored.items()})
        known = cosines | near
        by_words = {name: match for section in sections for name, match in _word_matches(section, shares, compared)}
        meaning = dict(zip(known, meaning_matches(known.values(), background), strict=True))
        least = min(meaning.values(), default=0.0)
        # A retriever that found nothing at all has nothing to say about anything.
        weight = self._weight if by_words and meaning else float(bool(meaning))
        # Words first: where scores are equal, a match of the user's own words goes before one of meaning.
        scores = {
            name: weight * meaning.get(name, least) + (1.0 - weight) * by_words.get(name, 0.0)
            for name in [*by_words, *near]
        }
        best_first = sorted(scores, key=scores.__getitem__, reverse=True)
        return [
            PassageCandidate(name, min(1.0, max(0.0, known[name] if name in known else shares[name])))
            for name in best_first
        ]


def _word_matches(
    section: Section, shares: Mapping[PartName, float], compared: Collection[PartName]
) -> Iterator[tuple[PartName, float]]:
    looked_at = [name for name in section.passages if name in compared]
    most = max((shares[name] for name in looked_at), default=0.0)
    for name in section.passages:
        yield name, section.match * (shares[name] / most if most and name in compared else 1.0)


class _Shares(dict[PartName, float]):
    """The share of a query's words that each passage has: the similarity of one without a vector.

    A BM25 score would say less: in a small base it is small, however well a passage fits.
    """

    def __init__(self, words: QueryWords, stored: Mapping[PartName, StoredPassage]) -> None:
        super().__init__()
        self._words = words
        self._stored = stored

    def __missing__(self, name: PartName) -> float:
        text = self._stored[name].text if name in self._stored else None
        words = self._words.distinct
        self[name] = self._words.shared(text) / len(words) if words and text is not None else 0.0
        return self[name]


def _cosines(vector: Sequence[float], stored: Mapping[PartName, bytes | None]) -> dict[PartName, float]:
    numpy: Any = import_heavy("numpy")
    query = numpy.asarray(vector, dtype=NUMBER)
    known = {name: found for name, found in stored.items() if found is not None and len(found) == query.nbytes}
    if not known:
        return {}
    rows = numpy.frombuffer(b"".join(known.values()), dtype=NUMBER).reshape(len(known), len(vector))
    lengths = numpy.linalg.norm(rows, axis=1) * numpy.linalg.norm(query)
    cosines = numpy.divide(rows @ query, lengths, out=numpy.zeros(len(known), dtype=NUMBER), where=lengths > 0)
    return dict(zip(known, cosines.tolist(), strict=True))
