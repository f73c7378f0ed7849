"""How results look: on a terminal, in a pipe, as JSON, and when they are hostile."""

from __future__ import annotations

import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge_base.interfaces.cli.output import Output, printable, snippet, table


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def become_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_pipe_gets_no_colours_and_no_line_breaks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")

    Output(as_json=False).say(("word " * 50, "bold"))

    assert capsys.readouterr().out == "word " * 50 + "\n"


def test_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch):
    terminal = become_terminal(monkeypatch)

    Output(as_json=False).say(("tea", "bold"))

    assert terminal.getvalue() == "\x1b[1mtea\x1b[0m\n"


def test_content_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch):
    terminal = become_terminal(monkeypatch)

    Output(as_json=False).say("tea\x1b[2J\r\x9b1m\u202e", ("\x1b]0;title\x07", "bold"))

    assert "\x1b[2J" not in terminal.getvalue()
    assert "\x1b]0" not in terminal.getvalue()
    assert printable("a\tb\nc") == "a\tb\nc"


def test_json_is_one_value_and_keeps_notes_behind_it(capsys: pytest.CaptureFixture[str]):
    out = Output(as_json=True)

    out.say("not this")
    out.note("a note")
    assert capsys.readouterr().err == ""
    out.result({"tea": "thé"})

    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"tea": "thé"}
    assert captured.out.count("\n") == 1
    assert captured.err == "kb: a note\n"


def test_json_is_readable_whatever_the_terminal_can_show(monkeypatch: pytest.MonkeyPatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))

    Output(as_json=True).result({"tea": "thé \N{HOT BEVERAGE}"})

    assert json.loads(raw.getvalue()) == {"tea": "thé \N{HOT BEVERAGE}"}


def test_text_that_the_terminal_cannot_show_is_no_failure(monkeypatch: pytest.MonkeyPatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)

    Output(as_json=False).say("thé")
    stream.flush()

    assert raw.getvalue() == b"th\\xe9\n"


def test_progress_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch):
    terminal = become_terminal(monkeypatch)

    with Output(as_json=False).progress("Storing") as progress:
        progress(1, 2)
    assert "Storing" in terminal.getvalue()

    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with Output(as_json=False).progress("Storing") as progress:
        progress(1, 2)
    assert pipe.getvalue() == ""


def test_snippet_shows_where_the_words_are():
    passage = f"{'Nothing here. ' * 40}The moon is made of green cheese, they say. {'Nothing there. ' * 40}"

    shown = snippet(passage, "What is the moon made of?", 80)

    assert "moon is made of green cheese" in shown
    assert shown.startswith("… ")
    assert shown.endswith(" …")


def test_snippet_of_a_short_passage_is_the_passage():
    assert snippet("Tea\n is  hot.", "tea") == "Tea is hot."


def test_snippet_without_any_of_the_words_begins_at_the_beginning():
    assert snippet("word " * 100, "tea", 20) == "word word word word …"


@given(st.text(max_size=400), st.text(max_size=40), st.integers(40, 200))
def test_snippet_is_never_longer_than_allowed(passage: str, query: str, width: int):
    assert len(snippet(passage, query, width)) <= width + len("…  …")


def test_table_aligns_and_nests():
    value = {"a": 1, "long": None, "inner": {"x": "y"}, "list": [{"name": "n", "v": 2}], "words": ["p", "q"]}

    assert list(table(value)) == [
        "a      1",
        "long   -",
        "inner",
        "  x  y",
        "list",
        "  n",
        "    name  n",
        "    v     2",
        "words  ['p', 'q']",
    ]
