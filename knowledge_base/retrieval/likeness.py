"""How alike texts are by their words, whatever their case, punctuation and spaces."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TypeAlias

from knowledge_base.index.analysis import UNSPACED

Shingle: TypeAlias = tuple[str, ...]

SHINGLE_WORDS = 3

# Of the signs, those that tell prices, comparisons and C++ from C.
_WORDS = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+[+#]*|[<>=%$€£¥]")


def words_of(text: str) -> list[str]:
    """Returns the words of a text in order; of scripts that put no space between them, the characters.

    Args:
        text: Any text.
    """
    return _WORDS.findall(unicodedata.normalize("NFKC", text).casefold())


def shingles_of(words: Sequence[str]) -> frozenset[Shingle]:
    """Returns what three words each stand side by side; all words as one where there are fewer.

    Source: Broder, "On the resemblance and containment of documents", SEQUENCES 1997.

    Args:
        words: The words of a text, in order.
    """
    last = max(1, len(words) - SHINGLE_WORDS + 1)
    return frozenset(tuple(words[at : at + SHINGLE_WORDS]) for at in range(last))


def containment(part: frozenset[Shingle], whole: frozenset[Shingle]) -> float:
    """Returns the share of one text's shingles that another has too, from 0 to 1.

    Args:
        part: Shingles of the one.
        whole: Shingles of the other.
    """
    return len(part & whole) / len(part) if part else 0.0


def shared_words(first: frozenset[str], second: frozenset[str]) -> float:
    """Returns how many words two texts share, from 0 to 1: the Dice coefficient.

    Args:
        first: Words of the one.
        second: Words of the other.
    """
    both = len(first) + len(second)
    return 2 * len(first & second) / both if both else 0.0
