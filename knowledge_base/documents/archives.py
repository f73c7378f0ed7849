"""Opens the zip archives that office files are, after a look at what would come out of them."""

from __future__ import annotations

import io
import zipfile
import zlib

from knowledge_base.documents.unreadable import UnreadableFileError

MAX_MEMBERS = 10_000
MAX_UNPACKED_BYTES = 256 * 1024 * 1024
MAX_RATIO = 200
SMALL_BYTES = 16 * 1024 * 1024
"""A member, or an archive, that unpacks to less is harmless whatever its ratio."""

PIECE_BYTES = 1024 * 1024

_ENCRYPTED = 0x1
_LOCAL_HEADER_BYTES = 30
_DOCTYPE = b"<!DOCTYPE"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
ZIP_ERRORS = (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError, RuntimeError)
"""What the library raises for archives that are broken, encrypted or packed in a way it does not know."""
_DAMAGED = "is broken: a part of its archive is missing, damaged or larger than it says"
_BROKEN = "is broken: its archive cannot be opened, perhaps it was cut off"


def open_archive(data: bytes) -> zipfile.ZipFile:
    """Opens an archive that is safe to unpack in memory.

    The declared sizes can be trusted afterwards: what a member really holds is cut off there by ``zipfile``, which
    then reports a wrong checksum.

    Args:
        data: The bytes of the archive.

    Raises:
        UnreadableFileError: It is broken, encrypted, explodes, or its names lead out of it.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = archive.infolist()
    except ZIP_ERRORS:
        raise UnreadableFileError(_BROKEN) from None
    if len(members) > MAX_MEMBERS:
        raise UnreadableFileError(f"explodes: its archive has more than {MAX_MEMBERS:,} members", limit=MAX_MEMBERS)
    for member in members:
        _check_name(member.filename)
        _check_method(member)
    _check_sizes(members)
    _check_overlap(members)
    return archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Returns what a member of an archive holds.

    Args:
        archive: The archive, from ``open_archive``.
        name: The member's name.

    Raises:
        UnreadableFileError: There is no such member, or it is broken.
    """
    try:
        return archive.read(name)
    except (KeyError, *ZIP_ERRORS, zlib.error):
        raise UnreadableFileError(_DAMAGED) from None


def verify_members(archive: zipfile.ZipFile) -> None:
    """Unpacks each member once, piece by piece: it must be as large as it says, and its XML must declare no entities.

    Args:
        archive: The archive, from ``open_archive``.

    Raises:
        UnreadableFileError: A member is broken, or holds more than it declares, or its XML could explode.
    """
    for member in archive.infolist():
        unpacked = 0
        is_xml = member.filename.lower().endswith((".xml", ".rels"))
        try:
            with archive.open(member) as stream:
                before = b""
                while piece := stream.read(PIECE_BYTES):
                    if is_xml:
                        _check_xml(before + piece, is_first=not unpacked)
                        before = piece[-len(_DOCTYPE) :]
                    unpacked += len(piece)
        except UnreadableFileError:
            raise
        except (*ZIP_ERRORS, zlib.error):
            raise UnreadableFileError(_DAMAGED) from None
        if unpacked != member.file_size:
            raise UnreadableFileError(_DAMAGED)


def _check_xml(piece: bytes, *, is_first: bool) -> None:
    # Office programs write no document types; with them come entities, which multiply or read other files.
    if _DOCTYPE in piece or (is_first and b"\x00" in piece[:4]) or (is_first and piece[:2] in _WIDE_MARKS):
        raise UnreadableFileError("is refused: its XML is written in a way that such files never are")


def _check_name(name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or "\x00" in name or ":" in parts[0]:
        raise UnreadableFileError("is refused: its archive has names that lead out of it")


def _check_method(member: zipfile.ZipInfo) -> None:
    if member.flag_bits & _ENCRYPTED:
        raise UnreadableFileError("is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnreadableFileError("is refused: its archive is packed in a way that such files never are")


def _check_sizes(members: list[zipfile.ZipInfo]) -> None:
    unpacked = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if unpacked > MAX_UNPACKED_BYTES:
        raise UnreadableFileError(
            f"explodes: its archive unpacks to more than {MAX_UNPACKED_BYTES // 1024**2} MB", limit=MAX_UNPACKED_BYTES
        )
    for is_packed, is_unpacked in [(packed, unpacked), *((m.compress_size, m.file_size) for m in members)]:
        if is_unpacked > SMALL_BYTES and is_unpacked > MAX_RATIO * max(1, is_packed):
            raise UnreadableFileError(
                f"explodes: its archive unpacks to over {MAX_RATIO} times its size", limit=MAX_RATIO
            )


def _check_overlap(members: list[zipfile.ZipInfo]) -> None:
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            raise UnreadableFileError("explodes: parts of its archive lie upon each other")
        end = member.header_offset + _LOCAL_HEADER_BYTES + member.compress_size
