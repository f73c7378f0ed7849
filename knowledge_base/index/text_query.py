"""The one place where words become full text queries.

RediSearch scores a union of words wrongly once it is intersected with a filter: words of a passage are lost when the
server skips ahead. So the filter is distributed over the words. A repeated word stands as often as it occurs, since
the scorer ignores the weight of a word. ``docs/explanation/architecture.md`` has the figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

MOST_REPEATS = 4
"""How often a word that the query repeats is counted at most."""

LONGEST_QUERY = 500_000
"""Characters of a query's text, repeats apart; the filter stands in it once for each word."""


def telling_stems(stems: Sequence[str], most: int, scope: str) -> dict[str, int]:
    """Returns the stems to search for and how often each counts, the most telling ones of a long query.

    Args:
        stems: The query's stems with repeats.
        most: How many distinct stems to keep, and repeats of them; repeated ones come first, then longer ones.
        scope: What ``FilterCompiler.compile`` gave; the longer it is, the fewer words fit.
    """
    room = max(1, min(most, LONGEST_QUERY // (len(scope) + 1)))
    kept = list(Counter(stems).items())
    if len(kept) > room:
        kept = sorted(kept, key=lambda item: (-item[1], -len(item[0]), item[0]))[:room]
    telling: dict[str, int] = {}
    spare = room
    for stem, count in kept:
        repeats = min(count - 1, MOST_REPEATS - 1, spare)
        telling[stem] = 1 + repeats
        spare -= repeats
    return telling


def bm25_query(stems: dict[str, int], scope: str) -> str:
    """Returns the query for passages in a scope that hold at least one of some words.

    Args:
        stems: The words, and how often each occurs.
        scope: What ``FilterCompiler.compile`` gave.
    """
    return "|".join(f"({scope} @stem:{stem})" for stem, count in stems.items() for _ in range(count))
