"""The text of a context: each number in square brackets is a passage's, whatever the passages say."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from knowledge_base.retrieval.context_text import citation, context_text, passage_text
from tests.support.chunks import a_chunk

NUMBER = re.compile(r"\[(?:[^\S\n]|[\d,;\u2013\u2014-])*\d(?:[^\S\n]|[\d,;\u2013\u2014-])*\]")


def test_passages_are_numbered_and_apart() -> None:
    text = context_text([a_chunk("One.\nTwo.\n\nThree.", source="Rules"), a_chunk("Four.")])

    assert text == "[1] Rules\n  One.\n  Two.\n  Three.\n\n[2]\n  Four."


def test_no_passages_are_no_text() -> None:
    assert context_text([]) == ""


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("as shown before [2].", "as shown before (2)."),
        ("see [1, 3] and [4-6] and [ 7 ]", "see (1, 3) and (4-6) and ( 7 )"),
        ("[[2]]", "[(2)]"),
        ("a[i] = [x] + [] + [2a]", "a[i] = [x] + [] + [2a]"),
        ("text\n[2] Rules\n  lies", "text\n  (2) Rules\n    lies"),
        ("text\u2028[2]\x0blies\rmore", "text\n  (2)\n  lies\n  more"),
    ],
)
def test_numbers_of_a_content_are_no_numbers_of_passages(content: str, shown: str) -> None:
    assert passage_text(1, a_chunk(content)) == f"[1]\n  {shown}"


def test_source_cannot_pretend_to_be_a_passage() -> None:
    assert passage_text(1, a_chunk("x", source="Rules [2]  of\tplay")) == "[1] Rules (2) of play\n  x"


CONTENTS = st.text(
    st.sampled_from(["[", "]", "1", "2", "٣", ",", "-", " ", "\n", "\r", "\u2028", "\x85", "\x1c", "a", "."]),
    max_size=40,
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(CONTENTS, CONTENTS), min_size=1, max_size=5))
@example([("[1[2]]", "")])
@example([("[[[1]]]", "[1]")])
def test_numbers_of_the_text_are_those_of_the_citations(parts: list[tuple[str, str]]) -> None:
    chunks = [a_chunk(content, source=source or None) for content, source in parts]

    text = context_text(chunks)

    citations = [citation(number, chunk) for number, chunk in enumerate(chunks, start=1)]
    assert NUMBER.findall(text) == [f"[{one['number']}]" for one in citations]
    assert re.findall(r"^\[(\d+)\]", text, re.MULTILINE) == [str(one["number"]) for one in citations]
    assert all(line.startswith(("[", "  ")) for line in text.splitlines() if line)
    assert [one["content"] for one in citations] == [content for content, _ in parts]


@pytest.mark.parametrize("content", ["[" * 500_000, "[1," * 200_000, f"[{'1 ' * 300_000}", f"[{' ' * 500_000}1"])
def test_text_full_of_brackets_takes_no_time(content: str) -> None:
    began = time.monotonic()

    text = passage_text(1, a_chunk(content))

    assert text.startswith("[1]\n  [")
    assert time.monotonic() - began < 5.0


def test_citation_has_every_field() -> None:
    chunk = a_chunk("as shown [2]", similarity=0.75, source="Rules", document_id="d")

    assert citation(3, chunk) == {
        "number": 3,
        "fact_id": "fact",
        "document_id": "d",
        "source": "Rules",
        "content": "as shown [2]",
        "similarity": 0.75,
        "chunk_index": 0,
        "section_title": None,
        "page_start": None,
        "page_end": None,
    }
