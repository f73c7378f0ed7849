"""Where results go: text for people, or exactly one JSON value on standard output."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from knowledge_base.types import Progress

Part: TypeAlias = str | tuple[str, str]
"""A piece of text, alone or with a style."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_WORD = re.compile(r"\w+")
LEAD = 20


class Output:
    """Prints a command's result.

    In text mode ``say`` prints and ``result`` does not; in JSON mode it is the other way round. Notes go to standard
    error: at once in text mode, after the result in JSON mode, so that a failing command leaves its error alone there.

    Args:
        as_json: Whether the command was asked for JSON.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._notes: list[str] = []
        for stream in (sys.stdout, sys.stderr):
            if reconfigure := getattr(stream, "reconfigure", None):
                reconfigure(errors="backslashreplace")

    @property
    def is_live(self) -> bool:
        """Whether somebody reads along, so that text is shown as it comes."""
        return not self._as_json and sys.stdout.isatty()

    def write(self, text: str) -> None:
        """Prints a piece of text at once, without a line break; control characters in it show as a mark.

        Args:
            text: Any text.
        """
        if not self._as_json:
            print(printable(text), end="", flush=True)

    def say(self, *parts: Part) -> None:
        """Prints one paragraph of text; control characters in it, which may come from anybody, show as a mark.

        Args:
            parts: Pieces of text.
        """
        if self._as_json:
            return
        from rich.console import Console
        from rich.text import Text

        pieces = [(printable(part), "") if isinstance(part, str) else (printable(part[0]), part[1]) for part in parts]
        # A pipe gets no colours whatever the environment says, and no line breaks of our making.
        Console(force_terminal=sys.stdout.isatty()).print(Text.assemble(*pieces), soft_wrap=True)

    def result(self, value: object) -> None:
        """Prints the result as JSON.

        Args:
            value: Anything that JSON can say.
        """
        if not self._as_json:
            return
        indent = 2 if sys.stdout.isatty() else None
        print(json.dumps(value, ensure_ascii=sys.stdout.encoding.lower() != "utf-8", indent=indent), flush=True)
        while self._notes:
            print(self._notes.pop(0), file=sys.stderr)

    def note(self, message: str) -> None:
        """Says on standard error what the reader of the result should know.

        Args:
            message: One sentence.
        """
        if self._as_json:
            self._notes.append(f"kb: {message}")
        else:
            print(f"kb: {message}", file=sys.stderr)

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Shows a progress bar while the block runs, if anybody can see it.

        Args:
            label: What is being done.
        """
        if not sys.stderr.isatty():
            yield lambda done, total: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def printable(text: str) -> str:
    """The text with everything that could steer a terminal replaced by a mark.

    Args:
        text: Any text.
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def snippet(passage: str, query: str, width: int = 160) -> str:
    """The part of a passage where most of the query's words are, on one line.

    Args:
        passage: Any text.
        query: What was asked.
        width: Characters at most, marks of omission not counted.
    """
    text = " ".join(passage.split())
    if len(text) <= width:
        return text
    asked = {word.casefold() for word in _WORD.findall(query)}
    found = [(match.start(), match.group().casefold()) for match in _WORD.finditer(text)]
    hits = [(start, word) for start, word in found if word in asked]

    def richness(start: int) -> int:
        # The longer a word, the more it tells.
        inside = {word for other, word in hits if start <= other < start + width - LEAD}
        return sum(len(word) for word in inside if len(word) > 3)

    best = max((start for start, _ in hits), key=richness, default=0)
    last = len(text) - width
    starts = [start for start, _ in found if start <= min(max(best - LEAD, 0), last)]
    begin = starts[-1] if best and starts else 0
    end = text.rfind(" ", begin, begin + width) if begin + width < len(text) else len(text)
    end = end if end > begin else begin + width
    return f"{'… ' if begin else ''}{text[begin:end]}{' …' if end < len(text) else ''}"


def table(value: Mapping[str, object], indent: int = 0) -> Iterator[str]:
    """A mapping as aligned lines, inner mappings below their names.

    Args:
        value: Names and what they stand for.
        indent: Blanks before each line.
    """
    width = max((len(name) for name in value), default=0)
    for name, entry in value.items():
        if isinstance(entry, Mapping) and entry:
            yield f"{' ' * indent}{name}"
            yield from table(entry, indent + 2)
        elif isinstance(entry, list) and entry and all(isinstance(item, Mapping) for item in entry):
            yield f"{' ' * indent}{name}"
            yield from table({str(item.get("name", place)): item for place, item in enumerate(entry)}, indent + 2)
        else:
            shown = "-" if entry is None or entry in ({}, []) else str(entry)
            yield f"{' ' * indent}{name:<{width}}  {shown}"
