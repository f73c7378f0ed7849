"""What neighbouring passages share is found as the plain definition has it."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from knowledge_base.index.passages import LONGEST_OVERLAP, OPENING, _without_overlap

WORDS = st.sampled_from(["a", "ab", "aa", "aba", "b1", "ö", "long-word", "antidisestablishmentarianism", "1", "_"])
SEAMS = st.sampled_from([" ", ". ", "\n", "  ", "-", ", "])
# Few letters, so that texts are full of what looks like an overlap and is none.
DENSE = st.text(alphabet="ab .", max_size=60)


@st.composite
def sentences(draw: st.DrawFn, most: int = 30) -> str:
    return "".join(draw(WORDS) + draw(SEAMS) for _ in range(draw(st.integers(0, most))))


def at_seam(text: str, place: int) -> bool:
    """Whether a text may be cut there without cutting a word."""
    return place in {0, len(text)} or not (text[place - 1].isalnum() and text[place].isalnum())


def naive(before: str, passage: str) -> str:
    """Takes the longest common part off, as one would read it in the definition."""
    for length in range(min(len(before), len(passage)), 0, -1):
        shared = before.endswith(passage[:length])
        if shared and at_seam(before, len(before) - length) and at_seam(passage, length):
            return passage[length:]
    return passage


@settings(max_examples=400, deadline=None)
@given(before=DENSE, passage=DENSE)
@example(before="", passage="")
@example(before="a b", passage="")
@example(before="x aba", passage="aba aba")
@example(before="ab ab ab ab ab ab ab ab ab ab", passage="ab ab ab ab ab ab ab ab ab ab")
def test_dense_texts_lose_what_the_definition_takes(before: str, passage: str) -> None:
    assert _without_overlap(before, passage) == naive(before, passage)


@settings(max_examples=400, deadline=None)
@given(head=sentences(), shared=sentences(), tail=sentences())
def test_sentences_lose_what_the_definition_takes(head: str, shared: str, tail: str) -> None:
    before, passage = head + shared, shared + tail

    assert _without_overlap(before, passage) == naive(before, passage)


@settings(max_examples=200, deadline=None)
@given(head=sentences(), shared=sentences(), tail=sentences())
def test_nothing_but_an_overlap_is_taken(head: str, shared: str, tail: str) -> None:
    before, passage = head + shared, shared + tail

    rest = _without_overlap(before, passage)

    assert passage.endswith(rest)
    assert before.endswith(passage.removesuffix(rest) if rest else passage)
    assert len(rest) <= len(tail)


@settings(max_examples=100, deadline=None)
@given(
    period=st.sampled_from(["a ", "ab ", "a. b ", "aa", "ab"]), before=st.integers(0, 60), passage=st.integers(0, 60)
)
def test_texts_that_repeat_themselves_lose_the_longest_part(period: str, before: int, passage: int) -> None:
    first, second = (period * 60)[:before], (period * 60)[:passage]

    assert _without_overlap(first, second) == naive(first, second)


def test_overlap_just_around_the_opening_is_found() -> None:
    for length in range(1, 3 * OPENING):
        shared = "".join(chr(ord("a") + at % 26) for at in range(length))
        before, passage = f"some text before {shared}", f"{shared} and after"

        assert _without_overlap(before, passage) == " and after"


def test_overlap_as_long_as_is_looked_for_is_found() -> None:
    words = [f"w{number:04d}" for number in range(LONGEST_OVERLAP // 6)]
    shared = " ".join(words)
    assert len(shared) <= LONGEST_OVERLAP

    assert _without_overlap(f"before {shared}", f"{shared} after") == " after"


def test_word_is_not_cut_in_two() -> None:
    assert _without_overlap("the swan", "swans swim") == "swans swim"
    assert _without_overlap("the black", "lack of light") == "lack of light"
