"""The command ask: what it passes on, and how an answer looks on a terminal, in a pipe and as JSON."""

from __future__ import annotations

import json

import pytest

from knowledge_base.errors import InvalidInputError, LLMUnavailableError
from knowledge_base.interfaces.cli import main, session
from knowledge_base.settings import Settings
from tests.unit.cli_base import FakeBase
from tests.unit.test_cli_output import become_terminal


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> FakeBase:
    fake = FakeBase()
    monkeypatch.setattr(session, "open_base", fake.open)
    return fake


def test_ask_passes_everything_on(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    words = "ask tea? --token-budget 500 --tag a --source cup --principal user:ann --json"

    assert main(words.split()) == 0

    answered = json.loads(capsys.readouterr().out)
    assert answered["answer"] == "Tea is hot. [2]"
    assert [citation["number"] for citation in answered["citations"]] == [2]
    assert len(answered["passages"]) == 2
    timeouts = Settings().timeouts
    assert base.questions == [
        {
            "question": "tea?",
            "token_budget": 500,
            "principals": ["user:ann"],
            "filters": {"tags": ["a"], "source": "cup"},
            "timeout": timeouts.ask + timeouts.embedding,
        }
    ]
    assert base.closed == 1


def test_pipe_gets_the_answer_and_what_it_cites(base: FakeBase, capsys: pytest.CaptureFixture[str]):
    base.degraded = ["vector"]

    assert main(["ask", "tea?"]) == 0

    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["Tea is hot. [2]", "[2] cup  Tea is hot."]
    assert "vector was unavailable" in captured.err


def test_terminal_shows_the_answer_as_it_comes(base: FakeBase, monkeypatch: pytest.MonkeyPatch):
    terminal = become_terminal(monkeypatch)

    assert main(["ask", "tea?"]) == 0

    assert terminal.getvalue().startswith("Tea is hot. [2]\n")
    assert terminal.getvalue().count("hot. [2]") == 1
    assert base.questions[0]["token_budget"] == 2_000


def test_answer_that_breaks_off_ends_its_line(base: FakeBase, monkeypatch: pytest.MonkeyPatch):
    base.failure = LLMUnavailableError("the LLM's answer broke off")
    terminal = become_terminal(monkeypatch)

    assert main(["ask", "tea?"]) == 3

    assert terminal.getvalue() == "Tea is \nkb: the LLM's answer broke off\n"


@pytest.mark.parametrize(
    ("failure", "code"),
    [(LLMUnavailableError("away"), 3), (InvalidInputError("llm.model (KB_LLM__MODEL)", "names no LLM"), 2)],
)
def test_pipe_gets_an_exit_code_and_no_half_answer(
    failure: Exception, code: int, base: FakeBase, capsys: pytest.CaptureFixture[str]
):
    base.failure = failure

    assert main(["ask", "tea?", "--json"]) == code

    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["error"]["type"] == type(failure).__name__


def test_answer_cannot_steer_the_terminal(base: FakeBase, monkeypatch: pytest.MonkeyPatch):
    async def hostile(question: str, **scope: object):
        yield {"delta": "\x1b[2J"}
        yield {"answer": await base.ask(question)}

    monkeypatch.setattr(base, "stream_answer", hostile)
    terminal = become_terminal(monkeypatch)

    main(["ask", "tea?"])

    assert "\x1b[2J" not in terminal.getvalue()
