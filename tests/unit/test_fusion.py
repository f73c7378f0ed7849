"""From candidates to one ranking, with scores worked out by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from knowledge_base.index.candidate import Candidate, Candidates
from knowledge_base.keyspace import PartName
from knowledge_base.retrieval import fusion
from knowledge_base.retrieval.fusion import Ranked, Ranking

K = 60


def reciprocal_rank_fusion(retrieved: dict[str, list[Candidate]], k: int) -> Ranking:
    return fusion.reciprocal_rank_fusion({name: Candidates.of(found) for name, found in retrieved.items()}, k)


def by_similarity(candidates: list[Candidate]) -> Ranking:
    return fusion.by_similarity(Candidates.of(candidates))


def by_words(candidates: list[Candidate]) -> Ranking:
    return fusion.by_words(Candidates.of(candidates))


def candidate(fact_id: str, score: float = 0.5, position: int = 0, revision: str = "1-a-1") -> Candidate:
    return Candidate(PartName(fact_id, revision, position).node_id, score)


def ids(ranked: Iterable[Ranked]) -> list[str]:
    return [item.fact_id for item in ranked]


def test_sum_of_reciprocal_ranks_is_divided_by_its_maximum() -> None:
    ranked = reciprocal_rank_fusion(
        {
            "vector": [candidate("a", 0.9), candidate("b", 0.8), candidate("c", 0.7)],
            "text": [candidate("c", 12.0), candidate("a", 11.0), candidate("d", 10.0)],
        },
        K,
    )

    most = 2 / 61
    found: list[Any] = [(item.fact_id, pytest.approx(item.score)) for item in ranked]
    assert found == [
        ("a", (1 / 61 + 1 / 62) / most),
        ("c", (1 / 63 + 1 / 61) / most),
        ("b", (1 / 62) / most),
        ("d", (1 / 63) / most),
    ]


def test_constant_of_the_formula_is_used() -> None:
    (_, second) = reciprocal_rank_fusion({"text": [candidate("a"), candidate("b")]}, 1)

    assert second.score == pytest.approx((1 / 3) / (1 / 2))


def test_first_place_everywhere_scores_one() -> None:
    (ranked,) = reciprocal_rank_fusion({"vector": [candidate("a")], "text": [candidate("a")]}, K)

    assert ranked.score == 1.0


def test_first_place_in_one_of_two_scores_a_half() -> None:
    ranked = reciprocal_rank_fusion({"vector": [candidate("a")], "text": []}, K)

    assert [item.score for item in ranked] == [0.5]


def test_equal_sums_stand_as_the_first_retriever_has_them() -> None:
    one, two = [candidate("a"), candidate("b")], [candidate("b"), candidate("a")]

    assert ids(reciprocal_rank_fusion({"vector": one, "text": two}, K)) == ["a", "b"]
    assert ids(reciprocal_rank_fusion({"text": two, "vector": one}, K)) == ["b", "a"]


def test_of_equal_ranks_in_different_retrievers_the_firsts_comes_first() -> None:
    retrieved = {"vector": [candidate("z")], "text": [candidate("a")]}

    assert ids(reciprocal_rank_fusion(retrieved, K)) == ["z", "a"]


def test_what_each_retriever_found_is_kept() -> None:
    ranked = list(
        reciprocal_rank_fusion(
            {"vector": [candidate("a", 0.9, 4)], "text": [candidate("b", 9.0, 2), candidate("a", 8.0, 1)]}, K
        )
    )

    assert ranked[0].found == {"vector": candidate("a", 0.9, 4), "text": candidate("a", 8.0, 1)}
    assert ranked[1].found == {"text": candidate("b", 9.0, 2)}
    assert ranked[1].revision == "1-a-1"


def test_further_passages_of_a_fact_take_no_rank_from_others() -> None:
    many = [candidate("a", 0.9, 3), candidate("a", 0.8, 1), candidate("a", 0.7, 2), candidate("b", 0.6)]

    ranked = list(reciprocal_rank_fusion({"vector": many}, K))

    found: list[Any] = [(item.fact_id, pytest.approx(item.score)) for item in ranked]
    assert found == [("a", 1.0), ("b", 61 / 62)]
    assert ranked[0].found == {"vector": many[0]}


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


@pytest.mark.parametrize(("cosine", "score"), [(0.25, 0.25), (1.0000002, 1.0), (-0.3, 0.0), (0.0, 0.0)])
def test_similarity_is_cut_to_zero_and_one(cosine: float, score: float) -> None:
    (ranked,) = by_similarity([candidate("a", cosine, 3)])

    assert ranked == Ranked("a", "1-a-1", score, {"vector": candidate("a", cosine, 3)})


@pytest.mark.parametrize(("bm25", "score"), [(0.0, 0.0), (10.0, 0.5), (30.0, 0.75), (90.0, 0.9)])
def test_words_are_pressed_between_zero_and_one(bm25: float, score: float) -> None:
    (ranked,) = by_words([candidate("a", bm25, 2)])

    assert ranked.score == pytest.approx(score)
    assert ranked.found == {"text": candidate("a", bm25, 2)}


@pytest.mark.parametrize("rank", [by_similarity, by_words])
def test_single_retrievers_fold_facts_too(rank: object) -> None:
    assert callable(rank)

    ranked = rank([candidate("b", 0.9, 2), candidate("a", 0.8), candidate("b", 0.7, 1)])

    assert ids(ranked) == ["b", "a"]
    assert list(rank([])) == []


def test_nothing_found_is_nothing_ranked() -> None:
    assert list(reciprocal_rank_fusion({"vector": [], "text": []}, K)) == []


def test_part_of_a_ranking_is_what_stands_there() -> None:
    ranking = by_similarity([candidate(one, 1.0 - place / 10) for place, one in enumerate("abcd")])

    assert ids(ranking.part(1, 3)) == ["b", "c"]
    assert ids(ranking.part(3, 9)) == ["d"]
    assert len(ranking) == 4


@pytest.mark.parametrize(("least", "left"), [(0.0, "abb"), (0.5, "abb"), (0.51, "a"), (0.9, "a"), (0.91, "")])
def test_ranking_is_cut_at_a_score(least: float, left: str) -> None:
    ranking = by_similarity([candidate("a", 0.9), candidate("b", 0.5), candidate("b", 0.5, revision="2-b-1")])

    assert ids(ranking.at_least(least)) == list(left)
