"""Chunks: as many as are wanted and fit, none twice, neighbours as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowledge_base.facts.records import FactRecord
from knowledge_base.index.passages import join_passages
from knowledge_base.keyspace import PartName
from knowledge_base.retrieval.chunk_candidates import PassageCandidate
from knowledge_base.retrieval.chunk_selection import Chunk, ChunkSelection
from knowledge_base.settings import RetrievalConfig
from tests.support.chunks import candidate, fact_record, passage_name, passage_texts


def words(chunk: Chunk) -> int:
    return len(chunk.content.split())


def chosen(
    facts: Sequence[tuple[FactRecord, Sequence[str]]],
    candidates: Sequence[PassageCandidate],
    cost: Callable[[Chunk], int] = words,
    **config: object,
) -> list[Chunk]:
    selection = ChunkSelection(RetrievalConfig(**config), cost)
    selection.offer(candidates, {record.fact_id: record for record, _ in facts}, passage_texts(*facts))
    return selection.chunks()


def a_fact(fact_id: str, *passages: str) -> tuple[FactRecord, Sequence[str]]:
    return fact_record(fact_id, passages), passages


LONG = a_fact("long", "zero a", "one b", "two c", "three d", "four e", "five f")


def test_best_passages_come_first_and_no_more_than_wanted() -> None:
    facts = [a_fact("a", "red"), a_fact("b", "green"), a_fact("c", "blue")]
    candidates = [candidate(facts[at][0], similarity=0.9 - at / 10) for at in (2, 0, 1)]

    chunks = chosen(facts, candidates, max_chunks=2)

    assert [(chunk.record.fact_id, chunk.content) for chunk in chunks] == [("c", "blue"), ("a", "red")]
    assert [chunk.similarity for chunk in chunks] == [0.7, 0.9]


def test_passage_that_does_not_fit_is_left_out_and_a_shorter_one_taken() -> None:
    facts = [a_fact("a", "one two"), a_fact("b", "one two three"), a_fact("c", "four")]
    selection = ChunkSelection(RetrievalConfig(token_budget=3), words)

    offered = selection.offer(
        [candidate(record) for record, _ in facts],
        {record.fact_id: record for record, _ in facts},
        passage_texts(*facts),
    )

    assert [chunk.record.fact_id for chunk in selection.chunks()] == ["a", "c"]
    assert (offered, selection.refused) == (2, 1)


def test_identical_passages_are_taken_once() -> None:
    facts = [a_fact("a", "the same  text"), a_fact("b", "the same\ntext"), a_fact("c", "another")]

    chunks = chosen(facts, [candidate(record) for record, _ in facts])

    assert [chunk.record.fact_id for chunk in chunks] == ["a", "c"]


def test_nearly_identical_passages_of_one_fact_are_taken_once() -> None:
    sentence = " ".join(f"word{letter}" for letter in "abcdefghijklmnopqrstuvwxyzäöüßéèêçñ")
    passages = [f"{sentence}.", "between", f"{sentence.upper()}!", "end", f"{sentence} again"]
    facts = [a_fact("one", *passages), a_fact("other", passages[0].upper())]
    candidates = [candidate(facts[0][0], at, 0.9 - at / 10) for at in range(5)] + [candidate(facts[1][0])]

    chunks = chosen(facts, candidates, token_budget=1_000, merge_neighbours=False)

    assert [chunk.content for chunk in chunks] == [passages[0], "between", "end", passages[0].upper()]


def test_neighbours_are_merged_in() -> None:
    (chunk,) = chosen([LONG], [candidate(LONG[0], 2)])

    assert chunk.content == "one b two c three d"
    assert (chunk.first, chunk.similarity) == (passage_name(LONG[0], 1), 0.5)


def test_neighbour_behind_goes_before_the_one_in_front() -> None:
    (chunk,) = chosen([LONG], [candidate(LONG[0], 2)], token_budget=4)

    assert chunk.content == "two c three d"


def test_nothing_is_merged_when_that_is_switched_off() -> None:
    chunks = chosen([LONG], [candidate(LONG[0], 2), candidate(LONG[0], 3)], merge_neighbours=False)

    assert [chunk.content for chunk in chunks] == ["two c", "three d"]


def test_chosen_passages_side_by_side_become_one_chunk() -> None:
    other = a_fact("other", "elsewhere")
    candidates = [candidate(LONG[0], 3, 0.4), candidate(other[0], 0, 0.9), candidate(LONG[0], 2, 0.8)]

    chunks = chosen([LONG, other], candidates, token_budget=5)

    assert [chunk.content for chunk in chunks] == ["two c three d", "elsewhere"]
    assert [chunk.similarity for chunk in chunks] == [0.8, 0.9]


def test_passage_between_two_chosen_ones_makes_them_one_chunk() -> None:
    (chunk,) = chosen([LONG], [candidate(LONG[0], 1), candidate(LONG[0], 3)], token_budget=6)

    assert chunk.content == "one b two c three d"


def test_neighbours_of_the_best_are_taken_first() -> None:
    other = a_fact("other", "before g", "hit h", "after i")

    chunks = chosen([LONG, other], [candidate(other[0], 1), candidate(LONG[0], 0)], token_budget=6)

    assert [chunk.content for chunk in chunks] == ["hit h after i", "zero a"]


def test_overlap_of_neighbours_is_not_repeated() -> None:
    passages = ["One is one. Two is two.", "Two is two. Three is three.", "Three is three. Four."]
    record = fact_record("f", passages, content="One is one. Two is two. Three is three. Four.")

    (chunk,) = chosen([(record, passages)], [candidate(record, 1)])

    assert chunk.content == record.content


def test_neighbour_that_is_known_already_is_not_merged_in() -> None:
    first = a_fact("first", "boilerplate")
    second = a_fact("second", "boilerplate", "news")

    chunks = chosen([first, second], [candidate(first[0]), candidate(second[0], 1)])

    assert [chunk.content for chunk in chunks] == ["boilerplate", "news"]


def test_neighbours_of_another_revision_or_fact_are_not_merged_in() -> None:
    record = LONG[0]
    texts = {
        passage_name(record, 2): "two c",
        PartName(record.fact_id, "0-old-6", 3): "old",
        PartName("x", "1", 1): "x",
    }
    selection = ChunkSelection(RetrievalConfig(), words)

    selection.offer([candidate(record, 2)], {record.fact_id: record}, texts)

    assert [chunk.content for chunk in selection.chunks()] == ["two c"]


def test_passages_may_be_offered_bit_by_bit() -> None:
    facts = [a_fact("a", "red"), a_fact("b", "red"), a_fact("c", "blue"), a_fact("d", "green")]
    selection = ChunkSelection(RetrievalConfig(max_chunks=2), words)

    counts = [
        selection.offer([candidate(record)], {record.fact_id: record}, passage_texts((record, texts)))
        for record, texts in facts
    ]

    assert counts == [1, 0, 1, 0]
    assert selection.is_full
    assert [chunk.content for chunk in selection.chunks()] == ["red", "blue"]


def test_passage_whose_text_is_gone_is_left_out() -> None:
    record = LONG[0]
    selection = ChunkSelection(RetrievalConfig(), words)

    assert selection.offer([candidate(record, 2)], {record.fact_id: record}, {}) == 0
    assert selection.chunks() == []
    assert selection.refused == 0


def test_result_has_every_field() -> None:
    record = fact_record("f", ["a", "b"], document_id="d", source="s")
    chunk = Chunk(record, passage_name(record, 1), "b", 0.75)

    assert chunk.with_tokens(7) == {
        "id": "f:1-abc-2:1",
        "doc_id": "d",
        "chunk_index": 1,
        "content": "b",
        "section_path": [],
        "section_title": None,
        "page_start": None,
        "page_end": None,
        "similarity": 0.75,
        "tokens": 7,
    }
    assert Chunk(fact_record("f"), passage_name(record, 0), "b", 0.75).with_tokens(1)["doc_id"] == "f"


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[tuple[FactRecord, Sequence[str]]], list[PassageCandidate], RetrievalConfig]:
    texts = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4).map(" ".join)
    facts = [a_fact(f"f{at}", *draw(st.lists(texts, min_size=1, max_size=6))) for at in range(draw(st.integers(1, 4)))]
    every = [candidate(record, at, draw(st.floats(0, 1))) for record, own in facts for at in range(len(own))]
    candidates = draw(st.permutations(every))[: draw(st.integers(0, len(every)))]
    config = RetrievalConfig(
        max_chunks=draw(st.integers(1, 6)),
        token_budget=draw(st.integers(1, 30)),
        merge_neighbours=draw(st.booleans()),
    )
    return facts, candidates, config


@settings(max_examples=300, deadline=None)
@given(cases())
def test_limits_hold_and_nothing_comes_twice(
    case: tuple[list[tuple[FactRecord, Sequence[str]]], list[PassageCandidate], RetrievalConfig],
) -> None:
    facts, candidates, config = case
    texts = passage_texts(*facts)

    chunks = chosen(facts, candidates, **config.model_dump())

    assert sum(map(words, chunks)) <= config.token_budget
    assert len(chunks) <= config.max_chunks
    offered = {texts[one.name] for one in candidates}
    assert all(any(text in chunk.content for text in offered) for chunk in chunks)
    places = [chunk.first for chunk in chunks]
    assert len(set(places)) == len(places)
    if not config.merge_neighbours:
        contents = [chunk.content for chunk in chunks]
        assert len(set(contents)) == len(contents)
    shortest = min((len(text.split()) for text in offered), default=0)
    assert bool(chunks) == (0 < shortest <= config.token_budget)


@pytest.mark.parametrize(
    ("passages", "content", "joined"),
    [
        (["One."], "One.", "One."),
        (["One.", "Two."], "One.\n\nTwo.", "One.\n\nTwo."),
        (["One.", "Two."], "One. Two.", "One. Two."),
        (["aaa", "bbb"], "aaabbb", "aaabbb"),
        (["One.", "Two."], "something else", "One.\nTwo."),
        (["One. Two.", "Two. Three."], "One. Two. Three.", "One. Two. Three."),
    ],
)
def test_joined_passages_read_as_the_content_does(passages: Sequence[str], content: str, joined: str) -> None:
    assert join_passages(passages, content) == joined


def test_gap_between_passages_is_bounded() -> None:
    assert len(join_passages(["One.", "Two."], f"One.{' ' * 5_000}Two.")) < 50
