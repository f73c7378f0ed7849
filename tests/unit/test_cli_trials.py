"""``kb demo`` and ``kb eval`` on a stand-in, and the loop that asks their questions."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, cast

import pytest

from knowledge_base.errors import UnavailableError
from knowledge_base.interfaces.cli import demo, main, session, trial
from knowledge_base.retrieval.evaluation import Query, read_collection
from tests.unit.cli_base import FakeBase

QUERIES = [Query(f"q{number}", f"question {number}") for number in range(40)]


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> FakeBase:
    fake = FakeBase()
    monkeypatch.setattr(session, "open_base", fake.open)
    monkeypatch.setattr(trial, "PATIENCE", 0.0)
    return fake


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "Tea & co."
    folder.mkdir()
    documents = [("1", "green tea"), ("2/ä", "black coffee"), ("3", "green tea"), ("4", ""), ("5", "cold water")]
    lines = [json.dumps({"id": doc_id, "title": "", "text": text}) for doc_id, text in documents]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    (folder / "queries.jsonl").write_text('{"id": "q1", "text": "green tea"}\n{"id": "q2", "text": "coffee water"}\n')
    (folder / "qrels.tsv").write_text("query_id\tdoc_id\tscore\nq1\t1\t1\nq1\t3\t1\nq2\t2/ä\t1\nq2\t4\t1\n")
    return folder


def test_eval_measures_each_mode(base: FakeBase, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["eval", str(folder), "--modes", "text,hybrid", "--json"]) == 0

    captured = capsys.readouterr()
    measured = json.loads(captured.out)
    assert list(measured) == ["text", "hybrid"]
    figures = measured["text"]
    assert list(figures) == ["ndcg@10", "recall@10", "mrr@10", "p50_ms", "p95_ms", "queries"]
    assert figures["recall@10"] == pytest.approx((1 + 0.5) / 2)
    assert figures["mrr@10"] == 1.0
    assert figures["queries"] == 2
    assert "1 documents without a text were skipped" in captured.err


def test_eval_uses_a_namespace_of_its_own_and_leaves_nothing(base: FakeBase, folder: Path):
    assert main(["eval", str(folder), "--modes", "text"]) == 0

    assert base.settings.namespace.startswith("eval-Tea---co.-")
    assert base.settings.embedding.cache_size == 0
    assert base.dropped == [base.settings.namespace]
    assert base.facts == {}


def test_eval_keeps_the_documents_for_the_next_run(base: FakeBase, folder: Path):
    main(["eval", str(folder), "--modes", "text", "--keep"])
    first = base.settings.namespace
    main(["eval", str(folder), "--modes", "text", "--keep"])

    assert base.settings.namespace == first
    assert len(base.facts) == 3
    assert base.deleted == []


def test_eval_in_a_given_namespace(base: FakeBase, folder: Path):
    main(["eval", str(folder), "--modes", "text", "--namespace", "mine"])

    assert base.settings.namespace == "mine"
    assert base.deleted == [{"filters": {"source": "eval-Tea---co."}, "principals": None}]
    assert base.dropped == []


def test_filtered_eval_filters_every_search(base: FakeBase, folder: Path):
    main(["eval", str(folder), "--modes", "vector", "--top-k", "3", "--filtered", "--keep"])

    assert {tuple(fact["tags"]) for fact in base.facts.values()} == {("evaluated",)}
    assert {tuple(fact["principals"]) for fact in base.facts.values()} == {("group:evaluators",)}
    for search in base.searches:
        assert search["principals"] == ["group:evaluators"]
        assert search["filters"] == {"tags": ["evaluated"]}
        assert (search["mode"], search["top_k"]) == ("vector", 3)


def test_eval_prints_a_table(base: FakeBase, folder: Path, capsys: pytest.CaptureFixture[str]):
    main(["eval", str(folder), "--modes", "text"])

    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["mode", "ndcg@10", "recall@10", "mrr@10", "p50_ms", "p95_ms", "queries"]
    assert row.split()[0] == "text"
    assert row.split()[-1] == "2"


def test_eval_tells_what_makes_its_figures_doubtful(base: FakeBase, folder: Path, capsys: pytest.CaptureFixture[str]):
    base.degraded, base.pending = ["vector"], [2]
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write('\n{"id": "6", "text": "\\u0000"}')
    base_store = base.store_fact

    async def refusing(content: str, *words: Any, **more: Any) -> dict[str, Any]:
        return await base_store("" if "\0" in content else content, *words, **more)

    base.store_fact = refusing  # type: ignore[method-assign]

    assert main(["eval", str(folder), "--modes", "hybrid"]) == 0

    notes = capsys.readouterr().err
    assert "1 documents could not be stored" in notes
    assert "2 documents still wait for their vectors" in notes
    assert "2 of 2 searches were degraded" in notes


@pytest.mark.parametrize("command", ["demo", "eval"])
def test_documents_that_could_not_all_be_stored_are_not_measured(
    base: FakeBase, folder: Path, command: str, capsys: pytest.CaptureFixture[str]
):
    base.completed = False

    assert main([command] if command == "demo" else [command, str(folder)]) == 3

    assert "run it again" in capsys.readouterr().err
    assert base.searches == []


@pytest.mark.parametrize("modes", ["", ",", "text,magic"])
def test_eval_refuses_unknown_modes(base: FakeBase, folder: Path, modes: str, capsys: pytest.CaptureFixture[str]):
    assert main(["eval", str(folder), "--modes", modes]) == 2

    assert capsys.readouterr().err.startswith("kb: modes: must be one or more of text, vector, hybrid")


def test_eval_names_file_and_line_of_a_bad_collection(base: FakeBase, folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "queries.jsonl").write_text("{")

    assert main(["eval", str(folder)]) == 2

    assert "queries.jsonl, line 1" in capsys.readouterr().err


def test_demo_shows_questions_and_share(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    assert main(["demo", "--questions", "20"]) == 0

    printed = capsys.readouterr().out
    assert base.settings.namespace == "demo"
    assert "240 Wikipedia paragraphs: 240 new, 0 there already" in printed
    assert "12. What is the Rhine Gorge known for?" in printed
    assert "20 questions: the paragraph" in printed
    assert "20 searches, one at a time" in printed
    assert "CC BY-SA 4.0" in printed
    assert "--namespace demo" in printed


def test_second_demo_stores_nothing_new(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    main(["demo", "--questions", "1"])
    capsys.readouterr()

    assert main(["demo", "--questions", "1", "--json"]) == 0

    shown = json.loads(capsys.readouterr().out)
    assert (shown["passages"], shown["new"], shown["questions"]) == (240, 0, 1)
    assert len(shown["answers"]) == 12
    assert len(base.facts) == 240


@pytest.mark.parametrize(("folders", "typed"), [([], "own/bin/kb"), (["other"], "own/bin/kb"), (["own/bin"], "kb")])
def test_demo_names_the_command_as_the_shell_finds_it(
    folders: list[str], typed: str, base: FakeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    for folder in ("own/bin", "other"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "kb").touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", ":".join(str(tmp_path / folder) for folder in folders))
    monkeypatch.setattr("sys.argv", ["own/bin/kb", "demo"])

    main(["demo", "--questions", "1"])

    assert f"Try next: {typed} search" in capsys.readouterr().out


def test_demo_on_another_server_repeats_it_in_the_hint(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    main(["demo", "--questions", "1", "--redis-url", "redis://:secret@one:1", "--namespace", "mine"])

    printed = capsys.readouterr().out
    assert "--namespace mine --redis-url redis://***@one:1" in printed
    assert "secret" not in printed


def test_demo_tells_what_makes_its_figures_doubtful(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    base.degraded, base.pending = ["vector"], [3]

    main(["demo", "--questions", "1"])

    notes = capsys.readouterr().err
    assert "3 passages still wait for their vectors" in notes
    assert "1 of 1 searches were degraded" in notes


def test_demo_goes_on_when_a_passage_was_changed(
    base: FakeBase, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    stored = {"processed": 240, "succeeded": 0, "duplicates": 239, "failed": [{"index": 3, "error": "changed"}]}

    async def all_but_one(facts: Any, *, progress: Any = None) -> Any:
        return {**stored, "completed": True}

    monkeypatch.setattr(base, "store_facts", all_but_one)

    assert main(["demo", "--questions", "1"]) == 0

    captured = capsys.readouterr()
    assert "0 new, 239 there already" in captured.out
    assert captured.out.count("Nothing found.") == 12
    assert "changed" in captured.err


def test_demo_fails_when_nothing_could_be_stored(
    base: FakeBase, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    async def none_at_all(facts: Any, *, progress: Any = None) -> Any:
        failed = [{"index": place, "error": "read only"} for place in range(len(facts))]
        return {"processed": 240, "succeeded": 0, "duplicates": 0, "failed": failed, "completed": True}

    monkeypatch.setattr(base, "store_facts", none_at_all)

    assert main(["demo"]) == 1

    assert "read only" in capsys.readouterr().err


def test_shown_questions_are_shipped_and_spread_over_the_articles():
    collection = read_collection(demo.PASSAGES)
    known = {query.query_id for query in collection.queries}
    articles = {next(iter(collection.judgements[query_id])).partition("-")[0] for query_id in demo.SHOWN}

    assert (len(collection.documents), len(collection.queries)) == (240, 1190)
    assert known >= set(demo.SHOWN)
    assert len(articles) == len(demo.SHOWN) == 12
    assert "CC BY-SA 4.0" in (demo.PASSAGES / "ATTRIBUTION").read_text()


def test_spread_takes_from_everywhere():
    assert [query.query_id for query in demo.spread(QUERIES, 4)] == ["q0", "q10", "q20", "q30"]
    assert demo.spread(QUERIES, 41) is QUERIES


async def test_rank_all_asks_one_at_a_time_while_there_is_time():
    under_way: list[int] = []
    running = 0

    async def search(text: str) -> Any:
        nonlocal running
        running += 1
        under_way.append(running)
        await asyncio.sleep(0.001)
        running -= 1
        return {"hits": [{"fact_id": text}], "degraded": [], "complete": True}

    rankings = await trial.rank_all(
        search, QUERIES, lambda done, total: None, alone_for=0.0, alone_at_least=10, side_by_side=4
    )

    assert under_way[:10] == [1] * 10
    assert max(under_way[10:]) == 4
    assert {ranking.query_id for ranking in rankings} == {query.query_id for query in QUERIES}
    assert trial.search_times(rankings)[2] == 10


async def test_rank_all_stops_at_the_first_failure():
    asked: list[str] = []

    async def search(text: str) -> Any:
        asked.append(text)
        await asyncio.sleep(0)
        if len(asked) > 5:
            raise UnavailableError("gone")
        return {"hits": [], "degraded": [], "complete": True}

    with pytest.raises(UnavailableError):
        await trial.rank_all(search, QUERIES, lambda done, total: None, alone_for=0.0, alone_at_least=1, side_by_side=4)

    assert len(asked) < len(QUERIES)


async def test_wait_until_indexed_goes_on_while_the_number_falls():
    base = FakeBase()
    base.pending = [3, 2, 1, 0]

    assert await trial.wait_until_indexed(cast("Any", base), pause=0.0) == 0


async def test_wait_until_indexed_gives_up_without_progress():
    base = FakeBase()
    base.pending = [3, 3, 3]

    assert await trial.wait_until_indexed(cast("Any", base), patience=0.0, pause=0.0) == 3
