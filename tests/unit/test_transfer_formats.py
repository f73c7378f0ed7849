"""The formats of transfer files: whatever goes in comes out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge_base.admin.transfer.csv_table import ACTIVE
from knowledge_base.admin.transfer.formats import FORMATS, format_named, format_of
from knowledge_base.admin.transfer.line_format import BadEntryError, Line, Record

MOST = 1_000_000
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=40)
HARD = st.sampled_from(
    ["=1+1", "'", "''=", "\t", "\r\n", '"', '""', ",", "\n\n", "<!-- kb end -->", "\\<!-- kb {", "-->", "\ufeff"]
)
CONTENT = st.lists(TEXT | HARD, min_size=1, max_size=6).map("".join)
NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def lines(data: bytes) -> Iterator[Line]:
    for number, line in enumerate(io.BytesIO(data), 1):
        yield Line(number, line)


def read(name: str, data: bytes, most: int = MOST) -> list[Any]:
    line_format = format_named(name)
    records = list(line_format.records(lines(data), most))
    return [None if record.data is None else line_format.decoded(record.data) for record in records]


@pytest.mark.parametrize("name", FORMATS)
@given(contents=st.lists(CONTENT, min_size=1, max_size=4), metadata=st.dictionaries(TEXT, JSON, max_size=3), label=TEXT)
def test_what_is_written_is_read_again(name: str, contents: list[str], metadata: Any, label: str):
    line_format = format_named(name)
    entries: list[dict[str, Any]] = [
        {"kind": "fact", "id": "-f", "content": content, "metadata": {"k": metadata}, "tags": [label], "version": 3}
        for content in contents
    ]
    header: dict[str, Any] = {"kind": "header", "format": "x", "namespaces": ["a"]}

    data = line_format.preamble + b"".join(line_format.encoded(entry) for entry in [header, *entries])

    assert read(name, data) == [header, *entries]
    assert type(format_of(data)) is type(line_format)


@given(content=CONTENT)
def test_csv_is_what_other_readers_take_for_csv(content: str):
    table = format_named("csv")

    data = table.preamble + table.encoded({"kind": "fact", "id": "a", "content": content})

    names, row = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
    cell = dict(zip(names, row, strict=True))["content"]
    assert cell.removeprefix("'") == content.removeprefix("'") or cell == f"'{content}"
    assert not cell.startswith(tuple(ACTIVE))


@pytest.mark.parametrize("name", FORMATS)
def test_number_that_is_not_finite_is_not_written(name: str):
    with pytest.raises(ValueError, match="JSON"):
        format_named(name).encoded({"kind": "fact", "content": "x", "metadata": {"n": float("nan")}})


@pytest.mark.parametrize("name", ["csv", "markdown"])
def test_entry_of_many_lines_that_is_too_long_is_no_entry(name: str):
    line_format = format_named(name)
    entries = [{"kind": "fact", "id": str(n), "content": "line\n" * (2_000 if n == 1 else 2)} for n in range(3)]

    data = line_format.preamble + b"".join(line_format.encoded(entry) for entry in entries)

    assert [None if entry is None else entry["id"] for entry in read(name, data, 500)] == ["0", None, "2"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("jsonl", b'{"a": NaN}'),
        ("jsonl", b'{"a": Infinity}'),
        ("jsonl", b"[]"),
        ("jsonl", b'{"a": "\xff"}'),
        ("jsonl", b'{"a":' * 5_000),
        ("csv", b'content\n"a"b\n'),
        ("csv", b"content\na,b\n"),
        ("csv", b"content,metadata\na,{\n"),
        ("csv", b"colour\na\n"),
        ("csv", b"content,content\na,b\n"),
        ("markdown", b"<!-- kb {} \n"),
        ("markdown", b"<!-- kb {] -->\n"),
        ("markdown", b"<!-- kb {} -->\n\ntext without end\n"),
    ],
)
def test_what_cannot_be_read_says_why(name: str, data: bytes):
    with pytest.raises(BadEntryError) as refused:
        read(name, data)

    assert str(refused.value)


def test_lines_of_records_are_told_by_number():
    data = b'content,id\n\n"a\nb",1\nc,2\n'

    records = list(format_named("csv").records(lines(data), MOST))

    assert records == [Record(3, b'"a\nb",1\n'), Record(5, b"c,2\n")]


def test_text_of_a_document_can_be_read_in_markdown():
    document = {"blocks": [["heading", "Title", 1, None], ["paragraph", "Some words.", 0, None]]}
    entry = {"kind": "document", "id": "d", "document": document}

    data = format_named("markdown").encoded(entry)

    assert b"\n# Title\n\nSome words.\n" in data
    assert read("markdown", data) == [json.loads(json.dumps(entry))]
