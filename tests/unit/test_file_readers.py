"""What the readers make of real files: PDF, Word, slides, workbooks, tables, JSON, e-books."""

from __future__ import annotations

import io
import json
from datetime import datetime

import docx
import openpyxl
import pptx
import pytest
from fpdf import FPDF
from pypdf import PdfReader, PdfWriter

from knowledge_base.documents.blocks import ExtractedDocument
from knowledge_base.documents.readers.registry import read_document
from knowledge_base.documents.readers.request import ReadRequest
from knowledge_base.documents.unreadable import UnreadableFileError
from tests.support.nasty_files import pdf_file, plain_word_file, workbook_file, zipped


def read(name: str, data: bytes, max_characters: int = 10_000_000) -> ExtractedDocument:
    return read_document(data, ReadRequest(name, None, max_characters))


def outline(document: ExtractedDocument) -> list[tuple[str, str, int, int | None]]:
    return [(block.kind, block.text, block.level, block.page) for block in document.blocks]


def word_bytes(document: object) -> bytes:
    target = io.BytesIO()
    document.save(target)  # type: ignore[attr-defined]
    return target.getvalue()


def test_pdf_gives_pages_and_the_headings_of_its_outline() -> None:
    pdf = FPDF()
    pdf.set_title("The machine book")
    pdf.set_font("helvetica", size=12)
    for title, level in (("Care", 0), ("Descaling", 1)):
        pdf.add_page()
        pdf.start_section(title, level=level)
        pdf.multi_cell(0, text=f"{title}\nThe machine hums all day and is descaled each Friday, which takes an hour.")

    document = read("a.pdf", bytes(pdf.output()))

    assert (document.title, document.pages, document.media_type) == ("The machine book", 2, "application/pdf")
    assert [item for item in outline(document) if item[0] == "heading"] == [
        ("heading", "Care", 1, 1),
        ("heading", "Descaling", 2, 2),
    ]
    assert [block.page for block in document.blocks if "hums all day" in block.text] == [1, 2]


def test_pdf_that_only_its_owner_may_change_is_read() -> None:
    assert "espresso" in read("a.pdf", pdf_file(1, password="")).blocks[0].text


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_pdf_with_a_password_is_reported_as_encrypted(algorithm: str) -> None:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf_file(1))))
    writer.encrypt("secret", algorithm=algorithm)
    target = io.BytesIO()
    writer.write(target)

    with pytest.raises(UnreadableFileError, match="is encrypted"):
        read("a.pdf", target.getvalue())


def test_pdf_without_text_is_reported() -> None:
    pdf = FPDF()
    pdf.add_page()

    with pytest.raises(UnreadableFileError, match="pictures"):
        read("a.pdf", bytes(pdf.output()))


def test_word_document_keeps_its_structure() -> None:
    document = docx.Document()
    document.add_heading("The book", 0)
    document.add_heading("Care", 1)
    document.add_paragraph("The machine hums.")
    document.add_paragraph("Descale", style="List Bullet")
    document.add_paragraph("Rinse", style="List Number")
    table = document.add_table(rows=2, cols=2)
    for row, texts in zip(table.rows, (("part", "age"), ("pump", "3")), strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    document.add_heading("Deeper", 2)
    document.add_paragraph("The end.")

    found = read("a.docx", word_bytes(document))

    assert found.title == "The book"
    assert outline(found) == [
        ("heading", "The book", 1, None),
        ("heading", "Care", 1, None),
        ("paragraph", "The machine hums.", 0, None),
        ("list", "- Descale\n- Rinse", 0, None),
        ("table", "part | age\npump | 3", 0, None),
        ("heading", "Deeper", 2, None),
        ("paragraph", "The end.", 0, None),
    ]


def test_slides_are_pages_with_titles_lists_tables_and_notes() -> None:
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "Care"
    slide.placeholders[1].text_frame.text = "Descale"
    slide.placeholders[1].text_frame.add_paragraph().text = "Rinse"
    slide.notes_slide.notes_text_frame.text = "Say it slowly."
    second = deck.slides.add_slide(deck.slide_layouts[5])
    second.shapes.title.text = "Parts"
    table = second.shapes.add_table(2, 2, 0, 0, 100, 100).table
    for row, texts in enumerate((("part", "age"), ("pump", "3"))):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text

    found = read("a.pptx", word_bytes(deck))

    assert (found.title, found.pages) == ("Care", 2)
    assert outline(found) == [
        ("heading", "Care", 1, 1),
        ("list", "- Descale\n- Rinse", 0, 1),
        ("paragraph", "Say it slowly.", 0, 1),
        ("heading", "Parts", 1, 2),
        ("table", "part | age\npump | 3", 0, 2),
    ]


def test_workbook_gives_a_table_per_sheet() -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.title = "Parts"
    sheet.append(["part", "age", "bought"])
    sheet.append(["pump", 3.0, datetime(2020, 5, 1)])
    sheet.append([None, None, None])
    sheet.append(["hose", 1.5, None])
    book.create_sheet("Empty")

    found = read("a.xlsx", word_bytes(book))

    assert outline(found) == [
        ("heading", "Parts", 1, None),
        ("table", "part | age | bought\npump | 3 | 2020-05-01\nhose | 1.5", 0, None),
    ]


def test_long_table_becomes_blocks_that_repeat_the_header() -> None:
    found = read("a.xlsx", workbook_file(1000))

    tables = [block.text.split("\n") for block in found.blocks if block.kind == "table"]
    assert len(tables) > 3
    assert {lines[0] for lines in tables} == {"machine | place | litres"}
    assert [line for lines in tables for line in lines[1:]] == [
        f"machine {number} | kitchen | {number}" for number in range(1000)
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_separated_values_are_read_whatever_separates_them(delimiter: str) -> None:
    rows = [["name", "text"], ["pump", f'"a{delimiter} b"'], ["hose", '"two\nlines"']]

    found = read("a.csv", "\n".join(delimiter.join(row) for row in rows).encode())

    cell = "a b" if delimiter == "\t" else f"a{delimiter} b"
    assert found.blocks[0].text == f"name | text\npump | {cell}\nhose | two lines"


def test_json_names_each_value_with_its_path() -> None:
    value = {"title": "Parts", "pump": {"age": 3, "tags": ["old", "loud"], "gone": None}, "works": True}

    found = read("a.json", json.dumps(value).encode())

    assert found.title == "Parts"
    assert found.blocks[0].text.split("\n") == [
        "title: Parts",
        "pump.age: 3",
        "pump.tags[0]: old",
        "pump.tags[1]: loud",
        "works: true",
    ]


def test_long_json_is_parted_between_its_entries() -> None:
    entries = [{"name": f"part {number}", "note": "x" * 300} for number in range(50)]

    found = read("a.json", json.dumps(entries).encode())

    assert len(found.blocks) > 5
    assert all(block.text.startswith("[") and "name: part" in block.text.split("\n")[0] for block in found.blocks)
    assert sum(block.text.count("note: ") for block in found.blocks) == 50


def test_json_lines_of_flat_objects_are_a_table_and_others_are_rows() -> None:
    flat = b'{"part": "pump", "age": 3}\n{"part": "hose"}\n'
    nested = b'{"part": {"name": "pump"}, "age": 3}\n[1, 2]\n'

    assert read("a.jsonl", flat).blocks[0].text == "part | age\npump | 3\nhose"
    assert read("a.jsonl", nested).blocks[0].text == "part.name: pump | age: 3\n[0]: 1 | [1]: 2"


def book_file(chapters: dict[str, str], order: list[str], **others: bytes) -> bytes:
    items = "".join(f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in chapters)
    spine = "".join(f'<itemref idref="{name}"/>' for name in order)
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata><dc:title xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"The book</dc:title></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    container = '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'
    members = {"mimetype": b"application/epub+zip", "META-INF/container.xml": container.encode()}
    pages = {f"OPS/{name}": text.encode() for name, text in chapters.items()}
    return zipped(members | {"OPS/book.opf": package.encode()} | pages | others)


def test_e_book_is_read_in_the_order_of_its_spine() -> None:
    chapters = {"b.xhtml": "<h1>Second</h1><p>Later.</p>", "a.xhtml": "<h1>First</h1><p>Now.</p>"}

    found = read("a.epub", book_file(chapters, ["a.xhtml", "b.xhtml"]))

    assert found.title == "The book"
    assert [block.text for block in found.blocks] == ["First", "Now.", "Second", "Later."]


def test_protected_e_book_is_reported() -> None:
    protection = b"<encryption><EncryptionMethod Algorithm='http://www.w3.org/2001/04/xmlenc#aes128-cbc'/></encryption>"
    data = book_file({"a.xhtml": "<p>x"}, ["a.xhtml"], **{"META-INF/encryption.xml": protection})

    with pytest.raises(UnreadableFileError, match="is encrypted"):
        read("a.epub", data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.docx", zipped({"word/document.xml": b"<x/>"})),
        ("a.pptx", zipped({"ppt/presentation.xml": b"<x/>"})),
        ("a.xlsx", zipped({"xl/workbook.xml": b"<x/>"})),
        ("a.epub", zipped({"META-INF/container.xml": b"<x"})),
        ("a.docx", plain_word_file().replace(b"word/document.xml", b"word/documenu.xml", 1)),
        ("a.pdf", b"%PDF-1.7\n" + b"garbage " * 100),
        ("a.json", b'{"a": '),
    ],
)
def test_broken_file_is_reported_without_its_content(name: str, data: bytes) -> None:
    with pytest.raises(UnreadableFileError, match="is broken") as caught:
        read(name, data)

    assert "garbage" not in str(caught.value)
