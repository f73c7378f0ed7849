"""E-books (epub): their chapters in reading order."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from knowledge_base.documents.archives import open_archive, read_member
from knowledge_base.documents.blocks import ExtractedDocument
from knowledge_base.documents.formats import EPUB, MEDIA_TYPES
from knowledge_base.documents.readers.block_list import BlockList
from knowledge_base.documents.readers.html_page import add_page
from knowledge_base.documents.readers.request import ReadRequest
from knowledge_base.documents.unreadable import UnreadableFileError

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_FONT_OBFUSCATION = (b"http://www.idpf.org/2008/embedding", b"http://ns.adobe.com/pdf/enc#RC")
_PAGES = {"application/xhtml+xml", "text/html"}


def read(data: bytes, request: ReadRequest) -> ExtractedDocument:
    """Reads an e-book, chapter by chapter.

    Args:
        data: The bytes of the file.
        request: What is known of it.

    Raises:
        UnreadableFileError: It is broken or protected, explodes, or has no text.
    """
    with open_archive(data) as archive:
        _refuse_protected(archive)
        package_name = _package_name(archive)
        package = _xml(read_member(archive, package_name))
        blocks = BlockList(request.max_characters)
        for name in _chapters(package, posixpath.dirname(package_name)):
            add_page(read_member(archive, name), blocks)
        title = next((element.text for element in package.iter() if _tag(element) == "title"), None)
        return blocks.document(title=title, media_type=MEDIA_TYPES[EPUB])


def _refuse_protected(archive: zipfile.ZipFile) -> None:
    if _ENCRYPTION not in archive.namelist():
        return
    methods = read_member(archive, _ENCRYPTION)
    if methods.count(b"EncryptionMethod") > sum(methods.count(known) for known in _FONT_OBFUSCATION):
        raise UnreadableFileError("is encrypted")


def _package_name(archive: zipfile.ZipFile) -> str:
    for element in _xml(read_member(archive, _CONTAINER)).iter():
        if _tag(element) == "rootfile" and element.get("full-path"):
            return str(element.get("full-path"))
    raise UnreadableFileError("is broken: it does not name its table of chapters")


def _chapters(package: Any, folder: str) -> Iterator[str]:
    pages = {
        element.get("id"): element.get("href")
        for element in package.iter()
        if _tag(element) == "item" and element.get("media-type") in _PAGES and element.get("href")
    }
    seen = set()
    for element in package.iter():
        href = pages.get(element.get("idref")) if _tag(element) == "itemref" else None
        if href and href not in seen:
            seen.add(href)
            yield posixpath.normpath(posixpath.join(folder, unquote(href)))


def _tag(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def _xml(data: bytes) -> Any:
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException, ElementTree

    try:
        return ElementTree.fromstring(data)
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        raise UnreadableFileError("is broken: its table of chapters is no sound XML") from None
