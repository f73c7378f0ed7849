"""From sections and passages to one ranking of passages."""

from __future__ import annotations

import array
import math
from collections.abc import Sequence

import pytest

from knowledge_base.index.candidate import Candidate, Candidates
from knowledge_base.index.passages import SECTION_PASSAGES
from knowledge_base.index.polyglot import Polyglot, QueryWords
from knowledge_base.keyspace import PartName
from knowledge_base.retrieval.chunk_candidates import PassageRanking, Section, StoredPassage, expanded

WEIGHT = 0.5


def name(fact_id: str, position: int = 0, passages: int = 1) -> PartName:
    return PartName(fact_id, f"1-abc-{passages}", position)


def found(fact_id: str, score: float, position: int = 0, passages: int = 1) -> Candidate:
    return Candidate(name(fact_id, position, passages).node_id, score)


def stored(text: str | None = None, vector: Sequence[float] | None = None) -> StoredPassage:
    return StoredPassage(text, None if vector is None else array.array("f", vector).tobytes())


def near(*candidates: Candidate) -> Candidates:
    return Candidates.of(candidates)


def section(*passages: PartName, match: float = 0.5) -> Section:
    return Section(passages, match)


def asked(query: str) -> QueryWords:
    return Polyglot().query(query, ["english"])


@pytest.fixture
def ranking() -> PassageRanking:
    return PassageRanking(WEIGHT)


def test_sections_become_their_passages() -> None:
    candidates = near(found("a", 9.0, 1, 6), found("b", 8.0)).matching([0.7, 0.6])

    sections = expanded(candidates, 100)

    assert [list(one.passages) for one in sections] == [[name("a", 4, 6), name("a", 5, 6)], [name("b")]]
    assert [one.match for one in sections] == [0.7, 0.6]


def test_expansion_ends_before_the_section_that_is_too_many() -> None:
    candidates = near(*(found(fact_id, 1.0, 0, SECTION_PASSAGES) for fact_id in "abc"))

    assert len(expanded(candidates, 2 * SECTION_PASSAGES)) == 2
    assert len(expanded(candidates, 2 * SECTION_PASSAGES - 1)) == 1
    assert len(expanded(candidates, 1)) == 1
    assert expanded(near(), 5) == []


def test_passage_that_both_find_is_first(ranking: PassageRanking) -> None:
    sections = [section(name("w"), match=0.9), section(name("both"), match=0.8)]

    ranked = ranking.ranked(
        asked("x"),
        near(found("m", 0.9), found("both", 0.8)),
        sections,
        {name("w"): stored(vector=[0, 1])},
        [1.0, 0.0],
    )

    # The word's match and the meaning's are 0.9 each: the user's own words go before.
    assert [one.name.fact_id for one in ranked] == ["both", "w", "m"]
    assert [one.similarity for one in ranked] == [0.8, 0.0, 0.9]


def test_meaning_counts_as_far_as_it_is_more_alike_than_unrelated_texts(ranking: PassageRanking) -> None:
    sections = [section(name("w"), match=0.35)]
    known = {name("w"): stored(vector=[0.5, 0.75**0.5])}

    for background, first in ((0.0, "w"), (0.45, "m")):
        ranked = ranking.ranked(asked("x"), near(found("m", 0.82)), sections, known, [1.0, 0.0], background=background)
        assert ranked[0].name.fact_id == first


def test_weight_decides_between_words_and_meaning() -> None:
    sections, known = [section(name("w"), match=0.9)], {name("w"): stored(vector=[0.0, 1.0])}

    for weight, first in ((0.2, "w"), (0.8, "m")):
        ranked = PassageRanking(weight).ranked(asked("x"), near(found("m", 0.9)), sections, known, [1.0, 0.0])
        assert ranked[0].name.fact_id == first


def test_similarity_of_what_words_found_is_the_cosine(ranking: PassageRanking) -> None:
    vectors = {"far": [0.0, 2.0], "near": [3.0, 0.0], "half": [1.0, 1.0], "opposite": [-1.0, 0.0], "zero": [0.0, 0.0]}
    sections = [section(name(fact_id)) for fact_id in vectors]

    ranked = ranking.ranked(
        asked("x"),
        near(),
        sections,
        {name(fact_id): stored(vector=vector) for fact_id, vector in vectors.items()},
        [2.0, 0.0],
    )

    similarities = {one.name.fact_id: one.similarity for one in ranked}
    expected = {"far": 0.0, "near": 1.0, "half": math.sqrt(0.5), "opposite": 0.0, "zero": 0.0}
    assert similarities == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("vector", [None, [1.0], [1.0, 0.0, 0.0]], ids=["none", "too short", "too long"])
def test_similarity_of_a_passage_without_a_usable_vector_is_the_share_of_the_words_that_it_has(
    ranking: PassageRanking, vector: list[float] | None
) -> None:
    known = {name("a"): stored("The wing and its lift.", vector)}

    ranked = ranking.ranked(asked("does a wing lift more than drag"), near(), [section(name("a"))], known, [1.0, 0.0])

    assert [one.similarity for one in ranked] == pytest.approx([2 / 3])


def test_query_without_a_vector_is_ranked_by_words(ranking: PassageRanking) -> None:
    sections = [section(name("a"), match=0.8), section(name("b", 0, 2), name("b", 1, 2))]
    texts = {name("a"): stored("wings lift"), name("b", 0, 2): stored("drag"), name("b", 1, 2): stored("a wing")}

    ranked = ranking.ranked(asked("lifting wings"), near(), sections, texts, None, compared=set(texts))

    assert [one.name for one in ranked] == [name("a"), name("b", 1, 2), name("b", 0, 2)]
    assert [one.similarity for one in ranked] == [1.0, 0.5, 0.0]


def test_passages_of_a_section_with_more_of_the_words_go_first_then_the_nearer_ones(ranking: PassageRanking) -> None:
    names = [name("a", position, 4) for position in range(4)]
    texts = ["the drag", "lifting wings", "a wing", "wing wing"]
    vectors = [[0.2, 1.0], [0.1, 1.0], [0.0, 1.0], [0.15, 1.0]]
    known = {one: stored(text, vector) for one, text, vector in zip(names, texts, vectors, strict=True)}

    ranked = ranking.ranked(
        asked("what lifts the wing"), near(), [section(*names, match=1.0)], known, [1.0, 0.0], compared=set(names)
    )

    assert [one.name.position for one in ranked] == [1, 3, 2, 0]


def test_passages_whose_words_are_not_looked_at_are_ordered_by_similarity(ranking: PassageRanking) -> None:
    names = [name("a", position, 3) for position in range(3)]
    known = {names[0]: stored("a wing", [0.0, 1.0]), names[2]: stored("a wing", [1.0, 1.0])}

    ranked = ranking.ranked(asked("wing"), near(found("a", 0.9, 1, 3)), [section(*names)], known, [1.0, 0.0])

    assert [one.name.position for one in ranked] == [1, 2, 0]


def test_words_of_each_passage_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = QueryWords.shared
    seen: list[str] = []

    def counted(words: QueryWords, text: str) -> int:
        seen.append(text)
        return shared(words, text)

    monkeypatch.setattr(QueryWords, "shared", counted)
    names = [name("a", position, 2) for position in range(2)]
    known = {one: stored(f"wing {one.position}") for one in names}

    PassageRanking(WEIGHT).ranked(asked("wing"), near(), [section(*names)], known, None, compared=set(names))

    assert seen == ["wing 0", "wing 1"]


def test_words_are_shared_in_each_of_the_languages(ranking: PassageRanking) -> None:
    words = Polyglot().query("die Häuser und die houses", ["english", "german"])
    known = {name("a"): stored("two houses"), name("b"): stored("ein Haus"), name("c"): stored("Haus, house")}

    ranked = ranking.ranked(words, near(), [section(one) for one in known], known, None)

    assert [one.similarity for one in ranked] == [0.5, 0.5, 1.0]


def test_similarities_are_cut_to_one(ranking: PassageRanking) -> None:
    assert ranking.ranked(asked("x"), near(found("a", 1.0000002), found("b", -0.2)), [], {}, [1.0])[0].similarity == 1.0
    assert ranking.ranked(asked("x"), near(found("b", -0.2)), [], {}, [1.0])[0].similarity == 0.0


def test_nothing_found_is_nothing_ranked(ranking: PassageRanking) -> None:
    assert ranking.ranked(asked("x"), near(), [], {}, [1.0]) == []
