"""The one place where words become full text queries.

RediSearch 2.10 scores a union of words wrongly once it is intersected with a filter: words of a passage are lost when
the server skips ahead. So the filter is distributed over the words, or the words are made optional, which is cheaper
where few passages pass. A repeated word stands as often as it occurs, since the scorer ignores the weight of a word.
``docs/explanation/search-quality.md`` has the figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

Form = Literal["distributed", "optional", "joined"]

MOST_REPEATS = 4
"""How often a word that the query repeats is counted at most."""

LONGEST_QUERY = 500_000
"""Characters of a query's text, repeats apart; the filter stands in it once for each word."""

TELLING_WORDS = 24
"""Words of a query that are enough, if they are the heaviest.

Four questions of Cranfield in one, of 38 words on average, find as much with 24 words (nDCG@10 0.394) as with all
(0.380), for 40 % of the cost; its abstracts, of 61 words, 0.262 instead of 0.267 for 32 %. The longest 24 words find
less (0.318 and 0.253). To leave out common words of short questions is no gain: without those that stand in more than
30 % of the sections nDCG@10 falls by 0.007 on Cranfield, and those of other collections have hardly any.
"""

WORTH_CHOOSING = 20_000
"""Places that a query's words stand in, from which on its form matters: it takes the server 5 ms and more."""

OPTIONAL_PAYS = 1.5
"""Places of a query's words for each passage that passes, from which on optional words are cheaper.

Over 100 000 sections, words with 96 000 places take 13.5 ms distributed and 7.2 ms optional where two clauses let
10 000 pass, 40 and 23 ms where four let 30 000 pass, 33 and 39 ms where all pass.
"""


def telling_stems(
    stems: Sequence[str], most: int, scope: str, frequencies: Mapping[str, int] | None = None, sections: int = 0
) -> dict[str, int]:
    """Returns the stems to search for and how often each counts, the most telling ones of a long query.

    Args:
        stems: The query's stems with repeats.
        most: How many distinct stems to keep, and repeats of them.
        scope: What ``FilterCompiler.compile`` gave; the longer it is, the fewer words fit.
        frequencies: In how many sections each stands. Those that weigh most in BM25 are kept then, and not more than
            needed; without, repeated ones come first, then longer ones.
        sections: How many sections there are.
    """
    room = max(1, min(most, LONGEST_QUERY // (len(scope) + 1)))
    kept = list(Counter(stems).items())
    if frequencies is not None and len(kept) > min(room, TELLING_WORDS):
        known = [item for item in kept if frequencies.get(item[0])]
        # What nobody had a while ago may stand in what was stored since; else it costs the server nothing.
        new = [item for item in kept if not frequencies.get(item[0])]
        kept = [*_heaviest(known, frequencies, sections)[: min(room, TELLING_WORDS)], *new][:room]
    elif len(kept) > room:
        kept = sorted(kept, key=lambda item: (-item[1], -len(item[0]), item[0]))[:room]
    telling: dict[str, int] = {}
    spare = room
    for stem, count in kept:
        repeats = min(count - 1, MOST_REPEATS - 1, spare)
        telling[stem] = 1 + repeats
        spare -= repeats
    return telling


def _heaviest(
    counted: Sequence[tuple[str, int]], frequencies: Mapping[str, int], sections: int
) -> list[tuple[str, int]]:
    def weight(item: tuple[str, int]) -> float:
        stem, count = item
        found = frequencies[stem]
        rarity = math.log1p(max(0.0, sections - found + 0.5) / (found + 0.5))
        return min(count, MOST_REPEATS) * rarity

    return sorted(counted, key=lambda item: (-weight(item), -len(item[0]), item[0]))


def optional_pays(places: int, passing: int) -> bool:
    """Tells whether optional words are cheaper for the server than a filter at each word.

    Args:
        places: Sections of each word, summed up.
        passing: Sections that pass the filter.
    """
    return places >= OPTIONAL_PAYS * passing


def bm25_query(stems: Mapping[str, int], scope: str, form: Form = "distributed") -> str:
    """Returns the query for passages in a scope that hold at least one of some words.

    Args:
        stems: The words, and how often each occurs.
        scope: What ``FilterCompiler.compile`` gave.
        form: Where the filter stands: "distributed", at each word; "optional", beside words that may be missing, so
            that what holds none of them is found as well, last and with a score of 0; "joined", once, which only
            servers score right that pass ``SelfTest``.
    """
    words = [stem for stem, count in stems.items() for _ in range(count)]
    if not words:
        return ""
    if form == "joined":
        return f"{scope} @stem:({'|'.join(words)})"
    if form == "optional":
        return " ".join([scope, *(f"~@stem:{word}" for word in words)])
    return "|".join(f"({scope} @stem:{word})" for word in words)
