"""Cutting content: nothing is lost, parts are even, and long content leaves the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.errors import OperationTimeoutError, UnavailableError
from knowledge_base.index.analysis import Analyzer
from knowledge_base.index.passages import (
    INLINE_CHARACTERS,
    SECTION_PASSAGES,
    Cut,
    PassageSplitter,
    Tokenizer,
    _without_overlap,
    even_size,
    passages_of_section,
)
from knowledge_base.index.polyglot import Polyglot
from knowledge_base.settings import ChunkingSettings

LONG = 100.0
WORDS = [f"w{number:04d}" for number in range(2_000)]


def prose(words: int) -> str:
    """Sentences of eight words, each word once."""
    chosen = WORDS[:words]
    sentences = [" ".join(chosen[start : start + 8]) + "." for start in range(0, words, 8)]
    return " ".join(sentences)


def by_words(text: str) -> list[str]:
    return text.split()


@pytest.fixture
async def threads() -> AsyncIterator[WorkloadThreads]:
    pool = WorkloadThreads("documents", threads=1, waiting=10)
    yield pool
    await pool.close(LONG)


async def cut(
    threads: WorkloadThreads,
    content: str,
    *,
    tokens: int = 32,
    overlap: int = 8,
    model_tokens: int | None = None,
    tokenizer: Tokenizer | None = by_words,
) -> Cut:
    chunking = ChunkingSettings(passage_tokens=tokens, overlap_tokens=overlap)
    splitter = PassageSplitter(chunking, threads, Polyglot())
    return await splitter.split(content, tokenizer=tokenizer, model_tokens=model_tokens, limit=LONG)


async def test_short_content_is_one_passage_as_it_is_and_needs_no_thread(threads: WorkloadThreads) -> None:
    found = await cut(threads, "  Wings\nlift!  ")

    assert found == Cut(["  Wings\nlift!  "], ["wing lift"])
    assert [stats["connections"] for stats in threads.stats().values()] == [0, 0]


async def test_content_that_certainly_fits_is_not_even_tokenised(threads: WorkloadThreads) -> None:
    def never(_: str) -> list[str]:
        pytest.fail("it was tokenised")

    assert (await cut(threads, "ten chars.", tokens=30, tokenizer=never)).passages == ["ten chars."]


async def test_content_that_fits_is_tokenised_on_the_loop_when_it_is_short(threads: WorkloadThreads) -> None:
    seen: list[threading.Thread] = []

    def tokenizer(text: str) -> list[str]:
        seen.append(threading.current_thread())
        return text.split()

    content = prose(32)
    assert (await cut(threads, content, tokenizer=tokenizer)).passages == [content]
    assert set(seen) == {threading.main_thread()}


async def test_long_content_is_handled_in_a_thread_although_it_fits(threads: WorkloadThreads) -> None:
    seen: list[threading.Thread] = []

    def tokenizer(text: str) -> list[str]:
        seen.append(threading.current_thread())
        return text.split()

    content = "x" * (INLINE_CHARACTERS + 1)
    assert (await cut(threads, content, tokenizer=tokenizer)).passages == [content]
    assert threading.main_thread() not in seen


async def test_long_content_is_cut_into_passages_that_the_model_reads(threads: WorkloadThreads) -> None:
    found = await cut(threads, prose(200))

    assert len(found.passages) > 6
    assert max(len(by_words(passage)) for passage in found.passages) <= 32
    assert " ".join(found.passages).count("w0000") == 1


@pytest.mark.parametrize(("model_tokens", "most"), [(None, 64), (20, 20), (500, 64)])
async def test_passages_are_no_longer_than_model_or_settings_say(
    threads: WorkloadThreads, model_tokens: int | None, most: int
) -> None:
    found = await cut(threads, prose(400), tokens=64, model_tokens=model_tokens)

    longest = max(len(by_words(passage)) for passage in found.passages)
    assert most // 2 < longest <= most


async def test_default_tokenizer_is_used_without_one(threads: WorkloadThreads) -> None:
    found = await cut(threads, prose(100), tokenizer=None)

    assert len(found.passages) > 1
    assert {stem for section in found.sections for stem in section.split()} == set(WORDS[:100])


@pytest.mark.parametrize("overlap", [0, 8])
@pytest.mark.parametrize("words", [40, 100, 333, 1_000])
async def test_every_word_is_in_some_passage_and_some_section(
    threads: WorkloadThreads, words: int, overlap: int
) -> None:
    found = await cut(threads, prose(words), overlap=overlap)

    in_passages = {stem for passage in found.passages for stem in Analyzer().stems(passage)}
    in_sections = [stem for section in found.sections for stem in section.split()]
    assert in_passages == set(WORDS[:words])
    assert set(in_sections) == set(WORDS[:words])


async def test_words_of_overlapping_passages_count_once_in_a_section(threads: WorkloadThreads) -> None:
    found = await cut(threads, prose(1_000))

    counted = [stem for section in found.sections for stem in section.split()]
    assert len(found.passages) > SECTION_PASSAGES
    assert len(counted) == 1_000


async def test_few_passages_are_one_section_of_the_whole_content(threads: WorkloadThreads) -> None:
    found = await cut(threads, prose(80))

    assert 1 < len(found.passages) <= SECTION_PASSAGES
    assert found.sections == [" ".join(WORDS[:80])]


async def test_sections_are_made_of_neighbouring_passages(threads: WorkloadThreads) -> None:
    found = await cut(threads, prose(600))

    count = len(found.passages)
    assert len(found.sections) == -(-count // SECTION_PASSAGES)
    for number, section in enumerate(found.sections):
        own = found.passages[passages_of_section(number, count)[0]]
        assert set(section.split()) & set(Analyzer().stems(own))


@pytest.mark.parametrize("overlap", [0, 8])
async def test_seam_without_overlap_loses_no_letter(threads: WorkloadThreads, overlap: int) -> None:
    content = " ".join(f"a{number}a" for number in range(200))

    found = await cut(threads, content, tokens=16, overlap=overlap)

    assert {stem for section in found.sections for stem in section.split()} == set(Analyzer().stems(content))


@pytest.mark.parametrize("content", ["\u200b" * 5_000, "." * 5_000, "x" * 5_000, "\n\n" * 2_000 + "x"])
async def test_odd_content_is_cut_too(threads: WorkloadThreads, content: str) -> None:
    found = await cut(threads, content, tokenizer=list)

    assert found.passages
    assert all(passage.strip() or passage == content for passage in found.passages)
    assert len(found.sections) >= 1


async def test_cutting_is_bounded(threads: WorkloadThreads) -> None:
    released = threading.Event()

    def stuck(_: str) -> list[str]:
        released.wait(20.0)
        return []

    splitter = PassageSplitter(ChunkingSettings(), threads, Polyglot())
    try:
        with pytest.raises(OperationTimeoutError) as caught:
            await splitter.split("x" * 10_000, tokenizer=stuck, model_tokens=None, limit=0.02)
    finally:
        released.set()

    assert caught.value.spent_in == "cutting content into passages"


async def test_library_that_gives_up_finding_sentences_is_an_error_of_ours(threads: WorkloadThreads) -> None:
    content = prose(200)

    def gives_up(text: str) -> list[str]:
        if text != content:
            raise TimeoutError("a regular expression took too long")
        return text.split()

    with pytest.raises(UnavailableError, match=r"finding the sentences .* took too long"):
        await cut(threads, content, tokenizer=gives_up)


async def test_event_loop_goes_on_while_content_is_cut(threads: WorkloadThreads) -> None:
    seen = threading.Event()

    def tokenizer(text: str) -> list[str]:
        assert seen.wait(20.0), "the loop stood still"
        return text.split()

    cutting = asyncio.create_task(cut(threads, prose(1_000), tokenizer=tokenizer))
    await asyncio.sleep(0)
    seen.set()

    assert (await cutting).passages


@pytest.mark.parametrize(
    ("before", "passage", "rest"),
    [
        ("one two three", "two three four", "four"),
        ("one two", "three four", "three four"),
        ("same", "same", ""),
        ("", "three", "three"),
        ("one", "", ""),
        ("the pilot", "turns left", "turns left"),
    ],
)
def test_overlap_is_taken_away(before: str, passage: str, rest: str) -> None:
    assert _without_overlap(before, passage).strip() == rest


@pytest.mark.parametrize(
    ("count", "most", "overlap", "size"),
    [
        (10, 100, 20, 40),  # one part; never less than twice the overlap
        (100, 100, 20, 100),
        (160, 100, 20, 100),  # two parts of 90, and 10 of slack
        (180, 100, 20, 100),
        (181, 100, 20, 84),  # three parts of 74, and 10 of slack
        (1_000, 254, 64, 254),
    ],
)
def test_parts_are_even(count: int, most: int, overlap: int, size: int) -> None:
    assert even_size(count, most, overlap) == size


@given(st.integers(1, 100_000), st.integers(16, 1_000), st.data())
@settings(max_examples=200, deadline=None, database=None)
def test_parts_never_exceed_the_limit_and_leave_room_beside_the_overlap(
    count: int, most: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, most // 2))

    size = even_size(count, most, overlap)

    assert 2 * overlap <= size <= most
    assert size > 0


@pytest.mark.parametrize(
    ("section", "passages", "positions"),
    [(0, 1, [0]), (0, 4, [0, 1, 2, 3]), (0, 9, [0, 1, 2, 3]), (1, 9, [4, 5, 6, 7]), (2, 9, [8]), (3, 9, [])],
)
def test_section_knows_its_passages(section: int, passages: int, positions: list[int]) -> None:
    assert list(passages_of_section(section, passages)) == positions
