"""E-mails (eml): the subject, who wrote when, and the text."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from email.utils import parsedate_to_datetime

from knowledge_base.documents.blocks import ExtractedDocument
from knowledge_base.documents.encodings import decode_text
from knowledge_base.documents.readers.block_list import BlockList, on_one_line
from knowledge_base.documents.readers.html_page import add_page
from knowledge_base.documents.readers.plain_text import add_plain_text
from knowledge_base.documents.readers.request import ReadRequest
from knowledge_base.documents.unreadable import UnreadableFileError

_NAMED_HEADERS = ("From", "To", "Cc", "Date")
_MAX_PARTS = 1_000


def read(data: bytes, request: ReadRequest) -> ExtractedDocument:
    """Reads an e-mail: its text, or else its HTML; attachments are named, not read.

    Args:
        data: The bytes of the file.
        request: What is known of it.

    Raises:
        UnreadableFileError: It is no e-mail, or has no text.
    """
    try:
        message = message_from_bytes(data, policy=policy.default)
        if not message.keys():
            raise UnreadableFileError("is broken: it does not begin like an e-mail")
        blocks = BlockList(request.max_characters)
        subject = _header(message, "Subject")
        blocks.add("heading", subject, level=1)
        named = [(name, _header(message, name)) for name in _NAMED_HEADERS]
        blocks.add("paragraph", "\n".join(f"{name}: {value}" for name, value in named if value))
        before = len(blocks)
        _add_body(message, blocks)
        names = _attachments(message)
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        # The parser of addresses and dates fails in these ways on what spammers write.
        if isinstance(error, UnreadableFileError):
            raise
        raise UnreadableFileError("is broken: its headers or parts cannot be parsed") from None
    blocks.add("list", "\n".join(f"- {name}" for name in names))
    if len(blocks) == before and not subject:
        raise UnreadableFileError("has no text")
    return blocks.document(title=subject or None, media_type="message/rfc822")


def _header(message: EmailMessage, name: str) -> str:
    try:
        value = str(message.get(name, ""))
        return parsedate_to_datetime(value).isoformat(" ") if name == "Date" and value else on_one_line(value)
    except (ValueError, LookupError, AttributeError, TypeError):
        # One header that cannot be parsed is no reason to lose the letter.
        return ""


def _add_body(message: EmailMessage, blocks: BlockList) -> None:
    body = message.get_body(preferencelist=("plain", "html"))
    if body is None:
        return
    payload = body.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return
    if body.get_content_subtype() == "html":
        add_page(payload, blocks)
    else:
        add_plain_text(decode_text(payload, body.get_content_charset()) if payload else "", blocks)


def _attachments(message: EmailMessage) -> list[str]:
    names: list[str] = []
    for part in message.iter_attachments():
        if len(names) >= _MAX_PARTS:
            break
        name = part.get_filename() if isinstance(part, MIMEPart) else None
        if name:
            names.append(on_one_line(name))
    return names
