"""The commands add, get, search, stats and health: what they pass on, print and return."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import typer

from knowledge_base._version import __version__
from knowledge_base.errors import (
    CircuitOpenError,
    InvalidInputError,
    OperationTimeoutError,
    ServerRequirementError,
    UnavailableError,
    VersionConflictError,
)
from knowledge_base.interfaces.cli import main, session
from knowledge_base.settings import Settings
from tests.unit.cli_base import FakeBase


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> FakeBase:
    fake = FakeBase()
    monkeypatch.setattr(session, "open_base", fake.open)
    return fake


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    return lambda raw: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))


def printed_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_add_passes_everything_on(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    words = (
        "add Tea --tag hot --tag leaf --source cup --id t1 --principal user:ann --expires-in 60 --on-duplicate error"
    )

    code = main([*words.split(), "--metadata", '{"lang": "en"}', "--json"])

    assert code == 0
    assert printed_json(capsys) == {"status": "success", "fact_id": "t1", "version": 1, "indexed": True}
    fact = base.facts["t1"]
    assert fact["tags"] == ["hot", "leaf"]
    assert (fact["source"], fact["metadata"], fact["principals"]) == ("cup", {"lang": "en"}, ["user:ann"])
    assert (fact["expires_at"], fact["on_duplicate"]) == ("in 60 s", "error")
    assert base.opened == base.closed == 1


def test_add_says_what_became_of_the_fact(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    main(["add", "Tea", "--id", "t1"])
    main(["add", "Tea"])

    assert capsys.readouterr().out == "Stored t1 (version 1)\nThere already: t1 (version 1)\n"


def test_add_tells_that_the_vector_is_missing(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    base.indexed = False

    main(["add", "Tea"])

    assert "waits for its vector" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raw", "content"),
    [(b"Tea\n", "Tea"), (b"Tea\r\n", "Tea"), (b"Tea\n\n", "Tea\n"), ("Thé".encode(), "Thé")],
)
def test_add_reads_standard_input(base: FakeBase, type_in: Callable[[bytes], None], raw: bytes, content: str):
    type_in(raw)

    assert main(["add", "-", "--id", "t1"]) == 0

    assert base.facts["t1"]["content"] == content


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"x" * 4_000_003])
def test_add_refuses_input_that_is_no_text_or_endless(
    base: FakeBase, type_in: Callable[[bytes], None], raw: bytes, capsys: pytest.CaptureFixture[str]
):
    type_in(raw)

    assert main(["add", "-"]) == 2

    assert capsys.readouterr().err.startswith("kb: content: ")
    assert base.opened == 0


@pytest.mark.parametrize("metadata", ["{", "[]", "7", "[" * 100_000])
def test_add_refuses_metadata_that_is_no_json_object(base: FakeBase, metadata: str, capsys: pytest.CaptureFixture[str]):
    assert main(["add", "Tea", "--metadata", metadata, "--json"]) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    error = json.loads(captured.err)["error"]
    assert error["type"] == "InvalidInputError"
    assert error["message"].startswith("metadata: ")
    assert error["retryable"] is False


def test_get_prints_the_fact(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    main(["add", "Tea [red]is[/red] :cup: hot", "--id", "t1", "--tag", "a", "--source", "cup"])
    capsys.readouterr()

    assert main(["get", "t1"]) == 0

    header, content, *_ = capsys.readouterr().out.splitlines()
    assert header.split() == ["t1", "version", "1", "2026-01-02T03:04:05+00:00", "#a", "from", "cup"]
    assert content == "Tea [red]is[/red] :cup: hot"


def test_get_of_an_unknown_fact_fails(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    assert main(["get", "t9", "--namespace", "tea"]) == 1

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("kb: no fact 't9' in namespace 'tea'")


def test_get_lists_and_filters(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    words = "get --query tea --tag a --tag b --source cup --limit 5 --offset 2 --principal user:ann --json"

    assert main([*words.split(), "--filter", '{"metadata.lang": "en"}']) == 0

    assert printed_json(capsys) == []
    assert base.reads == [
        {
            "fact_id": None,
            "query": "tea",
            "principals": ["user:ann"],
            "filters": {"and": [{"tags": ["a", "b"], "source": "cup"}, {"metadata.lang": "en"}]},
            "limit": 5,
            "offset": 2,
        }
    ]


def test_get_of_nothing_says_so(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    assert main(["get"]) == 0

    assert capsys.readouterr().out == "No facts.\n"
    assert base.reads[0]["filters"] is None


def test_search_passes_everything_on(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    words = "search tea --top-k 3 --mode text --tag a --principal user:ann --min-score 0.2 --json"
    options = "--no-rerank --diversity 0.3 --recency 0.5"

    assert main([*words.split(), *options.split()]) == 0

    assert printed_json(capsys)["hits"] == []
    assert base.searches == [
        {
            "query": "tea",
            "top_k": 3,
            "mode": "text",
            "principals": ["user:ann"],
            "filters": {"tags": ["a"]},
            "min_score": 0.2,
            "rerank": False,
            "diversity": 0.3,
            "recency": 43_200.0,
            "timeout": 40.0,
        }
    ]


def test_search_leaves_its_options_to_the_base_and_waits_until_models_are_loaded(base: FakeBase):
    assert main(["search", "tea"]) == 0

    options = base.searches[0]
    assert [options[name] for name in ("rerank", "diversity", "recency")] == [None, None, None]
    assert base.settings.timeouts.rerank == 32.0


def test_search_shows_hits_and_what_was_missing(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    main(["add", "Tea is hot.", "--id", "t1", "--tag", "a", "--source", "cup"])
    base.degraded, base.complete = ["vector"], False
    capsys.readouterr()

    assert main(["search", "hot tea"]) == 0

    captured = capsys.readouterr()
    assert captured.out.split() == ["1.", "1.000", "t1", "#a", "from", "cup", "Tea", "is", "hot."]
    assert "vector was unavailable" in captured.err
    assert "cut the search short" in captured.err


def test_search_that_finds_nothing_is_no_failure(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    assert main(["search", "tea"]) == 0

    assert capsys.readouterr().out == "Nothing found.\n"


def test_stats_are_aligned_or_json(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    assert main(["stats", "--json", "--namespace", "tea"]) == 0
    assert printed_json(capsys)["namespace"] == "tea"

    assert main(["stats", "--detailed"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "facts            0" in lines
    assert "index_name       -" in lines
    assert "sources          -" in lines
    assert "  a  2" in lines
    assert "    limit          50" in lines
    assert "    state        closed" in lines


def test_health_exits_with_3_when_not_ready(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    assert main(["health"]) == 0
    assert capsys.readouterr().out.split()[:3] == ["ready", "redis", "ok"]

    assert base.settings.timeouts.health == 33.0

    base.ready = False
    assert main(["health", "--json"]) == 3
    assert printed_json(capsys)["ready"] is False


@pytest.mark.parametrize(
    ("failure", "code", "retryable"),
    [
        (InvalidInputError("content", "is refused"), 2, False),
        (VersionConflictError("t1", 0, 2), 1, False),
        (ServerRequirementError("no search module"), 1, False),
        (UnavailableError("no Redis"), 3, True),
        (OperationTimeoutError("store_fact", 2.0), 3, True),
        (CircuitOpenError("redis", 4.0), 3, True),
        (RuntimeError("a\nbug"), 1, False),
    ],
)
def test_each_failure_is_one_line_and_an_exit_code(
    base: FakeBase, failure: Exception, code: int, retryable: bool, capsys: pytest.CaptureFixture[str]
):
    base.failure = failure

    assert main(["add", "Tea"]) == code
    text = capsys.readouterr()
    assert main(["add", "Tea", "--json"]) == code
    as_json = capsys.readouterr()

    assert text.out == as_json.out == ""
    assert len(text.err.splitlines()) == 1
    error = json.loads(as_json.err)["error"]
    assert error["type"] == type(failure).__name__
    assert error["retryable"] is retryable
    assert text.err == f"kb: {error['message']}\n"
    assert base.closed == 2


def test_interrupt_before_the_work_begins_ends_cleanly(monkeypatch: pytest.MonkeyPatch):
    def interrupted(settings: Settings) -> FakeBase:
        raise typer.Abort

    monkeypatch.setattr(session, "open_base", interrupted)

    assert main(["stats"]) == 130


def test_ctrl_c_ends_cleanly(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    base.failure = KeyboardInterrupt()

    assert main(["add", "Tea"]) == 130

    assert "Traceback" not in capsys.readouterr().err
    assert base.closed == 1


@pytest.mark.parametrize(
    "words",
    [
        ["add"],
        ["nonsense"],
        ["search", "tea", "--top-k", "many"],
        ["search", "tea", "--mode", "magic"],
        ["get", "--no"],
    ],
)
def test_wrong_usage_exits_with_2(base: FakeBase, words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1

    assert main([*words, "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["type"] == "UsageError"
    assert base.opened == 0


def test_refused_setting_is_wrong_usage(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    assert main(["get", "--redis-url", "http://x"]) == 2

    assert "redis_url" in capsys.readouterr().err


def test_options_stand_before_or_after_the_command(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    assert main(["--json", "--namespace", "a", "--redis-url", "redis://one:1", "stats", "--namespace", "b"]) == 0

    assert printed_json(capsys)["namespace"] == "b"
    assert base.settings.redis_url == "redis://one:1"


def test_environment_applies_where_nothing_is_given(
    base: FakeBase, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("KB_NAMESPACE", "from-environment")

    main(["stats", "--json"])

    assert printed_json(capsys)["namespace"] == "from-environment"


def test_base_is_the_real_one():
    opened = session.open_base(Settings())

    assert type(opened).__name__ == "KnowledgeBase"


def test_process_shows_neither_logs_nor_warnings_of_libraries(
    base: FakeBase, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    async def chatty(*words: Any, **scope: Any) -> Any:
        warnings.warn("do not show this", stacklevel=1)
        return []

    monkeypatch.setattr(base, "get_fact", chatty)
    monkeypatch.setattr(sys, "argv", ["kb", "get"])
    monkeypatch.setattr(sys, "warnoptions", [])

    assert main() == 0

    assert capsys.readouterr().err == ""


def test_version_and_help(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"kb {__version__}\n"

    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("demo", "add", "get", "search", "stats", "health", "eval"))


def test_command_that_is_missing_is_wrong_usage(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 2
    assert "Usage: kb" in capsys.readouterr().err

    assert main(["--json"]) == 2
    assert "a command is missing" in json.loads(capsys.readouterr().err)["error"]["message"]


def test_help_imports_nothing_heavy():
    heavy = ["llama_index", "numpy", "redis", "rich", "onnxruntime"]
    script = (
        "import sys; from knowledge_base.interfaces.cli import main; main(['add', '--help']);"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert done.stderr == "[]\n"
    assert "--on-duplicate" in done.stdout
