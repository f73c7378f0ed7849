"""Tells the format of a file by its first bytes and its name."""

from __future__ import annotations

import io
import zipfile
from pathlib import PurePath

from knowledge_base.documents.archives import ZIP_ERRORS
from knowledge_base.documents.unreadable import UnreadableFileError

TEXT, MARKDOWN, HTML, CSV, JSON, JSONL, MAIL, SOURCE = (
    "text", "markdown", "html", "csv", "json", "jsonl", "mail", "source",
)  # fmt: skip
PDF, WORD, SLIDES, WORKBOOK, EPUB = "pdf", "word", "slides", "workbook", "epub"

MEDIA_TYPES = {
    TEXT: "text/plain",
    MARKDOWN: "text/markdown",
    HTML: "text/html",
    CSV: "text/csv",
    JSON: "application/json",
    JSONL: "application/jsonl",
    MAIL: "message/rfc822",
    SOURCE: "text/x-source",
    PDF: "application/pdf",
    WORD: "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    SLIDES: "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    WORKBOOK: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    EPUB: "application/epub+zip",
}
"""The media type that a document of each format is given."""

_OTHER_MEDIA_TYPES = {
    "text/x-markdown": MARKDOWN,
    "application/xhtml+xml": HTML,
    "text/tab-separated-values": CSV,
    "application/x-ndjson": JSONL,
    "application/x-jsonlines": JSONL,
    "text/x-python": SOURCE,
    "text/javascript": SOURCE,
    "application/javascript": SOURCE,
    "application/xml": SOURCE,
    "text/xml": SOURCE,
}
_SUFFIXES = {
    TEXT: "txt text rst adoc asciidoc org log tex",
    MARKDOWN: "md markdown mdown mkd mdx",
    HTML: "html htm xhtml",
    CSV: "csv tsv tab",
    JSON: "json geojson ipynb webmanifest",
    JSONL: "jsonl ndjson",
    MAIL: "eml",
    SOURCE: (
        "py pyi pyx c h cc cpp cxx hpp hh cs java kt kts scala groovy go rs rb php pl pm lua r jl swift m mm dart ex "
        "exs erl hs ml mli fs clj lisp el scm js mjs cjs jsx ts tsx vue svelte css scss less sql sh bash zsh fish ps1 "
        "bat cmd awk sed xml xsd xsl svg yaml yml toml ini cfg conf properties env proto graphql gradle cmake mk tf "
        "nix vim asm s v sv vhd"
    ),
    PDF: "pdf",
    WORD: "docx docm dotx",
    SLIDES: "pptx pptm ppsx potx",
    WORKBOOK: "xlsx xlsm xltx",
    EPUB: "epub",
}
_BY_SUFFIX = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
_BY_NAME = {"makefile": SOURCE, "dockerfile": SOURCE, "jenkinsfile": SOURCE, "rakefile": SOURCE, "gemfile": SOURCE}
_ZIPPED = {WORD, SLIDES, WORKBOOK, EPUB}
_ZIP_MARKS = {"word/document.xml": WORD, "ppt/presentation.xml": SLIDES, "xl/workbook.xml": WORKBOOK}
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_OFFICE = "EncryptedPackage".encode("utf-16-le")
_OTHER_MAGIC = {
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"\x7fELF": "a program",
    b"\x1f\x8b": "a compressed file",
    b"BZh": "a compressed file",
    b"\xfd7zXZ": "a compressed file",
    b"\x28\xb5\x2f\xfd": "a compressed file",
    b"7z\xbc\xaf": "an archive",
    b"Rar!": "an archive",
    b"{\\rtf": "in rich text format (RTF)",
    b"SQLite format 3": "a database",
}


def detect_format(name: str, data: bytes, media_type: str | None = None) -> str:
    """Returns the format of a file: a key of ``MEDIA_TYPES``.

    The bytes decide where they tell the format; else what the caller says; else the name; else it is plain text.

    Args:
        name: The file's name; only its suffix counts.
        data: Its bytes.
        media_type: What the caller says it is.

    Raises:
        UnreadableFileError: It is empty, encrypted, or in a format that is not read.
    """
    if not data:
        raise UnreadableFileError("is empty")
    told = _told(name, media_type)
    found = _by_magic(data, told)
    if found is not None:
        return found
    if told == PDF or told in _ZIPPED:
        raise UnreadableFileError(f"is broken: it is named like a {told} file but does not begin like one")
    return told


def _told(name: str, media_type: str | None) -> str:
    if media_type:
        plain = media_type.partition(";")[0].strip().lower()
        known = {kind for kind, its_type in MEDIA_TYPES.items() if its_type == plain} | {_OTHER_MEDIA_TYPES.get(plain)}
        kind = next((kind for kind in known if kind), None)
        if kind is None and not plain.startswith("text/"):
            raise UnreadableFileError("is of a media type that is not read; leave it out to find it out from the bytes")
        return kind or TEXT
    path = PurePath(name)
    suffix = path.suffix.lower().lstrip(".")
    return _BY_SUFFIX.get(suffix) or _BY_NAME.get(path.name.lower(), TEXT)


def _by_magic(data: bytes, told: str) -> str | None:
    if b"%PDF-" in data[:1024] and (told == PDF or data.lstrip()[:5] == b"%PDF-"):
        return PDF
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_format(data)
    if data.startswith(_OLE):
        if _ENCRYPTED_OFFICE in data:
            raise UnreadableFileError("is encrypted")
        raise UnreadableFileError("is in an old Office format; save it as docx, xlsx or pptx")
    for magic, what in _OTHER_MAGIC.items():
        if data.startswith(magic):
            raise UnreadableFileError(f"is binary: it is {what}, which is not read")
    return None


def _zip_format(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
    except ZIP_ERRORS:
        raise UnreadableFileError("is broken: its archive cannot be opened, perhaps it was cut off") from None
    for mark, kind in _ZIP_MARKS.items():
        if mark in names:
            return kind
    if "META-INF/container.xml" in names:
        return EPUB
    raise UnreadableFileError("is an archive; unpack it first")
