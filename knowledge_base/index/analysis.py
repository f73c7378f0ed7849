"""``Analyzer``: from text in one language to the stems that are indexed and searched for.

The server's own analysis is switched off: it counts a word up to three times, and its stop words can crash it. What
is written here as a stem comes out of the server's tokenizer as it went in, in a document and behind ``@stem:`` in a
query alike: letters, digits and the marks that belong to them, in lower case, and short.

Stop words are indexed but not asked for, unless a query has nothing else: "to be or not to be" can be found, and
rankings are as good as with an index that has none.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from Stemmer import Stemmer, algorithms

from knowledge_base.errors import InvalidInputError
from knowledge_base.index import stop_words

MAX_TOKEN_CHARS = 64
MAX_TOKEN_BYTES = 128

# Marks in a row, as in Unicode's stream-safe format: to put a longer run in order takes time by its square.
MAX_MARKS = 30

# Marks above it belong to rare scripts, and looking for them makes all others slow: there, a mark ends a word.
BASIC_PLANE = 0x10000

# Thai, Lao, Myanmar, Khmer, kana and Chinese characters stand without spaces between words. Hangul has spaces, but what
# stands between them is a word with all of its particles.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
)

ASCII_WORDS = re.compile(r"[a-z0-9]+")
APOSTROPHES = re.compile("[\u2018\u2019\u02bc\uff07]")
ENGLISH_ENDINGS = re.compile(r"'(?:s|re|ve|ll|d|m)\b")
# Soft hyphens, joiners, direction marks and variation selectors: inside words, but no part of them.
UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e01ef]+"
)
UNSPACED_RUNS = re.compile(f"[{UNSPACED}]+")
LONG_GAPS = re.compile(rf"[^\w\s]{{{MAX_MARKS + 1},}}")
DOTTED_I = "i\u0307"


KNOWN_WORDS = 20_000
"""Words whose stems are kept."""


class Analyzer:
    """Turns texts into stems. Safe to use from several threads.

    Words are runs of letters and digits after compatibility normalisation and case folding. An apostrophe ends a word;
    English endings behind it are dropped ("it's" is "it"), negations stay whole ("don't" is "dont"). Where a script
    puts no space between words, each two neighbouring characters make a word.

    Args:
        language: A Snowball algorithm: "english", "german", …

    Raises:
        InvalidInputError: There is no such algorithm.
    """

    def __init__(self, language: str = "english") -> None:
        if language not in algorithms():
            raise InvalidInputError("language", f"is none of {', '.join(algorithms())}")
        self.language = language
        self._stop_words = stop_words.BY_LANGUAGE.get(language, frozenset())
        self._own = threading.local()
        # The stemmer's own cache is ten times slower, and has a list for each word, which the garbage collector visits.
        self._known: dict[str, str] = {}

    def stems(self, text: str) -> list[str]:
        """Returns the stems of all words of a text, in order and with repeats: what is indexed.

        Args:
            text: The text.
        """
        return self.stemmed(words_of(text))

    def query_stems(self, text: str) -> list[str]:
        """Returns the stems to search for, in order and with repeats: those of all words but the stop words.

        Args:
            text: The query. When it has nothing but stop words, they are kept.
        """
        return self.stemmed(self.telling(words_of(text)))

    def telling(self, words: list[str]) -> list[str]:
        """Returns words without the stop words among them; all of them when there are no others.

        Args:
            words: What ``words_of`` gave.
        """
        return [word for word in words if word not in self._stop_words] or words

    def stemmed(self, words: Sequence[str]) -> list[str]:
        """Returns the stem of each word that has one, in order.

        Args:
            words: What ``words_of`` gave, or some of it.
        """
        known = self._known
        found = [known.get(word) or self._stem(word) for word in words]
        return [stem for stem in found if stem]

    def _stem(self, word: str) -> str:
        stemmer: Stemmer | None = getattr(self._own, "stemmer", None)
        if stemmer is None:
            # A stemmer has buffers that its calls share, so each thread has its own.
            stemmer = self._own.stemmer = Stemmer(self.language, 0)
        stem: str = stemmer.stemWord(word)
        if len(self._known) >= KNOWN_WORDS:
            self._known.clear()
        self._known[word] = stem
        return stem


def words_of(text: str) -> list[str]:
    """Returns the words of a text in order, each as it is stemmed.

    Args:
        text: Any text.
    """
    if text.isascii():
        found = ASCII_WORDS.findall(_without_apostrophes(text.lower()))
    else:
        found = _patterns().word.findall(_without_apostrophes(_spaced(_folded(text))))
    return [word if len(word) * 4 <= MAX_TOKEN_CHARS else _cut(word) for word in found]


def _without_apostrophes(text: str) -> str:
    if "'" not in text:
        return text
    return ENGLISH_ENDINGS.sub("", text.replace("n't", "nt"))


def _folded(text: str) -> str:
    """Returns what the server's lower-casing leaves alone, one spelling for what looks the same."""
    text = LONG_GAPS.sub(lambda gap: gap[0][:MAX_MARKS], UNSEEN.sub("", text))
    text = unicodedata.normalize("NFKC", text).casefold()
    # Folding can make what is not normalised; and it turns the letters of one script, Cherokee, to upper case.
    text = unicodedata.normalize("NFKC", text.lower())
    text = text.replace(DOTTED_I, "i").replace("_", " ")
    return APOSTROPHES.sub("'", text)


def _spaced(text: str) -> str:
    return UNSPACED_RUNS.sub(_pairs, text)


def _pairs(run: re.Match[str]) -> str:
    characters = _patterns().character.findall(run[0])
    pairs = [first + second for first, second in pairwise(characters)]
    return f" {' '.join(pairs or characters)} "


def _cut(word: str) -> str:
    return word[:MAX_TOKEN_CHARS].encode()[:MAX_TOKEN_BYTES].decode(errors="ignore")


class _Patterns(NamedTuple):
    """What can be said only with a list of all marks, which ``re`` does not have."""

    word: re.Pattern[str]
    character: re.Pattern[str]


@cache
def _patterns() -> _Patterns:
    marks = "".join(chr(code) for code in range(BASIC_PLANE) if unicodedata.category(chr(code)) in ("Mn", "Mc"))
    return _Patterns(
        word=re.compile(rf"\w[\w{marks}]*"),
        character=re.compile(rf"\w[{marks}]*"),
    )
