"""Cutting documents: along their structure, within the limit, and so that changes stay where they are made."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.documents.blocks import Block
from knowledge_base.documents.chunker import DocumentChunker, DocumentCut
from knowledge_base.index.passages import SECTION_PASSAGES
from knowledge_base.index.polyglot import Polyglot
from knowledge_base.settings import ChunkingSettings

TOKENS = 40


@pytest.fixture
async def threads() -> AsyncIterator[WorkloadThreads]:
    made = WorkloadThreads("splitting", threads=1, waiting=10)
    yield made
    await made.close(1.0)


@pytest.fixture
def chunker(threads: WorkloadThreads) -> DocumentChunker:
    return DocumentChunker(ChunkingSettings(passage_tokens=TOKENS, overlap_tokens=10), threads, Polyglot())


async def cut(
    chunker: DocumentChunker, blocks: Sequence[Block], tokenizer: Callable[[str], list[str]] = str.split
) -> DocumentCut:
    return await chunker.cut(blocks, tokenizer=tokenizer, model_tokens=None, limit=30.0)


def heading(text: str, level: int) -> Block:
    return Block("heading", text, level)


def paragraph(words: int, name: str = "w", page: int | None = None) -> Block:
    return Block("paragraph", " ".join(f"{name}{number}" for number in range(words)) + ".", 0, page)


def sentences(count: int, name: str = "s") -> Block:
    return Block("paragraph", " ".join(f"The {name}{number} is a sentence of seven words." for number in range(count)))


def texts(made: DocumentCut) -> list[str]:
    return [passage.text for passage in made.passages]


async def test_passages_carry_their_headings(chunker: DocumentChunker) -> None:
    made = await cut(
        chunker,
        [
            heading("Book", 1),
            paragraph(30, "intro"),
            heading("One", 2),
            paragraph(30, "a"),
            heading("Deep", 3),
            paragraph(30, "b"),
            heading("Two", 2),
            paragraph(30, "c"),
        ],
    )

    assert [passage.section_path for passage in made.passages] == [
        ("Book",),
        ("Book", "One"),
        ("Book", "One", "Deep"),
        ("Book", "Two"),
    ]
    assert made.passages[1].text.startswith("One\n\na0 a1")


async def test_heading_stays_with_what_follows_it(chunker: DocumentChunker) -> None:
    made = await cut(
        chunker, [heading("Book", 1), heading("One", 2), paragraph(35, "a"), heading("Two", 2), paragraph(5, "b")]
    )

    assert [text.split("\n\n")[0] for text in texts(made)] == ["Book", "Two"]
    assert made.passages[0].section_path == ("Book", "One")


async def test_chapters_are_not_mixed(chunker: DocumentChunker) -> None:
    blocks = [block for number in range(6) for block in (heading(f"H{number}", 1), paragraph(3, f"p{number}x"))]

    made = await cut(chunker, blocks)

    assert [passage.section_path for passage in made.passages] == [(f"H{number}",) for number in range(6)]


async def test_small_sections_of_a_chapter_share_passages(chunker: DocumentChunker) -> None:
    blocks = [heading("Book", 1)]
    for chapter in range(2):
        blocks.append(heading(f"C{chapter}", 2))
        blocks += [
            block for number in range(4) for block in (heading(f"S{number}", 3), paragraph(4, f"p{chapter}{number}"))
        ]

    made = await cut(chunker, blocks)

    assert len(made.passages) < 8
    assert all(len(text.split()) <= TOKENS for text in texts(made))
    assert made.passages[0].section_path[:2] == ("Book", "C0")


@pytest.mark.parametrize("kind", ["code", "table", "list"])
async def test_what_fits_is_kept_whole(chunker: DocumentChunker, kind: str) -> None:
    whole = "\n".join(f"x{number} | y{number}" for number in range(12))

    made = await cut(chunker, [paragraph(20, "before"), Block(kind, whole), paragraph(20, "after")])  # type: ignore[arg-type]

    assert sum(whole in text for text in texts(made)) == 1


async def test_long_code_is_cut_at_lines(chunker: DocumentChunker) -> None:
    lines = [f"    call({number}, one, two)" if number % 7 else f"def f{number}():" for number in range(100)]

    made = await cut(chunker, [Block("code", "\n".join(lines))])

    assert "\n".join(texts(made)).split("\n") == lines
    assert len(made.passages) < 25


async def test_long_table_repeats_its_header(chunker: DocumentChunker) -> None:
    rows = [f"r{number} | {number}" for number in range(100)]

    made = await cut(chunker, [Block("table", "\n".join(["name | value", *rows]))])

    assert all(text.startswith("name | value\n") for text in texts(made))
    assert [line for text in texts(made) for line in text.split("\n")[1:]] == rows
    assert all(len(text.split()) <= TOKENS for text in texts(made))


async def test_long_paragraph_is_cut_at_sentences_that_overlap(chunker: DocumentChunker) -> None:
    made = await cut(chunker, [sentences(40)])

    assert all(text.startswith("The s") and text.rstrip().endswith("words.") for text in texts(made))
    assert all(len(text.split()) <= TOKENS for text in texts(made))
    shared = sum(
        before.split(". ")[-1].strip(". ") in after for before, after in zip(texts(made), texts(made)[1:], strict=False)
    )
    assert shared >= len(made.passages) // 3


async def test_endless_word_is_cut_anywhere(chunker: DocumentChunker) -> None:
    made = await cut(chunker, [Block("paragraph", "x" * 5_000)], tokenizer=lambda text: list(text[::4]))

    assert "".join(texts(made)) == "x" * 5_000
    assert all(len(text[::4]) <= TOKENS for text in texts(made))


async def test_passages_know_their_pages(chunker: DocumentChunker) -> None:
    made = await cut(chunker, [paragraph(15, "a", 1), paragraph(15, "b", 2), paragraph(35, "c", 3)])

    assert [(passage.page_start, passage.page_end) for passage in made.passages] == [(1, 2), (3, 3)]


async def test_document_without_text_has_no_passages(chunker: DocumentChunker) -> None:
    assert await cut(chunker, []) == DocumentCut([], [])
    assert await cut(chunker, [Block("paragraph", "  \n ")]) == DocumentCut([], [])


async def test_sections_hold_the_words_of_neighbours(chunker: DocumentChunker) -> None:
    made = await cut(chunker, [paragraph(35, f"word{number}x") for number in range(2 * SECTION_PASSAGES + 1)])

    assert len(made.passages) == 2 * SECTION_PASSAGES + 1
    assert len(made.sections) == 3
    assert "word0x0" in made.sections[0]
    assert "word8x0" in made.sections[2]


async def test_passages_are_as_long_as_the_model_reads(chunker: DocumentChunker) -> None:
    made = await chunker.cut([sentences(20)], tokenizer=str.split, model_tokens=16, limit=30.0)

    assert all(len(text.split()) <= 16 for text in texts(made))


async def test_default_tokenizer_counts_where_the_model_has_none(chunker: DocumentChunker) -> None:
    made = await chunker.cut([sentences(20)], tokenizer=None, model_tokens=None, limit=60.0)

    assert len(made.passages) > 3


def test_signature_tells_how_documents_are_cut(threads: WorkloadThreads) -> None:
    polyglot = Polyglot()
    short, long = (DocumentChunker(ChunkingSettings(passage_tokens=n), threads, polyglot) for n in (100, 200))

    assert short.signature(None) == short.signature(512) != long.signature(None)
    assert long.signature(100) == short.signature(None)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("edit", ["more", "less", "new", "gone"])
async def test_change_of_a_paragraph_changes_few_passages(chunker: DocumentChunker, seed: int, edit: str) -> None:
    chosen = random.Random(seed)
    blocks = [heading("Book", 1)]
    for section in range(6):
        blocks.append(heading(f"S{section}", 2))
        blocks += [
            paragraph(chosen.randint(5, 30), f"p{section}x{number}y") for number in range(chosen.choice([3, 40]))
        ]
    before = await cut(chunker, blocks)
    place = chosen.choice([at for at, block in enumerate(blocks) if block.kind == "paragraph"])
    changed = {
        "more": [blocks[place]._replace(text=blocks[place].text + " And some more of it.")],
        "less": [blocks[place]._replace(text=blocks[place].text[: len(blocks[place].text) // 2])],
        "new": [blocks[place], paragraph(12, "fresh")],
        "gone": [],
    }[edit]

    after = await cut(chunker, [*blocks[:place], *changed, *blocks[place + 1 :]])

    assert len(before.passages) > 30
    assert len(set(texts(after)) - set(texts(before))) <= 6
