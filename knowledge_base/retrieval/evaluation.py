"""How good a retriever is: test collections and the measures that are usual for them.

The measures are those of trec_eval: nDCG with linear gains, recall and reciprocal rank over what is judged relevant,
each cut at a rank and averaged over the queries that have a relevant document at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from knowledge_base.errors import InvalidInputError

CORPUS, QUERIES, JUDGEMENTS = "corpus.jsonl", "queries.jsonl", "qrels.tsv"
HIGHEST_SCORE = 1_000_000

Judgements: TypeAlias = Mapping[str, int]
"""Of one query: document id → score; above zero is relevant."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a test collection; its title, when it has one, is the first line of its text."""

    doc_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a test collection."""

    query_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Collection:
    """A retrieval test collection.

    Attributes:
        name: Name of its folder.
        documents: Every document that has a text.
        empty: Ids of the documents without one; nothing can find them.
        queries: Every query with at least one relevant document.
        judgements: Query id → document id → score.
    """

    name: str
    documents: tuple[Document, ...]
    empty: tuple[str, ...]
    queries: tuple[Query, ...]
    judgements: Mapping[str, Judgements]


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over the queries, each from 0 (nothing found) to 1 (nothing better possible)."""

    ndcg: float
    recall: float
    mrr: float


def ndcg(ranking: Sequence[str], judgements: Judgements, cut: int) -> float:
    """Normalised discounted cumulative gain, as trec_eval's ``ndcg_cut`` has it.

    The gain of a document is its score (not 2^score - 1), its discount log2(rank + 1), and the ideal ranking is
    made of all positive judgements. After Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR
    techniques", ACM TOIS 20(4), 2002.

    Args:
        ranking: Document ids, best first.
        judgements: The query's judgements.
        cut: The rank after which nothing counts.
    """
    gains = [max(judgements.get(doc_id, 0), 0) for doc_id in _distinct(ranking, cut)]
    ideal = sorted((score for score in judgements.values() if score > 0), reverse=True)[:cut]
    best = _discounted(ideal)
    return min(_discounted(gains) / best, 1.0) if best else 0.0


def recall(ranking: Sequence[str], judgements: Judgements, cut: int) -> float:
    """The share of the relevant documents that is found, as trec_eval's ``recall`` has it.

    Args:
        ranking: Document ids, best first.
        judgements: The query's judgements.
        cut: The rank after which nothing counts.
    """
    relevant = {doc_id for doc_id, score in judgements.items() if score > 0}
    if not relevant:
        return 0.0
    return len(relevant.intersection(_distinct(ranking, cut))) / len(relevant)


def reciprocal_rank(ranking: Sequence[str], judgements: Judgements, cut: int) -> float:
    """One over the rank of the first relevant document, 0 without one: trec_eval's ``recip_rank``, cut.

    Args:
        ranking: Document ids, best first.
        judgements: The query's judgements.
        cut: The rank after which nothing counts.
    """
    for rank, doc_id in enumerate(_distinct(ranking, cut), start=1):
        if judgements.get(doc_id, 0) > 0:
            return 1 / rank
    return 0.0


def mean_quality(rankings: Mapping[str, Sequence[str]], judgements: Mapping[str, Judgements], cut: int) -> Quality:
    """The three measures, each the mean over all queries that were ranked.

    Args:
        rankings: Query id → document ids, best first.
        judgements: Query id → the query's judgements.
        cut: The rank after which nothing counts.
    """
    pairs = [(ranking, judgements.get(query_id, {})) for query_id, ranking in rankings.items()]
    return Quality(
        ndcg=_mean([ndcg(ranking, judged, cut) for ranking, judged in pairs]),
        recall=_mean([recall(ranking, judged, cut) for ranking, judged in pairs]),
        mrr=_mean([reciprocal_rank(ranking, judged, cut) for ranking, judged in pairs]),
    )


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed (nearest rank); 0 of no values.

    Args:
        values: Any numbers.
        share: From 0 to 1.
    """
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def read_collection(folder: Path) -> Collection:
    """Reads ``corpus.jsonl`` {id, title, text}, ``queries.jsonl`` {id, text} and ``qrels.tsv`` from a folder.

    ``qrels.tsv`` has a header line and the columns query_id, doc_id, score. Judgements of documents that the corpus
    does not have count all the same; queries without any positive judgement are left out.

    Args:
        folder: The folder of the three files.

    Raises:
        InvalidInputError: A file is missing or malformed; the message names the file and the line.
    """
    if not folder.is_dir():
        raise InvalidInputError("collection", f"{folder} is no folder")
    documents, empty = _read_corpus(folder / CORPUS)
    judgements = _read_judgements(folder / JUDGEMENTS)
    queries = tuple(
        query
        for query in _read_queries(folder / QUERIES)
        if any(score > 0 for score in judgements.get(query.query_id, {}).values())
    )
    if not documents:
        raise InvalidInputError("collection", f"{CORPUS} has no document with a text")
    if not queries:
        raise InvalidInputError("collection", f"{JUDGEMENTS} judges no document relevant for any query of {QUERIES}")
    return Collection(folder.resolve().name, documents, empty, queries, judgements)


def _read_corpus(path: Path) -> tuple[tuple[Document, ...], tuple[str, ...]]:
    documents: list[Document] = []
    empty: list[str] = []
    for _, doc_id, record in _records(path):
        title, text = record["title"], record["text"]
        content = f"{title}\n{text}" if title.strip() else text
        if content.strip():
            documents.append(Document(doc_id, content))
        else:
            empty.append(doc_id)
    return tuple(documents), tuple(empty)


def _read_queries(path: Path) -> Iterator[Query]:
    for number, query_id, record in _records(path):
        if not record["text"].strip():
            raise _malformed(path, number, "the query has no text")
        yield Query(query_id, record["text"])


def _read_judgements(path: Path) -> dict[str, dict[str, int]]:
    judgements: dict[str, dict[str, int]] = {}
    for position, (number, line) in enumerate(_lines(path)):
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) != 3:
            raise _malformed(path, number, "needs three columns with tabs between: query_id, doc_id, score")
        query_id, doc_id, written = columns
        score = _score(written)
        if position == 0:
            if score is not None:
                raise _malformed(path, number, "the header is missing: query_id, doc_id, score")
            continue
        if score is None:
            raise _malformed(path, number, f"the score must be a whole number, {HIGHEST_SCORE} at most")
        judgements.setdefault(query_id, {})[doc_id] = score
    return judgements


def _score(written: str) -> int | None:
    try:
        score = int(written)
    except ValueError:
        return None
    return score if abs(score) <= HIGHEST_SCORE else None


def _records(path: Path) -> Iterator[tuple[int, str, dict[str, str]]]:
    seen: set[str] = set()
    for number, line in _lines(path):
        record = _json_object(path, number, line)
        identity = record.get("id")
        if isinstance(identity, bool) or not isinstance(identity, str | int) or identity == "":
            raise _malformed(path, number, 'needs an "id" that is a string or a whole number')
        if str(identity) in seen:
            raise _malformed(path, number, "its id stands in the file twice")
        seen.add(str(identity))
        yield number, str(identity), {key: _string(path, number, record, key) for key in ("title", "text")}


def _json_object(path: Path, number: int, line: str) -> dict[str, object]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        raise _malformed(path, number, f"is not valid JSON ({reason})") from None
    if not isinstance(record, dict):
        raise _malformed(path, number, "must be a JSON object")
    if "text" not in record:
        raise _malformed(path, number, 'needs a "text"')
    return record


def _string(path: Path, number: int, record: Mapping[str, object], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str | None):
        raise _malformed(path, number, f'"{key}" must be a string')
    return value or ""


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError:
                    raise _malformed(path, number, "is not valid UTF-8") from None
                if line.strip():
                    yield number, line
    except OSError as error:
        raise InvalidInputError("collection", f"{path.name} cannot be read: {error.strerror or error}") from None


def _malformed(path: Path, number: int, problem: str) -> InvalidInputError:
    return InvalidInputError("collection", f"{path.name}, line {number}: {problem}")


def _distinct(ranking: Sequence[str], cut: int) -> list[str]:
    return list(dict.fromkeys(ranking))[:cut]


def _discounted(gains: Iterable[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
