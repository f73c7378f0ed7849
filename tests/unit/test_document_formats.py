"""The format of a file is told by its bytes, by what the caller says, and by its name."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import pytest

from knowledge_base.documents.archives import MAX_MEMBERS, open_archive, read_member, verify_members
from knowledge_base.documents.formats import MEDIA_TYPES, detect_format
from knowledge_base.documents.unreadable import UnreadableFileError
from tests.support.nasty_files import pdf_file, plain_word_file, workbook_file, zipped


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("notes.txt", b"text", "text"),
        ("README", b"text", "text"),
        ("notes.MD", b"# text", "markdown"),
        ("page.htm", b"<p>x", "html"),
        ("rows.tsv", b"a\tb", "csv"),
        ("a.ndjson", b"{}", "jsonl"),
        ("a.py", b"x = 1", "source"),
        ("Makefile", b"all:", "source"),
        ("letter.eml", b"Subject: x", "mail"),
    ],
)
def test_text_formats_are_told_by_name(name: str, data: bytes, expected: str) -> None:
    assert detect_format(name, data) == expected


def test_bytes_tell_more_than_the_name() -> None:
    assert detect_format("wrong.txt", pdf_file(1)) == "pdf"
    assert detect_format("wrong.pdf", plain_word_file()) == "word"
    assert detect_format("wrong.docx", workbook_file(1)) == "workbook"


def test_caller_tells_more_than_the_name() -> None:
    assert detect_format("a.txt", b"# x", "text/markdown; charset=utf-8") == "markdown"
    assert detect_format("", b"x", "text/unheard-of") == "text"


@pytest.mark.parametrize("kind", ["html", "json", "csv", "source"])
def test_every_media_type_that_is_given_is_understood(kind: str) -> None:
    assert detect_format("", b"x", MEDIA_TYPES[kind]) == kind


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", b"", "is empty"),
        ("a.pdf", b"no pdf", "is broken"),
        ("a.docx", b"PK\x03\x04 cut", "is broken"),
        ("a.txt", b"\x7fELF\x02", "is binary: it is a program"),
        ("a.zip", zipped({"a.txt": b"x"}), "is an archive"),
        ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "is encrypted"),
    ],
)
def test_what_is_not_read_is_refused_with_the_reason(name: str, data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableFileError, match=reason):
        detect_format(name, data)


def test_media_type_that_is_not_read_is_refused() -> None:
    with pytest.raises(UnreadableFileError, match="media type"):
        detect_format("a.txt", b"x", "image/png")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "..\\x", "C:/x"])
def test_archive_whose_names_lead_out_of_it_is_refused(name: str) -> None:
    with pytest.raises(UnreadableFileError, match="lead out of it"):
        open_archive(zipped({name: b"x"}))


def test_archive_with_too_many_members_is_refused() -> None:
    with pytest.raises(UnreadableFileError, match="explodes") as caught:
        open_archive(zipped({f"m{number}": b"" for number in range(MAX_MEMBERS + 1)}))

    assert caught.value.limit == MAX_MEMBERS


def test_archive_packed_in_an_unusual_way_is_refused() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", b"x" * 100)

    with pytest.raises(UnreadableFileError, match="is refused"):
        open_archive(target.getvalue())


def test_member_that_holds_more_than_it_declares_is_refused() -> None:
    data = zipped({"a.xml": b"x" * 5000}).replace(struct.pack("<I", 5000), struct.pack("<I", 100))

    with open_archive(data) as archive, pytest.raises(UnreadableFileError, match="larger than it says"):
        verify_members(archive)


def test_document_type_is_found_where_two_pieces_meet() -> None:
    data = zipped({"a.xml": b" " * (1024 * 1024 - 4) + b"<!DOCTYPE x>"})

    with open_archive(data) as archive, pytest.raises(UnreadableFileError, match="its XML"):
        verify_members(archive)


def test_missing_member_is_reported() -> None:
    with open_archive(zipped({"a": b"x"})) as archive, pytest.raises(UnreadableFileError, match="missing"):
        read_member(archive, "b")


def test_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(UnreadableFileError("is empty", limit=3, field="content")))

    assert (error.problem, error.limit, error.field) == ("is empty", 3, "content")
