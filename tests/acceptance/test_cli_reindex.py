"""The command ``kb reindex`` on a real server with the real local model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from knowledge_base.interfaces.cli import main
from knowledge_base.keyspace import Keyspace
from tests.support.embedded import client_of
from tests.support.rebuilds import generation_of, leftovers

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with client_of(redis_url) as one:
        yield one


@pytest.fixture
def run(redis_url: str, namespace: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in the test's namespace; returns its exit code, output and errors."""
    for name in ("SEARCH", "RETRIEVE", "CONTEXT"):
        monkeypatch.setenv(f"KB_TIMEOUTS__{name}", "5")
    # The old index is dropped when the longest search has ended.
    monkeypatch.setattr("knowledge_base.admin.rebuild.index_rebuild.FRESH_FOR", -2.3)

    def run_one(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--redis-url", redis_url, "--namespace", namespace])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_one


def test_index_is_built_anew_and_everything_is_found(run: Run, client: redis.Redis, namespace: str) -> None:
    run("add", "The kettle boils water at 100 °C.", "--id", "kettle")
    run("add", "Cats sleep most of the day.", "--id", "cats")

    code, out, error = run("reindex", "--json")
    report = json.loads(out)

    assert (code, error) == (0, "")
    assert len(out.splitlines()) == 1
    assert (report["namespace"], report["facts"], report["embedded"]) == (namespace, 2, 0)
    assert (report["replaced"], report["generation"], report["resumed"]) == (1, 2, False)
    assert generation_of(client, namespace)["number"] == "2"
    assert leftovers(client, namespace) == []
    for mode in ("text", "vector"):
        found = json.loads(run("search", "boiling water", "--mode", mode, "--top-k", "1", "--json")[1])
        assert [hit["fact_id"] for hit in found["hits"]] == ["kettle"]


def test_people_read_what_was_done(run: Run) -> None:
    run("add", "The kettle boils water at 100 °C.")

    code, out, error = run("reindex")

    assert (code, error) == (0, "")
    assert "1 facts and documents, 0 embedded anew" in out
    assert "Index 2 is live; index 1 was dropped." in out
    assert "384 dimensions" in out


def test_empty_namespace_has_nothing_to_rebuild(run: Run) -> None:
    code, out, _ = run("reindex")
    assert (code, out.strip()) == (0, "Nothing is stored here yet.")

    code, out, _ = run("reindex", "--json")
    assert (code, json.loads(out)["generation"], json.loads(out)["facts"]) == (0, None, 0)


def test_other_rebuild_under_way_exits_with_3(run: Run, client: redis.Redis, namespace: str) -> None:
    run("add", "The kettle boils water at 100 °C.")
    record: dict[str, Any] = {
        "number": "2",
        "owner": "somebody",
        "lease": "9999999999999",
        "base": "1",
        "model": "x",
        "dimension": "4",
        "cursor": "3",
        "done": "3",
        "total": "7",
        "changes": "0",
        "started": "1",
        "cut": "",
    }
    client.hset(Keyspace(namespace).rebuild, mapping=record)

    code, out, error = run("reindex", "--json")
    said = json.loads(error)["error"]

    assert (code, out) == (3, "")
    assert said["retryable"] is True
    assert "3 of 7 facts done" in said["message"]
    code, out, error = run("reindex")
    assert (code, out) == (3, "")
    assert "3 of 7 facts done" in error


def test_unreachable_server_exits_with_3_and_bad_input_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reindex", "--redis-url", "redis://127.0.0.1:1", "--json"]) == 3
    assert json.loads(capsys.readouterr().err)["error"]["retryable"] is True

    assert main(["reindex", "--namespace", "no spaces", "--json"]) == 2
    assert "namespace" in capsys.readouterr().err


def test_index_of_another_model_is_answered_with_the_command_that_helps(
    run: Run, client: redis.Redis, namespace: str
) -> None:
    run("add", "The kettle boils water at 100 °C.", "--id", "kettle")
    client.hset(Keyspace(namespace).generation, mapping={"model": "Other:model", "dimension": "7"})

    code, _, error = run("search", "boiling water")

    assert code != 0
    assert f"kb reindex --namespace {namespace}" in error
    code, out, _ = run("reindex", "--json")
    assert code == 0
    assert (json.loads(out)["embedded"], json.loads(out)["dimension"]) == (1, 384)
    found = json.loads(run("search", "boiling water", "--mode", "vector", "--json")[1])
    assert [hit["fact_id"] for hit in found["hits"]] == ["kettle"]


def test_help_tells_what_it_does(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reindex", "--help"]) == 0

    said = capsys.readouterr().out
    assert "while everybody goes on searching" in said
    assert "--json" in said
