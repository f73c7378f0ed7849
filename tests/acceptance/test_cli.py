"""The command ``kb`` on a real server with the real local model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knowledge_base.interfaces.cli import main
from knowledge_base.interfaces.cli.demo import PASSAGES

KB = str(Path(sys.executable).with_name("kb"))

RunJson = Callable[..., Any]


@pytest.fixture
def run_json(redis_url: str, namespace: str, capsys: pytest.CaptureFixture[str]) -> RunJson:
    """Runs a command that must succeed, in the test's namespace, and returns its JSON."""

    def run(*words: str) -> Any:
        code = main([*words, "--json", "--redis-url", redis_url, "--namespace", namespace])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out)

    return run


@pytest.fixture
def small_collection(tmp_path: Path) -> Path:
    """Sixty paragraphs with two questions to each, at most; one of them twice, and an empty one."""
    documents = [json.loads(line) for line in (PASSAGES / "corpus.jsonl").read_text().splitlines()][:60]
    judged = [line.split("\t") for line in (PASSAGES / "qrels.tsv").read_text().splitlines()[1:]]
    queries = {row["id"]: row for row in map(json.loads, (PASSAGES / "queries.jsonl").read_text().splitlines())}
    taken = [row for document in documents for row in [row for row in judged if row[1] == document["id"]][:2]]
    documents.append({**documents[0], "id": "the same again"})
    documents.append({"id": "empty", "title": "", "text": ""})
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    (tmp_path / "queries.jsonl").write_text("\n".join(json.dumps(queries[row[0]]) for row in taken))
    (tmp_path / "qrels.tsv").write_text("\n".join(["query_id\tdoc_id\tscore", *map("\t".join, taken)]))
    return tmp_path


def test_facts_go_in_and_come_out(run_json: RunJson):
    stored = run_json("add", "The kettle boils at 100 °C.", "--tag", "tea", "--source", "manual", "--id", "kettle")
    again = run_json("add", "The kettle boils at 100 °C.")
    run_json("add", "Cats sleep most of the day.", "--metadata", '{"lang": "en"}', "--principal", "user:ann")

    assert stored == {"status": "success", "fact_id": "kettle", "version": 1, "indexed": True}
    assert again["status"] == "duplicate"
    assert run_json("get", "kettle")[0]["tags"] == ["tea"]
    assert [fact["id"] for fact in run_json("get")] == ["kettle"]
    assert len(run_json("get", "--principal", "user:ann")) == 2
    assert [fact["id"] for fact in run_json("get", "--query", "kettles", "--source", "manual")] == ["kettle"]


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_search_finds_by_meaning_and_by_words(run_json: RunJson, mode: str):
    run_json("add", "The kettle boils water at 100 °C.", "--id", "kettle", "--tag", "tea")
    run_json("add", "Cats sleep most of the day.", "--id", "cats")

    found = run_json("search", "how hot does boiling water get?", "--mode", mode, "--top-k", "1")

    assert [hit["fact_id"] for hit in found["hits"]] == ["kettle"]
    assert (found["mode"], found["degraded"], found["complete"]) == (mode, [], True)
    filtered = run_json("search", "water", "--filter", '{"not": {"tags": "tea"}}', "--mode", mode)
    assert "kettle" not in [hit["fact_id"] for hit in filtered["hits"]]


def test_stats_and_health_tell_what_there_is(run_json: RunJson, namespace: str):
    run_json("add", "Cats sleep most of the day.", "--tag", "cats")

    assert run_json("stats") | {"embedding_model": "", "dimension": 0} == {
        "namespace": namespace,
        "facts": 1,
        "passages": 1,
        "documents": 0,
        "pending": 0,
        "parked": 0,
        "embedding_model": "",
        "dimension": 0,
    }
    assert run_json("stats", "--detailed")["tags"] == {"cats": 1}
    assert run_json("health")["ready"] is True


def test_unreachable_server_exits_with_3(capsys: pytest.CaptureFixture[str]):
    for command in (["stats"], ["search", "tea"], ["add", "tea"]):
        assert main([*command, "--redis-url", "redis://127.0.0.1:1", "--json"]) == 3
        captured = capsys.readouterr()
        assert captured.out == ""
        assert json.loads(captured.err)["error"]["retryable"] is True

    assert main(["health", "--redis-url", "redis://127.0.0.1:1", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["ready"] is False


@pytest.mark.parametrize(
    "words",
    [
        ["add", " "],
        ["add", "tea", "--metadata", "[1]"],
        ["add", "tea", "--id", "no spaces"],
        ["add", "tea", "--expires-in", "-1"],
        ["get", "--limit", "-1"],
        ["get", "tea", "--query", "tea"],
        ["get", "--filter", '{"nonsense": 1}'],
        ["search", ""],
        ["search", "tea", "--top-k", "0"],
        ["stats", "--namespace", "no spaces"],
    ],
)
def test_bad_input_exits_with_2(words: list[str], redis_url: str, capsys: pytest.CaptureFixture[str]):
    assert main([*words[:1], "--redis-url", redis_url, *words[1:]]) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


def test_filters_cost_no_quality(run_json: RunJson, small_collection: Path):
    free = run_json("eval", str(small_collection), "--keep")
    again = run_json("eval", str(small_collection), "--modes", "text")
    filtered = run_json("eval", str(small_collection), "--filtered")

    assert list(free) == list(filtered) == ["text", "vector", "hybrid"]
    assert again["text"]["ndcg@10"] == pytest.approx(free["text"]["ndcg@10"])
    for mode, figures in free.items():
        assert figures["queries"] == free["text"]["queries"] > 100
        assert figures["ndcg@10"] > 0.9
        assert filtered[mode]["ndcg@10"] == pytest.approx(figures["ndcg@10"], abs=0.01)
        assert filtered[mode]["recall@10"] == pytest.approx(figures["recall@10"], abs=0.01)
    assert run_json("stats")["facts"] == 0


def test_demo_answers_real_questions(run_json: RunJson, redis_url: str, namespace: str):
    shown = run_json("demo")

    assert (shown["passages"], shown["new"], shown["questions"]) == (240, 240, 1190)
    assert shown["top_1"] >= 0.92
    assert shown["top_5"] >= 0.99
    assert len(shown["answers"]) == 12
    assert sum(answer["right"] for answer in shown["answers"]) >= 9
    assert 0 < shown["p50_ms"] <= shown["p95_ms"]

    words = [KB, "demo", "--questions", "24", "--redis-url", redis_url, "--namespace", namespace]
    second = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)

    assert "0 new, 240 there already" in second.stdout
    assert "Rajpurkar" in second.stdout
    assert "\x1b" not in second.stdout
    assert second.stderr == ""


def interruptible() -> None:
    # What a shell runs in the background ignores interrupts, and so do its children.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_stops_the_process_without_a_traceback(redis_url: str, namespace: str):
    words = [KB, "demo", "--redis-url", redis_url, "--namespace", namespace]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible
    ) as process:
        assert process.stdout is not None
        assert "240 new" in process.stdout.readline()

        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "Traceback" not in errors


def test_reader_that_goes_away_is_no_traceback(run_json: RunJson, redis_url: str, namespace: str):
    run_json("add", "word " * 40_000)
    words = [KB, "get", "--redis-url", redis_url, "--namespace", namespace]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()

        errors = process.stderr.read()

    assert errors == b""


def test_without_a_server_facts_stay_in_the_data_directory(tmp_path: Path):
    environment = {**os.environ, "KB_DATA_DIR": str(tmp_path / "data")}

    def run(*words: str) -> Any:
        done = subprocess.run(
            [KB, *words, "--json"], env=environment, capture_output=True, text=True, timeout=120, check=True
        )
        return json.loads(done.stdout)

    run("add", "Tea is hot.", "--id", "tea")

    assert [hit["fact_id"] for hit in run("search", "hot tea")["hits"]] == ["tea"]
    assert run("stats")["facts"] == 1
