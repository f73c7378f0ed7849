"""The stored text of documents, and the records that somebody brings."""

from __future__ import annotations

import base64
import math
import struct
from datetime import datetime
from typing import Any

import pytest

from knowledge_base.clock import iso_time
from knowledge_base.documents.blocks import Block
from knowledge_base.documents.draft import made_id, path_as_source, short_title
from knowledge_base.documents.entries import entry_draft, entry_vectors
from knowledge_base.documents.staging import Leftover
from knowledge_base.documents.texts import PIECE_CHARACTERS, as_text, packed, unpacked
from knowledge_base.errors import InvalidInputError
from knowledge_base.facts.validation import FACT_ID_PATTERN
from knowledge_base.index.schema import Generation
from knowledge_base.settings import Limits

BLOCKS = [
    Block("heading", "Waters", 1),
    Block("paragraph", "Größe\u2028 und \U0001f30a\nzwei", page=3),
    Block("code", "print('```')"),
    Block("table", "a | b\n1 | 2"),
]
ENTRY: dict[str, Any] = {
    "id": "d",
    "title": "Waters",
    "media_type": "text/markdown",
    "pages": None,
    "metadata": {"lang": "en"},
    "tags": ["a"],
    "source": "atlas",
    "principals": [],
    "version": 3,
    "created_at": "2026-01-02T03:04:05.678+00:00",
    "updated_at": "2026-01-03T03:04:05.678+00:00",
    "content_hash": "abc",
    "file": {"tree": "atlas", "root": "/data/atlas", "path": "waters.md", "size": 7, "modified": 1.5}
    | {"changed": 2.5, "inode": 9},
    "blocks": [list(block) for block in BLOCKS],
}
FILE = ENTRY["file"]
GENERATION = Generation("ns", 1, "stub", 2)


def test_blocks_come_back_as_they_were() -> None:
    assert unpacked(packed(BLOCKS)) == BLOCKS


def test_long_texts_are_kept_in_pieces() -> None:
    blocks = [*BLOCKS, Block("paragraph", "ä" * (3 * PIECE_CHARACTERS)), *BLOCKS]

    pieces = packed(blocks)

    assert len(pieces) >= 4
    assert unpacked(pieces) == blocks


def test_text_is_markdown() -> None:
    assert as_text(BLOCKS) == (
        "# Waters\n\nGröße\u2028 und \U0001f30a\nzwei\n\n````\nprint('```')\n````\n\na | b\n1 | 2"
    )


def test_made_ids_are_valid_and_tell_apart() -> None:
    ids = {made_id(name, "tree", name) for name in ("a/b.md", "a-b.md", "ä.md", "\n", "x" * 400, "a/b.md ")}

    assert len(ids) == 6
    assert all(FACT_ID_PATTERN.fullmatch(one) for one in ids)
    assert made_id("a", "b") == made_id("a", "b") != made_id("a", "c")


def test_paths_become_sources_of_one_line() -> None:
    assert path_as_source("a/b.md") == "a/b.md"
    assert path_as_source("a\nb.md") == "a\ufffdb.md"
    assert len(path_as_source("x" * 1_000)) == 256


def test_titles_are_one_short_line() -> None:
    assert short_title(" a\n b ") == "a b"
    assert short_title(" \n") is None
    assert len(short_title("x" * 1_000) or "") == 256


def test_leftover_is_known_by_its_name() -> None:
    leftover = Leftover("2", "a:b-c", "1-abc-7")

    assert Leftover.parse(leftover.member) == leftover


def test_entry_is_read_whole() -> None:
    draft, state = entry_draft(ENTRY, "ns", Limits())

    assert (draft.document_id, draft.title, draft.content_hash) == ("d", "Waters", "abc")
    assert list(draft.extracted.blocks) == BLOCKS
    assert (draft.labels.tags, draft.labels.source, draft.labels.metadata) == (["a"], "atlas", {"lang": "en"})
    assert draft.file is not None
    assert draft.file._asdict() == ENTRY["file"]
    assert (state.version, state.updated_at - state.created_at) == (3, 86_400_000)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "no spaces"),
        ("id", None),
        ("media_type", None),
        ("pages", -1),
        ("metadata", []),
        ("tags", "a"),
        ("version", 0),
        ("version", "3"),
        ("created_at", "yesterday"),
        ("updated_at", "2026-01-03T03:04:05"),
        ("content_hash", ""),
        ("blocks", []),
        ("blocks", [["paragraph", "text"]]),
        ("blocks", [["poem", "text", 0, None]]),
        ("blocks", [["paragraph", 7, 0, None]]),
        ("blocks", [["paragraph", "a\x00b", 0, None]]),
        ("blocks", [["paragraph", "text", "1", None]]),
        ("blocks", [["paragraph", "text", 0, "1"]]),
        ("blocks", [["paragraph", "text", 7, None]]),
        ("blocks", [["heading", "text", 10**14, None]]),
        ("blocks", [["heading", "text", 0, None]]),
        ("blocks", [["paragraph", "text", 0, 0]]),
        ("blocks", [["paragraph", "text", 0, 10**6 + 1]]),
        ("pages", 10**6 + 1),
        ("created_at", "9999-12-31T23:59:59-23:59"),
        ("updated_at", "9999-01-01T00:00:00+00:00"),
        ("created_at", "1969-12-31T23:59:59.999+00:00"),
        ("created_at", "0001-01-01T00:00:00+23:59"),
        *[("file", FILE | {"modified": time}) for time in (math.inf, -math.inf, math.nan, 10**400, 1e300, True)],
        *[("file", FILE | {"changed": time}) for time in (math.inf, -(10**400), None)],
        *[("file", FILE | {"size": size}) for size in (-1, 10**400, 1.5, True)],
        *[("file", FILE | {"inode": number}) for number in (-1, 10**400, "1")],
        ("file", FILE | {"more": 1}),
        ("file", {"tree": "a"}),
        ("file", {"tree": "a", "root": 7, "path": "b", "size": 1, "modified": 1}),
        ("file", {"tree": "a", "root": "b", "path": "c", "size": "1", "modified": 1}),
    ],
)
def test_damaged_entry_is_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        entry_draft({**ENTRY, field: value}, "ns", Limits())

    assert refused.value.field.split(".")[0] in {field, "document_id"}


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("blocks", [["heading", "text", 7, None]], "blocks.level"),
        ("blocks", [["paragraph", "text", 0, -1]], "blocks.page"),
        ("file", FILE | {"modified": math.inf}, "file.modified"),
        ("file", FILE | {"size": -1}, "file.size"),
    ],
)
def test_refusal_names_what_is_wrong(field: str, value: Any, named: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        entry_draft({**ENTRY, field: value}, "ns", Limits())

    assert refused.value.field == named


@pytest.mark.parametrize("time", ["1970-01-01T00:00:00+00:00", "9998-12-31T23:59:59.000+00:00"])
def test_earliest_and_latest_time_are_told_again(time: str) -> None:
    _, state = entry_draft({**ENTRY, "created_at": time}, "ns", Limits())

    assert datetime.fromisoformat(iso_time(state.created_at)) == datetime.fromisoformat(time)


def test_entry_of_a_file_without_change_time_and_number_is_read() -> None:
    file = {name: value for name, value in FILE.items() if name not in {"changed", "inode"}}

    draft, _ = entry_draft({**ENTRY, "file": file}, "ns", Limits())

    assert draft.file is not None
    assert (draft.file.path, draft.file.changed, draft.file.inode) == ("waters.md", 0.0, 0)


@pytest.mark.parametrize("name", ["principal", "Principals", "more"])
def test_entry_with_an_unknown_key_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="unknown key"):
        entry_draft({**ENTRY, name: ["user:ann"]}, "ns", Limits())


def test_entry_that_does_not_say_who_sees_it_is_refused() -> None:
    entry = {name: value for name, value in ENTRY.items() if name != "principals"}

    with pytest.raises(InvalidInputError) as refused:
        entry_draft(entry, "ns", Limits())

    assert refused.value.field == "principals"


def test_text_over_the_limit_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="more than 10 characters"):
        entry_draft(ENTRY, "ns", Limits(document_chars=10))


def test_vectors_of_the_same_model_are_read() -> None:
    passages = [["one", "AACAPwAAAEA="], ["two", None]]

    known = entry_vectors({"vectors": {"model": "stub", "dimension": 2, "passages": passages}}, GENERATION)
    foreign = entry_vectors({"vectors": {"model": "other", "dimension": 2, "passages": passages}}, GENERATION)

    assert known == {"one": b"\x00\x00\x80?\x00\x00\x00@"}
    assert foreign == entry_vectors(ENTRY, GENERATION) == {}


POISON = [
    ["one", base64.b64encode(struct.pack("2f", *pair)).decode()] for pair in ((math.nan, 1), (math.inf, 1), (0, 0))
]


@pytest.mark.parametrize("passages", [7, "text", {"a": 1}])
def test_vectors_that_are_no_list_are_refused(passages: Any) -> None:
    with pytest.raises(InvalidInputError, match="list"):
        entry_vectors({"vectors": {"model": "stub", "dimension": 2, "passages": passages}}, GENERATION)


@pytest.mark.parametrize("row", [["one", "AACAPw=="], ["one", "no base64"], ["one"], 7, [7, "AACAPwAAAEA="], *POISON])
def test_damaged_vectors_are_refused(row: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        entry_vectors({"vectors": {"model": "stub", "dimension": 2, "passages": [row]}}, GENERATION)

    assert refused.value.field == "vectors"
