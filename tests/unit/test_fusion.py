"""From candidates to one ranking, with scores worked out by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from knowledge_base.index.candidate import Candidate, Candidates
from knowledge_base.keyspace import PartName
from knowledge_base.retrieval import fusion
from knowledge_base.retrieval.fusion import Ranked, Ranking

DEPTH = 10


def fused(text: list[Candidate], vector: list[Candidate], weight: float = 0.5, depth: int = DEPTH) -> Ranking:
    return fusion.convex_combination(Candidates.of(text), Candidates.of(vector), weight=weight, depth=depth)


def by_similarity(candidates: list[Candidate]) -> Ranking:
    return fusion.by_similarity(Candidates.of(candidates))


def by_words(candidates: list[Candidate]) -> Ranking:
    return fusion.by_words(Candidates.of(candidates))


def candidate(fact_id: str, score: float = 0.5, position: int = 0, revision: str = "1-a-1") -> Candidate:
    return Candidate(PartName(fact_id, revision, position).node_id, score)


def ids(ranked: Iterable[Ranked]) -> list[str]:
    return [item.fact_id for item in ranked]


def scored(ranking: Ranking) -> list[Any]:
    return [(item.fact_id, pytest.approx(item.score)) for item in ranking]


def test_score_is_the_weighted_mean_of_meaning_and_words() -> None:
    ranked = fused([candidate("c", 0.9), candidate("a", 0.5)], [candidate("a", 0.8), candidate("c", 0.6)], weight=0.25)

    assert scored(ranked) == [("c", 0.25 * 0.6 + 0.75 * 0.9), ("a", 0.25 * 0.8 + 0.75 * 0.5)]


def test_what_the_words_did_not_find_has_none_of_them() -> None:
    ranked = fused([candidate("a", 0.9), candidate("b", 0.8)], [candidate("a", 0.7), candidate("z", 0.6)])

    assert scored(ranked) == [("a", 0.8), ("b", (0.8 + 0.6) / 2), ("z", 0.3)]


def test_what_a_full_list_left_out_is_as_good_as_its_last() -> None:
    ranked = fused([candidate("a", 0.9), candidate("b", 0.8)], [candidate("a", 0.7), candidate("z", 0.6)], depth=2)

    assert scored(ranked) == [("a", 0.8), ("b", 0.7), ("z", (0.8 + 0.6) / 2)]


def test_retriever_that_found_nothing_takes_nothing_from_the_other() -> None:
    assert scored(fused([], [candidate("a", 0.7)])) == [("a", 0.7)]
    assert scored(fused([candidate("a", 0.4)], [])) == [("a", 0.4)]


def test_equal_scores_stand_as_the_words_have_them() -> None:
    assert ids(fused([candidate("b", 0.5), candidate("a", 0.5)], [candidate("a"), candidate("b")])) == ["b", "a"]


def test_what_each_retriever_found_is_kept() -> None:
    ranked = list(fused([candidate("a", 0.8, 1), candidate("b", 0.7, 2)], [candidate("a", 0.9, 4)]))

    assert ranked[0].found == {"vector": candidate("a", 0.9, 4), "text": candidate("a", 0.8, 1)}
    assert ranked[1].found == {"text": candidate("b", 0.7, 2)}
    assert ranked[1].revision == "1-a-1"


def test_best_passage_of_a_fact_counts() -> None:
    many = [candidate("a", 0.9, 3), candidate("a", 0.8, 1), candidate("b", 0.6)]

    ranked = fused([candidate("b", 0.4)], many)

    assert scored(ranked) == [("b", 0.5), ("a", 0.45)]
    assert list(ranked)[1].found == {"vector": many[0]}


def test_best_part_of_each_fact_and_revision_is_kept_in_order() -> None:
    parts = [
        candidate("b", 0.9, 1),
        candidate("a", 0.8, 5),
        candidate("b", 0.7, 2),
        candidate("b", 0.6, 1, "2-b-1"),
        candidate("a", 0.5, 1),
    ]

    kept = list(by_similarity(parts))

    assert [(item.fact_id, item.revision) for item in kept] == [("b", "1-a-1"), ("a", "1-a-1"), ("b", "2-b-1")]
    assert [item.found["vector"].name.position for item in kept] == [1, 5, 1]


@pytest.mark.parametrize(("rank", "retriever"), [(by_similarity, "vector"), (by_words, "text")])
def test_match_is_the_score_and_the_retrievers_own_score_is_kept(rank: Any, retriever: str) -> None:
    own = Candidates.of([candidate("a", 12.5, 3)]).matching([0.5])

    (ranked,) = getattr(fusion, rank.__name__)(own)

    assert ranked == Ranked("a", "1-a-1", 0.5, {retriever: candidate("a", 12.5, 3)})


@pytest.mark.parametrize("rank", [by_similarity, by_words])
def test_single_retrievers_fold_facts_too(rank: object) -> None:
    assert callable(rank)

    ranked = rank([candidate("b", 0.9, 2), candidate("a", 0.8), candidate("b", 0.7, 1)])

    assert ids(ranked) == ["b", "a"]
    assert list(rank([])) == []


def test_nothing_found_is_nothing_ranked() -> None:
    assert list(fused([], [])) == []


def test_part_of_a_ranking_is_what_stands_there() -> None:
    ranking = by_similarity([candidate(one, 1.0 - place / 10) for place, one in enumerate("abcd")])

    assert ids(ranking.part(1, 3)) == ["b", "c"]
    assert ids(ranking.part(3, 9)) == ["d"]
    assert len(ranking) == 4


@pytest.mark.parametrize(("least", "left"), [(0.0, "abb"), (0.5, "abb"), (0.51, "a"), (0.9, "a"), (0.91, "")])
def test_ranking_is_cut_at_a_score(least: float, left: str) -> None:
    ranking = by_similarity([candidate("a", 0.9), candidate("b", 0.5), candidate("b", 0.5, revision="2-b-1")])

    assert ids(ranking.at_least(least)) == list(left)
