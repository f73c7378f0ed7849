"""``Polyglot``: from texts in any language to what is indexed and searched for.

Each section is stemmed in its own language, and a query in each language that the namespace has: whoever asks in
German finds what was written in German, whatever else is there.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import Literal

from knowledge_base.index.analysis import Analyzer, words_of
from knowledge_base.index.language_guess import ENGLISH, LEAD_OF_QUERY, LETTERS, LanguageGuesser, most_likely

AUTO: Literal["auto"] = "auto"

MARK = "_"
"""Stands before the name of a section's language, behind its stems: in no stem, and inside words for the server."""

BASIC_LATIN = "\u024f"
"""The last letter of the alphabets that languages with Latin letters use."""

TEXTS_LOOKED_AT = 100
LOOKED_INTO = 200
"""Characters of each of many texts that say which language they are in."""

MUCH_RARER = 4
"""How many times as rare as in the query's own language a word may be in another one, to be asked for."""


@dataclass(frozen=True)
class QueryWords:
    """What of a query is searched for."""

    forms: Sequence[Sequence[str]]
    """Of each word, with repeats, its distinct stems: first in the query's own language, then in the others."""
    language: str | None
    """The most likely one among the namespace's, as a Snowball name; None where the query is in none of them."""
    is_clear: bool
    """Whether the query itself shows its language."""
    analyzers: Sequence[Analyzer]
    """Of the namespace's languages."""

    @cached_property
    def stems(self) -> Sequence[str]:
        """Every stem, in order and with repeats."""
        return [stem for forms in self.forms for stem in forms]

    @cached_property
    def distinct(self) -> Collection[frozenset[str]]:
        """The distinct words."""
        return {frozenset(forms) for forms in self.forms}

    @cached_property
    def _initials(self) -> frozenset[str]:
        # Stemmers take an accent from the first letter of a word at most: all words of a passage in all languages
        # would take milliseconds.
        return frozenset(_plain(stem[0]) for stem in self.stems)

    @cached_property
    def _known(self) -> dict[str, Collection[str]]:
        return {}

    @cached_property
    def _wanted(self) -> frozenset[str]:
        return frozenset(self.stems)

    def asked(self, frequencies: Mapping[str, int] | None) -> Sequence[str]:
        """Returns the stems to ask the server for, in order and with repeats.

        The rarer a word, the more it counts. Where a French section was taken for English, a word that all of the
        others have in its French form would be rare in its English one, and that section the best match for it. So a
        form is left out that is much rarer than the one in the query's language. What has no other form is asked for
        afterwards, see ``left_out``.

        Args:
            frequencies: How many sections have each stem; None where that is not known: then a query whose language
                is clear is asked for in that one.
        """
        if len(self.analyzers) == 1 or (frequencies is None and not self.is_clear):
            return self.stems
        if frequencies is None:
            return [forms[0] for forms in self.forms]
        return [
            stem
            for own, *others in self.forms
            for stem in (own, *others)
            if stem == own or MUCH_RARER * frequencies.get(stem, 0) >= frequencies.get(own, 0)
        ]

    def left_out(self, asked: Collection[str]) -> Sequence[str]:
        """Returns the stems that were not asked for, in order and with repeats.

        Where few sections hold the others, those that hold these are what is left: a word as it was typed stands in
        them, stemmed in another language.

        Args:
            asked: What ``asked`` gave.
        """
        were_asked = frozenset(asked)
        return [stem for stem in self.stems if stem not in were_asked]

    def shared(self, text: str) -> int:
        """Returns how many of the distinct words a text has.

        Args:
            text: A passage.
        """
        words = words_of(text)
        if len(self.analyzers) == 1:
            found = self._wanted.intersection(self.analyzers[0].stemmed(words))
        else:
            alike = (word for word in set(words) if _plain(word[0]) in self._initials)
            found = self._wanted.intersection(chain.from_iterable(map(self._stems_of, alike)))
        return sum(not word.isdisjoint(found) for word in self.distinct)

    def _stems_of(self, word: str) -> Collection[str]:
        known = self._known.get(word)
        if known is None:
            stems = chain.from_iterable(analyzer.stemmed([word]) for analyzer in self.analyzers)
            known = self._known[word] = self._wanted.intersection(stems)
        return known


class Polyglot:
    """Stems sections and queries. Safe to use from several threads.

    Args:
        language: The Snowball name of the language that everything is in, or "auto".

    Raises:
        InvalidInputError: There is no such language.
    """

    def __init__(self, language: str = AUTO) -> None:
        self.told = None if language == AUTO else language
        """The language that everything is in, or None."""
        self._guesser = LanguageGuesser()
        self._analyzers: dict[str, Analyzer] = {}
        self._analyzer(self.told or ENGLISH)

    def section(self, text: str, likely: str) -> str:
        """Returns the stems of a section as they are indexed, and which language they are of.

        Args:
            text: The section.
            likely: The language to take where it cannot be told.
        """
        words = words_of(text)
        language = self.told or self._guesser.guess(words, likely)
        stems = self._analyzer(language).stemmed(words)
        return " ".join(stems if language == ENGLISH else [*stems, MARK + language])

    def likely(self, texts: Sequence[str], otherwise: str) -> str:
        """Returns the language of texts that belong together: what to take for one of them that does not show it.

        Args:
            texts: Sections of a document, or facts that are stored at once.
            otherwise: The language to take where they don't show theirs together either.
        """
        if self.told or len(texts) < 2:
            return self.told or otherwise
        # An odd step: what comes in turns is met in all of its forms.
        step = -(-len(texts) // TEXTS_LOOKED_AT) | 1
        return self._guesser.guess(words_of("\n".join(text[:LOOKED_INTO] for text in texts[::step])), otherwise)

    def query(self, text: str, languages: Sequence[str]) -> QueryWords:
        """Returns what to search for.

        A word is left out when it is a stop word of the query's own language, unless there are no others.

        Args:
            text: The query.
            languages: Those of the namespace's sections, the most frequent one first.
        """
        words = words_of(text)
        own, is_clear = languages[0], True
        if len(languages) > 1:
            scores = self._guesser.scores(words, languages)
            own = most_likely(scores, own, LEAD_OF_QUERY)
            is_clear = all(most_likely(scores, one, LEAD_OF_QUERY) == own for one in languages)
        analyzers = [self._analyzer(language) for language in sorted(languages, key=lambda one: one != own)]
        telling = analyzers[0].telling(words)
        if len(analyzers) == 1:
            forms: Sequence[Sequence[str]] = [(stem,) for stem in analyzers[0].stemmed(telling)]
        else:
            stems_of = (chain.from_iterable(each.stemmed([word]) for each in analyzers) for word in telling)
            forms = [list(dict.fromkeys(stems)) for stems in stems_of]
        language = own if _may_be(own, words) else None
        return QueryWords([stems for stems in forms if stems], language, is_clear, analyzers)

    def _analyzer(self, language: str) -> Analyzer:
        known = self._analyzers.get(language)
        return known or self._analyzers.setdefault(language, Analyzer(language))


NO_WORDS = QueryWords((), None, False, ())


def language_of(section: str) -> str:
    """Returns the language of a section.

    Args:
        section: What ``Polyglot.section`` gave, or what was written before there were several languages.
    """
    _, mark, language = section[section.rfind(" ") + 1 :].partition(MARK)
    return language if mark else ENGLISH


@lru_cache(maxsize=4_096)
def _plain(letter: str) -> str:
    return unicodedata.normalize("NFD", letter)[0]


def _may_be(language: str, words: Sequence[str]) -> bool:
    """Tells whether at least half of the words have letters that a language could have."""
    if language not in LETTERS:
        return True
    letters = LETTERS[language]
    foreign = sum(word[0] > BASIC_LATIN and word[0] not in letters for word in words)
    return 2 * foreign < len(words) or not words
