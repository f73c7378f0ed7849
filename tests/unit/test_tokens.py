"""Tokens: counted as the LLM does, without a network, in threads, and never for long."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.errors import ServerRequirementError
from knowledge_base.retrieval import tokens
from knowledge_base.retrieval.tokens import AT_HAND, CACHE_VARIABLE, LONGEST_RUN, TokenCounter

TEXTS = [
    "The library opens at eight.",
    "",
    "  \n\n\t two  spaces ",
    "Grüße, 你好世界, привет, 👩‍👩‍👧",
    "def f(x):\n    return x ** 2\n" * 40,
    "<|endoftext|> is only text",
    "1234567890 " * 100,
]


@pytest.fixture
async def threads() -> AsyncIterator[WorkloadThreads]:
    one = WorkloadThreads("counting", threads=1, waiting=10)
    yield one
    await one.close(10.0)


def no_network(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("somebody wanted the network")


@pytest.fixture
def loaded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is loaded, and nothing can be downloaded."""
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)


def plain(name: str, text: str) -> int:
    return len(tokens._encoding(name).encode_ordinary(text))


@pytest.mark.usefixtures("loaded_anew")
async def test_counts_what_tiktoken_counts_without_a_network(threads: WorkloadThreads) -> None:
    counter = TokenCounter(threads)

    counts = [await counter.count(text) for text in TEXTS]

    assert counts == [plain("cl100k_base", text) for text in TEXTS]
    assert counts[1] == 0


@pytest.mark.usefixtures("loaded_anew")
@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("llama3.1:8b", "cl100k_base"),
        ("text-davinci-003", "cl100k_base"),
        ("", "cl100k_base"),
        (None, "cl100k_base"),
    ],
)
async def test_encoding_is_the_model_s_own_where_it_is_at_hand(
    threads: WorkloadThreads, model: str | None, encoding: str
) -> None:
    text = "Donaudampfschifffahrtsgesellschaft, привет мир"

    assert await TokenCounter(threads, model=model).count(text) == plain(encoding, text)


@pytest.mark.usefixtures("loaded_anew")
@pytest.mark.parametrize("name", sorted(AT_HAND))
async def test_each_encoding_that_is_at_hand_needs_no_network(name: str) -> None:
    assert tokens._encoding(name).name == name


@pytest.mark.parametrize("attribute", ["model", "model_name"])
async def test_name_of_a_given_llm_counts_first(threads: WorkloadThreads, attribute: str) -> None:
    text = "Donaudampfschifffahrtsgesellschaft, привет мир"
    llm: Any = SimpleNamespace(**{attribute: "gpt-4o"})

    counted = await TokenCounter(threads, model="gpt-4", llm=llm).count(text)

    assert counted == plain("o200k_base", text) != plain("cl100k_base", text)


@pytest.mark.parametrize("before", [None, "/somewhere/else"])
@pytest.mark.usefixtures("loaded_anew")
async def test_loading_leaves_the_environment_as_it_was(
    threads: WorkloadThreads, before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    if before is not None:
        monkeypatch.setenv(CACHE_VARIABLE, before)

    await TokenCounter(threads).load()

    assert os.environ.get(CACHE_VARIABLE) == before


@pytest.mark.usefixtures("loaded_anew")
async def test_loading_and_counting_happen_in_the_threads(
    threads: WorkloadThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[str] = []
    encoding, pieces = tokens._encoding, tokens._pieces

    def load(name: str) -> Any:
        where.append(threading.current_thread().name)
        return encoding(name)

    def cut(text: str) -> Any:
        where.append(threading.current_thread().name)
        return pieces(text)

    monkeypatch.setattr(tokens, "_encoding", load)
    monkeypatch.setattr(tokens, "_pieces", cut)
    counter = TokenCounter(threads)

    await counter.count("one")
    await counter.count("two")

    assert where == ["kb-counting"] * 3


@pytest.mark.parametrize("unit", ["a", " ", "\n", "!", "_", "中", "😀", "e\u0301", "ab", "\t ", "7"])
async def test_megabyte_of_anything_is_counted_soon(threads: WorkloadThreads, unit: str) -> None:
    counter = TokenCounter(threads)
    await counter.load()
    began = time.monotonic()

    counted = await counter.count(unit * (1_000_000 // len(unit)))

    assert 0 < counted <= 2 * 1_000_000
    assert time.monotonic() - began < tokens.COUNTING_SECONDS


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", " ", "!", "_", "中", "x1", "a b", "\n"]), st.integers(1, 5_000)), max_size=6
    )
)
def test_pieces_are_the_text_and_have_no_long_run(parts: list[tuple[str, int]]) -> None:
    text = "".join(unit * times for unit, times in parts)

    pieces = list(tokens._pieces(text))

    assert "".join(pieces) == text
    assert not any(tokens.LONG_RUNS.search(piece) for piece in pieces)


async def test_text_without_long_runs_is_counted_whole(threads: WorkloadThreads) -> None:
    text = f"{'a' * LONGEST_RUN} {'!' * (LONGEST_RUN - 1)}{'b c, ' * 5_000}"

    assert list(tokens._pieces(text)) == [text]


@pytest.mark.usefixtures("loaded_anew")
async def test_missing_data_is_said(threads: WorkloadThreads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "find_spec", lambda _: None)

    with pytest.raises(ServerRequirementError, match="llama-index-core"):
        await TokenCounter(threads).load()
