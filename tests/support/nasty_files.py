"""Files that nobody should have to read: bombs, wrecks, traps and lies.

``made_in(folder)`` writes them; what each must come to stands beside it in ``NASTY``.
"""

from __future__ import annotations

import io
import os
import random
import re
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fpdf import FPDF

MEGABYTE = 1_000_000
READ = "read"
"""The outcome of what is read after all."""

BILLION_LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">'
    + "".join(f'<!ENTITY lol{n} "{f"&lol{n - 1};" * 10}">' for n in range(2, 10)).replace("&lol1;", "&lol;")
    + "]>"
)


@dataclass(frozen=True)
class Nasty:
    """One nasty file.

    Attributes:
        name: Its name.
        content: Makes its bytes.
        outcomes: What may be said of it: regular expressions of reasons, or ``READ``.
    """

    name: str
    content: Callable[[], bytes]
    outcomes: tuple[str, ...]

    def fits(self, outcome: str) -> bool:
        """Returns whether it came to what it must come to."""
        return any(outcome == expected or re.search(expected, outcome) for expected in self.outcomes)


def zipped(members: dict[str, bytes], level: int = 6) -> bytes:
    """Returns a zip archive."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target.getvalue()


def word_file(document: bytes, **others: bytes) -> bytes:
    """Returns a Word document with this XML as its body part."""
    types = (
        b'<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        b'<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        b'<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.'
        b'wordprocessingml.document.main+xml"/></Types>'
    )
    relations = (
        b'<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        b'<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/'
        b'officeDocument" Target="word/document.xml"/></Relationships>'
    )
    return zipped({"[Content_Types].xml": types, "_rels/.rels": relations, "word/document.xml": document, **others})


def word_body(inner: bytes, prolog: bytes = b'<?xml version="1.0"?>') -> bytes:
    """Returns the XML of a Word document's body."""
    space = b'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    return prolog + b"<w:document " + space + b"><w:body>" + inner + b"</w:body></w:document>"


def plain_word_file() -> bytes:
    """Returns a sound Word document of many paragraphs."""
    import docx

    document = docx.Document()
    for number in range(200):
        document.add_paragraph(f"Paragraph {number} tells of the espresso machine, which hums.")
    target = io.BytesIO()
    document.save(target)
    return target.getvalue()


def workbook_file(rows: int = 50) -> bytes:
    """Returns a sound workbook."""
    import openpyxl

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("Machines")
    sheet.append(["machine", "place", "litres"])
    for number in range(rows):
        sheet.append([f"machine {number}", "kitchen", number])
    target = io.BytesIO()
    book.save(target)
    return target.getvalue()


def pdf_file(pages: int = 3, password: str | None = None) -> bytes:
    """Returns a sound PDF file."""
    pdf = FPDF()
    pdf.set_font("helvetica", size=12)
    if password is not None:
        pdf.set_encryption(owner_password="owner", user_password=password)
    for number in range(pages):
        pdf.add_page()
        pdf.multi_cell(0, text=f"Page {number} tells of the espresso machine.")
    return bytes(pdf.output())


def pdf_of(objects: list[bytes]) -> bytes:
    """Returns a PDF file of these objects; the first is the catalog."""
    body = b"%PDF-1.7\n"
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    table += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(body))
    return body + table + trailer


def stream(data: bytes, extra: bytes = b"") -> bytes:
    """Returns a compressed stream object."""
    packed = zlib.compress(data, 9)
    return b"<< /Length %d /Filter /FlateDecode %b >>\nstream\n%b\nendstream" % (len(packed), extra, packed)


def self_referential_pdf() -> bytes:
    """Returns a PDF file whose tree of pages contains itself."""
    return pdf_of(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [2 0 R 3 0 R] /Count 1000000000 >>",
            b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /MediaBox [0 0 9 9] >>",
            stream(b"BT (x) Tj ET"),
        ]
    )


def endless_pdf() -> bytes:
    """Returns a PDF file whose page draws a form that draws itself, 200 000 times."""
    form = b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /F 5 0 R >> >>"
    return pdf_of(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /MediaBox [0 0 9 9] "
            b"/Resources << /XObject << /F 5 0 R >> >> >>",
            stream(b"q /F Do Q\n" * 200_000),
            stream(b"q /F Do /F Do Q\n" * 1000, form),
        ]
    )


def bomb_pdf() -> bytes:
    """Returns a PDF file whose page unpacks to 600 MB."""
    packed = zlib.compressobj(9)
    data = b"".join([*(packed.compress(b" " * 10 * MEGABYTE) for _ in range(60)), packed.flush()])
    page = b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(data), data)
    return pdf_of(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /MediaBox [0 0 9 9] >>",
            page,
        ]
    )


def lying_zip() -> bytes:
    """Returns a Word document whose body declares 100 bytes and unpacks to 50 MB."""
    data = bytearray(word_file(word_body(b"<w:p/>" + b" " * 50 * MEGABYTE)))
    real = zipfile.ZipFile(io.BytesIO(bytes(data))).getinfo("word/document.xml").file_size
    while (at := data.find(struct.pack("<I", real))) >= 0:
        data[at : at + 4] = struct.pack("<I", 100)
    return bytes(data)


def overlapping_zip() -> bytes:
    """Returns an archive with a thousand names for the same bytes."""
    data = zipped({"word/document.xml": random.Random(1).randbytes(100_000)})
    central = data.index(b"PK\x01\x02")
    ending = data.index(b"PK\x05\x06")
    entry = data[central:ending]
    entries = b"".join(entry.replace(b"document.xml", b"d%06d.xml" % n + b"m") for n in range(1000)) + entry
    entries = entries.replace(b".xmlm", b"m.xml")
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1001, 1001, len(entries), central, 0)
    return data[:central] + entries + end


def trick_zip() -> bytes:
    """Returns a Word document with a member that would lie in /tmp."""
    return word_file(word_body(b"<w:p><w:r><w:t>x</w:t></w:r></w:p>"), **{"../../../../tmp/nasty": b"x"})


def laughing_word_file() -> bytes:
    """Returns a Word document with an entity that multiplies to a billion words."""
    return word_file(word_body(b"<w:p><w:r><w:t>&lol9;</w:t></w:r></w:p>", BILLION_LAUGHS.encode()))


def odd_quotes_csv() -> bytes:
    """Returns a CSV file with a quote that is never closed, before 2 MB of lines."""
    return b'a,b\n1,"open\n' + b"2,3\n" * 500_000


def rich_text_mail() -> bytes:
    """Returns an e-mail of 500 multiparts in each other."""
    head = b"Subject: nested\nMIME-Version: 1.0\n"
    body = b""
    for number in range(500):
        body += b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (number, number)
    return head + body + b"Content-Type: text/plain\n\nthe core\n"


NASTY = [
    Nasty("bomb.docx", lambda: word_file(word_body(b"<w:p/>" + b" " * 200 * MEGABYTE)), ("explodes",)),
    Nasty("large bomb.docx", lambda: word_file(word_body(b" " * 400 * MEGABYTE)), ("explodes",)),
    Nasty("lying.docx", lying_zip, ("broken",)),
    Nasty("overlapping.docx", overlapping_zip, ("lie upon each other",)),
    Nasty("tricks.docx", trick_zip, ("lead out of it",)),
    Nasty("laughs.docx", laughing_word_file, ("written in a way",)),
    Nasty("deep.docx", lambda: word_file(word_body(b"<w:tbl><w:tr><w:tc>" * 100_000)), ("broken", "nested")),
    Nasty("cut.docx", lambda: plain_word_file()[:9_000], ("broken",)),
    Nasty("cut.pdf", lambda: pdf_file()[:700], ("broken", READ)),
    Nasty("cut.xlsx", lambda: workbook_file()[:2_000], ("broken",)),
    Nasty("encrypted.pdf", lambda: pdf_file(password="secret"), ("encrypted",)),
    Nasty("self.pdf", self_referential_pdf, ("broken", "too long", "longer", "nested", "pictures", READ)),
    Nasty("endless.pdf", endless_pdf, ("longer", "nested", "broken", "pictures")),
    Nasty("bomb.pdf", bomb_pdf, ("broken", "longer", "memory", "pictures")),
    Nasty("binary.txt", lambda: bytes(range(256)) * 4_000, ("binary",)),
    Nasty("picture.txt", lambda: b"\x89PNG\r\n\x1a\n" + b"\x00\x01" * 500, ("binary",)),
    Nasty("empty.md", bytes, ("empty",)),
    Nasty("blank.md", lambda: b" \n\t\n" * 1000, ("no text",)),
    Nasty("old.doc", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(5_000), ("old Office",)),
    Nasty("utf16 unmarked.txt", lambda: ("Die Gr\u00f6\u00dfe der Maschine.\n" * 50).encode("utf-16-le"), (READ,)),
    Nasty("latin1.txt", lambda: ("Die Gr\u00f6\u00dfe der Stra\u00dfe.\n" * 50).encode("latin-1"), (READ,)),
    Nasty("mixed.txt", lambda: "Gr\u00f6\u00dfe\n".encode() * 50 + "Stra\u00dfe\n".encode("latin-1"), (READ,)),
    Nasty("null bytes.txt", lambda: b"The machine hums.\x00 It is warm.\n" * 1, (READ,)),
    Nasty("surrogates.json", lambda: b'{"text": "half a pair \\ud83d and more", "\\udc00": 1}', (READ,)),
    Nasty("deep.json", lambda: b"[" * 200_000 + b"]" * 200_000, ("nested",)),
    Nasty("deep.html", lambda: b"<div>" * 500_000 + b"text", ("nested",)),
    Nasty("open comment.html", lambda: b"<p>text</p>" + b"<!--" * 200_000, (READ,)),
    Nasty("odd attributes.html", lambda: b"<p>text</p><a " + b"x=\"" * 300_000, (READ,)),
    Nasty("brackets.md", lambda: b"[" * 300_000, (READ, "longer")),
    Nasty("links.md", lambda: b"[a](" * 200_000, (READ, "longer", "nested")),
    Nasty("comments.md", lambda: b"a <!--" * 200_000, (READ, "longer")),
    Nasty("laughs.xml", lambda: (BILLION_LAUGHS + "<lolz>&lol9;</lolz>").encode(), (READ,)),
    Nasty("quotes.csv", odd_quotes_csv, (READ, "quote")),
    Nasty("no json.jsonl", lambda: b'{"a": 1}\n{"a": \n', ("line 2",)),
    Nasty("nested.eml", rich_text_mail, (READ, "nested", "broken")),
    Nasty("deep.py", lambda: b"x = " + b"(" * 50_000 + b")" * 50_000, (READ,)),
    Nasty("bomb.gz", lambda: b"\x1f\x8b" + bytes(100), ("compressed",)),
    Nasty("new\nline.txt", lambda: b"The name has two lines.", (READ,)),
    Nasty("rows.csv", lambda: b"name,place,litres\n" + b"machine,kitchen,12\n" * 100_000, (READ,)),
]  # fmt: skip
"""Small enough to be made at once; the large ones are made by ``add_large``."""


def made_in(folder: Path) -> None:
    """Writes every nasty file of the list."""
    for nasty in NASTY:
        (folder / nasty.name).write_bytes(nasty.content())


LARGE = {
    "one line.txt": ("larger than",),
    "large.html": ("more text than", READ),
    "rows.xlsx": (READ, "longer"),
}


def add_large(folder: Path) -> None:
    """Writes a line of 200 MB, a page of 50 MB and a workbook of a hundred thousand rows."""
    with (folder / "one line.txt").open("wb") as target:
        for _ in range(200):
            target.write(b"a long line " * (MEGABYTE // 12))
    page = b"<div><p>The espresso machine <b>hums</b>.</p></div>\n"
    (folder / "large.html").write_bytes(b"<html><body>" + page * (50 * MEGABYTE // len(page) - 10))
    (folder / "rows.xlsx").write_bytes(workbook_file(100_000))


def add_traps(folder: Path, outside: Path) -> dict[str, str]:
    """Makes links, pipes and names that lead astray; returns what each must be refused for."""
    (outside / "secret.txt").write_text("secret")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "self").symlink_to(folder / "self")
    (folder / "nowhere").symlink_to(folder / "missing")
    (folder / "out.txt").symlink_to(outside / "secret.txt")
    (folder / "out folder").symlink_to(outside, target_is_directory=True)
    os.mkfifo(folder / "pipe.txt")
    (folder / "null.txt").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(folder, os.O_RDONLY)
        try:
            # The path of a socket may be a hundred bytes long only.
            listener.bind(f"/proc/self/fd/{here}/socket.txt")
        finally:
            os.close(here)
    with open(os.fsencode(folder) + b"/bad \xff name.txt", "wb") as target:
        target.write(b"text")
    return {
        "loop": "circle",
        "self": "circle",
        "nowhere": "nowhere",
        "out.txt": "out of the folder",
        "out folder": "out of the folder",
        "pipe.txt": "named pipe",
        "null.txt": "out of the folder",
        "socket.txt": "socket",
        "bad \\xff name.txt": "UTF-8",
    }
