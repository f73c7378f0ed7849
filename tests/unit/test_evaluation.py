"""Measures against values computed by hand and against what must always hold; collections good and bad."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge_base.errors import InvalidInputError
from knowledge_base.retrieval.evaluation import (
    Quality,
    mean_quality,
    ndcg,
    percentile,
    read_collection,
    recall,
    reciprocal_rank,
)

JUDGED = {"a": 3, "b": 2, "c": 1, "d": 0, "e": -1}

doc_ids = st.sampled_from([*"abcdefghij"])
rankings = st.lists(doc_ids, max_size=20)
judgements = st.dictionaries(doc_ids, st.integers(-2, 4), max_size=10)
cuts = st.integers(1, 12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus.jsonl").write_text(
        '{"id": "1", "title": "Tea", "text": "Leaves in water."}\n'
        '{"id": 2, "title": "", "text": "Beans in water."}\n'
        "\n"
        '{"id": "3", "title": null, "text": " "}\n'
        '{"id": "4", "text": "Hops in water.\u2028And malt."}\n'
    )
    (tmp_path / "queries.jsonl").write_text('{"id": "q1", "text": "tea"}\n{"id": "q2", "text": "milk"}\n')
    (tmp_path / "qrels.tsv").write_text("query_id\tdoc_id\tscore\nq1\t1\t2\nq1\tgone\t1\nq2\t2\t0\n")
    return tmp_path


def test_ndcg_has_linear_gains_and_logarithmic_discount():
    ranking = ["b", "x", "a", "e"]
    found = 2 / 1 + 0 / math.log2(3) + 3 / 2 + 0
    ideal = 3 / 1 + 2 / math.log2(3) + 1 / 2

    assert ndcg(ranking, JUDGED, 10) == pytest.approx(found / ideal)
    assert found / ideal == pytest.approx(0.735, abs=0.001)


def test_ndcg_cuts_the_ideal_ranking_too():
    assert ndcg(["a"], JUDGED, 1) == 1.0
    assert ndcg(["b", "a"], JUDGED, 1) == pytest.approx(2 / 3)


def test_ndcg_counts_relevant_documents_that_the_corpus_does_not_have():
    assert ndcg(["here"], {"here": 1, "elsewhere": 1}, 10) == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_recall_is_the_share_of_what_scores_above_zero():
    assert recall(["b", "d", "e", "x"], JUDGED, 10) == pytest.approx(1 / 3)
    assert recall(["d", "b", "a"], JUDGED, 2) == pytest.approx(1 / 3)


def test_reciprocal_rank_looks_for_the_first_relevant_document():
    assert reciprocal_rank(["x", "d", "c", "a"], JUDGED, 10) == pytest.approx(1 / 3)
    assert reciprocal_rank(["x", "d", "c"], JUDGED, 2) == 0.0


def test_a_document_that_is_ranked_twice_counts_once():
    assert ndcg(["a", "a", "b"], JUDGED, 10) == ndcg(["a", "b"], JUDGED, 10)


def test_mean_quality_averages_over_the_queries():
    quality = mean_quality({"q1": ["a"], "q2": ["x"]}, {"q1": {"a": 1}, "q2": {"b": 1}}, 10)

    assert quality == Quality(ndcg=0.5, recall=0.5, mrr=0.5)
    assert mean_quality({}, {}, 10) == Quality(0.0, 0.0, 0.0)


@given(rankings, judgements, cuts)
def test_measures_stay_between_nothing_and_everything(ranking, judged, cut):
    for measure in (ndcg, recall, reciprocal_rank):
        assert 0.0 <= measure(ranking, judged, cut) <= 1.0


@given(judgements.filter(lambda judged: any(score > 0 for score in judged.values())))
def test_the_ideal_ranking_is_perfect(judged):
    ideal = sorted(judged, key=lambda doc_id: -judged[doc_id])

    for measure in (ndcg, recall, reciprocal_rank):
        assert measure(ideal, judged, 10) == pytest.approx(1.0)


@given(rankings, judgements, cuts)
def test_more_hits_never_lower_recall(ranking, judged, cut):
    assert recall(ranking, judged, cut) <= recall(ranking, judged, cut + 1)


def test_percentile_is_a_value_that_was_measured():
    assert percentile([4, 1, 3, 2], 0.5) == 2
    assert percentile(range(1, 101), 0.95) == 95
    assert percentile([7], 0.0) == 7
    assert percentile([], 0.5) == 0.0


def test_collection_joins_titles_and_leaves_out_what_cannot_be_measured(folder: Path):
    collection = read_collection(folder)

    assert [(document.doc_id, document.text) for document in collection.documents] == [
        ("1", "Tea\nLeaves in water."),
        ("2", "Beans in water."),
        ("4", "Hops in water.\u2028And malt."),
    ]
    assert collection.empty == ("3",)
    assert [query.query_id for query in collection.queries] == ["q1"]
    assert collection.judgements["q1"] == {"1": 2, "gone": 1}
    assert collection.name == folder.name


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("corpus.jsonl", '{"id": "1", "text": "a"}\n{"id"', "corpus.jsonl, line 2: is not valid JSON"),
        ("corpus.jsonl", "[" * 100_000, "corpus.jsonl, line 1: is not valid JSON"),
        ("corpus.jsonl", "[1]", "line 1: must be a JSON object"),
        ("corpus.jsonl", '{"text": "a"}', 'line 1: needs an "id"'),
        ("corpus.jsonl", '{"id": true, "text": "a"}', 'line 1: needs an "id"'),
        ("corpus.jsonl", '{"id": "1"}', 'line 1: needs a "text"'),
        ("corpus.jsonl", '{"id": "1", "text": 7}', 'line 1: "text" must be a string'),
        (
            "corpus.jsonl",
            '{"id": "1", "text": "a"}\n\n{"id": 1, "text": "b"}',
            "line 3: its id stands in the file twice",
        ),
        ("corpus.jsonl", '{"id": "1", "text": ""}', "no document with a text"),
        ("queries.jsonl", '{"id": "q1", "text": " "}', "queries.jsonl, line 1: the query has no text"),
        ("queries.jsonl", '{"id": "q9", "text": "tea"}', "judges no document relevant"),
        ("qrels.tsv", "q1\t1\t2\n", "qrels.tsv, line 1: the header is missing"),
        ("qrels.tsv", "query_id\tdoc_id\tscore\nq1 1 2\n", "line 2: needs three columns"),
        ("qrels.tsv", "query_id\tdoc_id\tscore\nq1\t1\tgood\n", "line 2: the score must be a whole number"),
        ("qrels.tsv", "query_id\tdoc_id\tscore\nq1\t1\t99999999\n", "line 2: the score must be a whole number"),
    ],
)
def test_malformed_collection_names_file_and_line(folder: Path, file: str, content: str, problem: str):
    (folder / file).write_text(content)

    with pytest.raises(InvalidInputError) as refused:
        read_collection(folder)

    assert problem in str(refused.value)
    assert refused.value.field == "collection"


def test_bytes_that_are_no_text_are_named_by_line(folder: Path):
    (folder / "queries.jsonl").write_bytes(b'{"id": "q1", "text": "tea"}\n{"id": "q2", "text": "\xff"}\n')

    with pytest.raises(InvalidInputError, match=r"queries\.jsonl, line 2: is not valid UTF-8"):
        read_collection(folder)


@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl", "qrels.tsv"])
def test_missing_file_is_named(folder: Path, file: str):
    (folder / file).unlink()

    with pytest.raises(InvalidInputError, match=f"{file} cannot be read"):
        read_collection(folder)


def test_folder_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(InvalidInputError, match="is no folder"):
        read_collection(tmp_path / "nowhere")
