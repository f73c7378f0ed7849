"""What the readers make of texts: Markdown, plain text, HTML, source code, e-mails."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from knowledge_base.documents.blocks import Block, ExtractedDocument
from knowledge_base.documents.readers.block_list import BLOCK_CHARACTERS, BlockList
from knowledge_base.documents.readers.registry import read_document
from knowledge_base.documents.readers.request import ReadRequest
from knowledge_base.documents.unreadable import UnreadableFileError


def read(name: str, text: str | bytes, max_characters: int = 10_000_000) -> ExtractedDocument:
    data = text.encode() if isinstance(text, str) else text
    return read_document(data, ReadRequest(name, None, max_characters))


def outline(document: ExtractedDocument) -> list[tuple[str, str, int]]:
    return [(block.kind, block.text, block.level) for block in document.blocks]


def test_markdown_keeps_its_structure() -> None:
    text = (
        "# Machines\n\nThey *hum* and [steam](x.md).\n\n## Care\n\n1. Descale\n2. Rinse\n   - twice\n\n"
        "```sh\nmake tea\n```\n\n| part | age |\n|---|---|\n| pump | 3 |\n\n> Quoted.\n"
    )

    document = read("a.md", text)

    assert document.title == "Machines"
    assert document.media_type == "text/markdown"
    assert outline(document) == [
        ("heading", "Machines", 1),
        ("paragraph", "They hum and steam.", 0),
        ("heading", "Care", 2),
        ("list", "1. Descale\n2. Rinse\n  - twice", 0),
        ("code", "make tea", 0),
        ("table", "part | age\npump | 3", 0),
        ("paragraph", "Quoted.", 0),
    ]


def test_markdown_title_comes_from_front_matter_and_comments_are_left_out() -> None:
    document = read("a.md", "---\ntitle: 'The Machine'\n---\nText.\n\n<!-- secret -->\n<b>shown</b>\n")

    assert document.title == "The Machine"
    assert [block.text for block in document.blocks] == ["title: 'The Machine'", "Text.", "shown"]


def nested(depth: int) -> str:
    """A list in a list in a list."""
    return "\n".join(f"{'  ' * at}- item{at}" for at in range(depth))


def test_markdown_keeps_what_is_deep_in_lists() -> None:
    (block,) = read("a.md", nested(45)).blocks

    assert all(f"item{at}" in block.text for at in range(45))


def test_markdown_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(UnreadableFileError, match="nested deeper"):
        read("a.md", nested(60))


def test_markdown_between_two_rules_is_not_lost() -> None:
    document = read("a.md", "---\nauthor: Ann\ntags: [engines]\n---\n# Machines\n\nThey hum.\n")

    assert outline(document) == [
        ("list", "author: Ann\ntags: [engines]", 0),
        ("heading", "Machines", 1),
        ("paragraph", "They hum.", 0),
    ]


def test_json_name_that_is_repeated_keeps_all_of_its_values() -> None:
    document = read("a.json", '{"a": {"b": 1}, "a": "two", "c": [{"d": 3, "d": 4, "e": 5}]}')

    assert [block.text for block in document.blocks] == ["a[0].b: 1\na[1]: two\nc[0].d[0]: 3\nc[0].d[1]: 4\nc[0].e: 5"]


def test_code_in_a_list_item_stands_after_the_items_before_it() -> None:
    document = read("a.md", "- one\n\n  ```\n  code\n  ```\n- two\n")

    assert outline(document) == [("list", "- one", 0), ("code", "code", 0), ("list", "- two", 0)]


def test_plain_text_has_paragraphs_headings_lists_and_code() -> None:
    text = "=====\nTitle\n=====\n\nFirst\nlines.\n\nPart\n----\nText::\n\n    x = 1\n\n    y = 2\n\n- a\n- b\n\n-----\n"

    document = read("a.rst", text)

    assert document.title == "Title"
    assert outline(document) == [
        ("heading", "Title", 1),
        ("paragraph", "First\nlines.", 0),
        ("heading", "Part", 2),
        ("paragraph", "Text::", 0),
        ("code", "x = 1", 0),
        ("code", "y = 2", 0),
        ("list", "- a\n- b", 0),
    ]


def test_html_keeps_what_is_said_and_drops_the_rest() -> None:
    page = """<html><head><title>Machines &amp; tea</title><style>p {}</style><script>bad()</script></head><body>
    <nav>Menu</nav><div role="navigation">Side</div><h1>Machines<a href="#x">\u00b6</a></h1>
    <p>They <b>hum</b>.<br>Always.<p>Second
    <ul><li>one<li><p>two</p><ol><li>deep</ol></ul>
    <pre>x = 1
  y</pre>
    <table><caption>Ages</caption><tr><th>part<th>age<tr><td>pump<td>3 <p>years</p></table>
    <!-- hidden --></body></html>"""

    document = read("a.html", page)

    assert document.title == "Machines & tea"
    assert outline(document) == [
        ("heading", "Machines", 1),
        ("paragraph", "They hum.\nAlways.", 0),
        ("paragraph", "Second", 0),
        ("list", "- one\n- two\n  1. deep", 0),
        ("code", "x = 1\n  y", 0),
        ("paragraph", "Ages", 0),
        ("table", "part | age\npump | 3 years", 0),
    ]


def test_html_is_decoded_as_it_declares_whatever_comes_before_the_declaration() -> None:
    page = '<title>Größe</title><meta charset="iso-8859-1"><p>Zażółć'.encode("iso8859-1", "replace")

    assert read("a.html", page).title == "Größe"
    assert read("b.html", '<meta charset="latin1"><p>Größe'.encode()).blocks[0].text == "Größe"


def test_nested_table_stays_inside_its_cell() -> None:
    page = "<table><tr><td>a<table><tr><td>b</td><td>c</td></tr></table></td><td>d</td></tr></table><p>after"

    assert outline(read("a.html", page)) == [("table", "a b c | d", 0), ("paragraph", "after", 0)]


def test_python_is_cut_at_its_definitions() -> None:
    source = "import os\n\nX = 1\n\n\n# why\n@wrapped\ndef f():\n    return 1\n\n\nclass A:\n    pass\n\n\nmain()\n"

    document = read("tools.py", source)

    assert document.title == "tools"
    assert [block.text for block in document.blocks] == [
        "import os\n\nX = 1",
        "# why\n@wrapped\ndef f():\n    return 1",
        "class A:\n    pass",
        "main()",
    ]


def test_other_source_is_cut_at_blank_lines_and_loses_nothing() -> None:
    functions = [f"int f{number}(void) {{\n\n    return {number};\n}}" for number in range(200)]

    document = read("a.c", "\n\n".join(functions))

    assert len(document.blocks) > 2
    assert "\n\n".join(block.text for block in document.blocks) == "\n\n".join(functions)
    assert all(block.text.startswith("int f") and block.text.endswith("}") for block in document.blocks)


def test_python_that_does_not_parse_is_read_all_the_same() -> None:
    assert read("a.py", "def broken(:\n    pass\n").blocks == [Block("code", "def broken(:\n    pass")]


def letter() -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = "Die größte Maschine"
    message["From"] = "Ada <ada@example.com>"
    message["To"] = "Bob <bob@example.com>"
    message["Date"] = "Fri, 02 Oct 2020 10:00:00 +0000"
    return message


def test_mail_gives_subject_people_text_and_names_of_attachments() -> None:
    message = letter()
    message.set_content("Hello,\n\nit hums.\n")
    message.add_alternative("<p>other</p>", subtype="html")
    message.add_attachment(b"x", maintype="image", subtype="png", filename="plan.png")

    document = read("a.eml", message.as_bytes())

    assert document.title == "Die größte Maschine"
    assert outline(document) == [
        ("heading", "Die größte Maschine", 1),
        (
            "paragraph",
            "From: Ada <ada@example.com>\nTo: Bob <bob@example.com>\nDate: 2020-10-02 10:00:00+00:00",
            0,
        ),
        ("paragraph", "Hello,", 0),
        ("paragraph", "it hums.", 0),
        ("list", "- plan.png", 0),
    ]


def test_mail_without_plain_text_gives_its_html() -> None:
    message = letter()
    message.set_content("<h2>News</h2><p>It hums.</p>", subtype="html")

    assert outline(read("a.eml", message.as_bytes()))[2:] == [("heading", "News", 2), ("paragraph", "It hums.", 0)]


def test_text_that_is_no_mail_is_reported() -> None:
    with pytest.raises(UnreadableFileError, match="e-mail"):
        read("a.eml", "\n\njust text")


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.py", "a.csv"])
def test_text_without_any_text_is_reported(name: str) -> None:
    with pytest.raises(UnreadableFileError, match="has no text"):
        read(name, " \n \n")


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.py", "a.csv", "a.jsonl"])
def test_more_text_than_allowed_is_reported(name: str) -> None:
    with pytest.raises(UnreadableFileError, match="more text than 100 characters") as caught:
        read(name, '"long words"\n' * 50, max_characters=100)

    assert caught.value.limit == 100


def test_control_characters_and_half_pairs_are_left_out() -> None:
    blocks = BlockList(1000)

    blocks.add("paragraph", "a\x00b\x1b\r\nc\ud800\ufeff")

    assert blocks.document(title=None, media_type="x").blocks == [Block("paragraph", "ab\nc")]


def test_endless_line_is_cut_at_spaces_and_loses_nothing() -> None:
    text = "word " * (BLOCK_CHARACTERS // 2)

    document = read("a.txt", text)

    assert all(len(block.text) <= BLOCK_CHARACTERS for block in document.blocks)
    assert " ".join(block.text for block in document.blocks) == text.strip()
