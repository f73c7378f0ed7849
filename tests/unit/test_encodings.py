"""Texts are read whatever they are encoded in, and what is no text is refused."""

from __future__ import annotations

import pytest

from knowledge_base.documents.encodings import decode_text
from knowledge_base.documents.unreadable import UnreadableFileError

GERMAN = "Die Größe der Straße ist für die Übung wichtig; Äpfel kosten fünf Euro.\n" * 3
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю\n" * 3
JAPANESE = "これは日本語の文章です。知識ベースに保存されます。\n" * 3


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"],
)
def test_german_is_read_in_every_usual_encoding(encoding: str) -> None:
    assert decode_text(GERMAN.encode(encoding)) == GERMAN


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(RUSSIAN, "cp1251"), (RUSSIAN, "koi8-r"), (JAPANESE, "shift_jis"), (JAPANESE, "euc_jp")],
)
def test_old_encodings_of_other_scripts_are_found_out(text: str, encoding: str) -> None:
    assert decode_text(text.encode(encoding)) == text


def test_single_latin_1_line_in_utf_8_text_is_read_as_what_it_is() -> None:
    mixed = "Größe\n".encode() * 5 + "Straße\n".encode("latin-1")

    assert decode_text(mixed) == "Größe\n" * 5 + "Straße\n"


def test_declared_encoding_is_believed_where_the_bytes_do_not_tell() -> None:
    assert decode_text("Zażółć gęślą jaźń".encode("iso8859-2"), "iso-8859-2") == "Zażółć gęślą jaźń"
    assert decode_text("日本語".encode("iso-2022-jp"), "iso-2022-jp") == "日本語"


def test_declared_encoding_that_does_not_exist_or_is_no_encoding_is_ignored() -> None:
    assert decode_text(GERMAN.encode("latin-1"), "x-unknown") == GERMAN
    assert decode_text(GERMAN.encode("latin-1"), "hex") == GERMAN


@pytest.mark.parametrize("data", [bytes(range(256)) * 20, b"\x00" * 5000, b"text" + bytes(500)])
def test_bytes_that_no_text_has_are_refused_as_binary(data: bytes) -> None:
    with pytest.raises(UnreadableFileError, match="is binary"):
        decode_text(data)
