"""Finds out how a text is encoded, and whether it is a text at all."""

from __future__ import annotations

import codecs
import re

from knowledge_base.documents.unreadable import UnreadableFileError

SAMPLE_BYTES = 65_536
"""Enough to tell an encoding; the detector takes its time."""

LEGACY_ENCODINGS = [
    "cp1252",
    "cp1250",
    "iso8859_2",
    "cp1251",
    "koi8_r",
    "iso8859_7",
    "shift_jis",
    "euc_jp",
    "gb18030",
    "big5",
    "euc_kr",
]

_MARKS = [
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
]
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n\r\x0c\x1b\x08")
_MULTIBYTE = re.compile(rb"[\xc3-\xdf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_MAX_CONTROLS = 0.02


def decode_text(data: bytes, declared: str | None = None) -> str:
    """Returns the text of a file whatever it is encoded in.

    Args:
        data: The bytes of the file.
        declared: The encoding that the file itself names, if it does.

    Raises:
        UnreadableFileError: These are the bytes of no text.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strict_or_replaced(data[len(mark) :], encoding)
    sixteen = _unmarked_utf16(data)
    if sixteen:
        return _strict_or_replaced(data, sixteen)
    _refuse_binary(data)
    if declared and declared.lower().startswith("iso-2022") and b"\x1b" in data and _is_text_codec(declared):
        # It looks like ASCII.
        return data.decode(declared, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    if declared and _is_text_codec(declared):
        return data.decode(declared, "replace")
    if _is_mixed(data):
        return data.decode("utf-8", "knowledge_base_legacy_bytes")
    return data.decode(_legacy_encoding(data), "replace")


def _strict_or_replaced(data: bytes, encoding: str) -> str:
    text = data.decode(encoding, "replace")
    if text.count("\ufffd") > len(text) * _MAX_CONTROLS:
        raise UnreadableFileError("is binary, or its encoding is damaged")
    return text


def _unmarked_utf16(data: bytes) -> str | None:
    # Letters of most scripts have one high byte in common: in Latin text every other byte is zero.
    sample = data[: SAMPLE_BYTES & ~1]
    half = len(sample) // 2
    if half < 2:
        return None
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    for encoding, high, low in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if high > half * 0.4 and low < half * 0.05:
            return encoding
    return None


def _refuse_binary(data: bytes) -> None:
    for sample in (data[:SAMPLE_BYTES], data[-SAMPLE_BYTES:]):
        controls = len(sample) - len(sample.translate(None, _CONTROLS))
        if controls > max(1, len(sample) * _MAX_CONTROLS):
            raise UnreadableFileError("is binary: it holds bytes that no text has")


def _is_text_codec(name: str) -> bool:
    try:
        return codecs.lookup(name)._is_text_encoding  # hex and rot13 are codecs too
    except (LookupError, ValueError):
        return False


def _is_mixed(data: bytes) -> bool:
    # Text in an old encoding has next to no sequence that is valid UTF-8 by chance.
    sample = data[: SAMPLE_BYTES * 8]
    valid = len(_MULTIBYTE.findall(sample))
    broken = sample.decode("utf-8", "replace").count("\ufffd")
    return valid >= broken


def _legacy_encoding(data: bytes) -> str:
    # ASCII lines tell nothing; without them short foreign parts are still seen.
    telling = b"\n".join(line for line in data[: SAMPLE_BYTES * 8].splitlines() if not line.isascii())
    from charset_normalizer import from_bytes

    matches = from_bytes(telling[:SAMPLE_BYTES], cp_isolation=LEGACY_ENCODINGS)
    best = matches.best()
    if best is None:
        return "cp1252"
    # Among those that read equally well the most widespread is the best guess.
    likely = [match.encoding for match in matches if match.chaos <= best.chaos]
    return min(likely, key=LEGACY_ENCODINGS.index)


def _as_legacy_bytes(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error("knowledge_base_legacy_bytes", _as_legacy_bytes)
