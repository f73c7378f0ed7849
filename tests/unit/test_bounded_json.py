"""JSON of strangers is counted before it is read, and read without holding up anybody."""

from __future__ import annotations

import json
import resource
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge_base.admin.transfer import bounded_json as module
from knowledge_base.admin.transfer.bounded_json import UnreadableJsonError, bounded_json

MOST = 2_000_000
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('a\\",[]{}é'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('a\\",[{'), inner),
)


def places(value: Any) -> int:
    """Returns how many brackets, braces and commas stand outside of the strings of compact JSON."""
    if not isinstance(value, list | dict):
        return 0
    inner = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(0, len(inner) - 1) + sum(map(places, inner))


@pytest.mark.parametrize("piece", [1, 3, 10_000])
@given(value=values)
def test_count_is_exact_wherever_pieces_end_and_both_readers_agree(piece: int, value: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", piece)
        patch.setattr(module, "EASY", 0)
        text = json.dumps(value)
        most = places(value) + 1

        assert bounded_json(text, most) == value
        with pytest.raises(UnreadableJsonError, match="more than"):
            bounded_json(text, most - 1)


@pytest.mark.parametrize("text", ["[" + "[]," * 4_000_000 + "1]", "[" + "1," * 6_000_000 + "1]", "[" * 12_000_000])
def test_line_of_millions_of_values_is_refused_before_it_takes_memory(text: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(UnreadableJsonError, match="2000000 values"):
        bounded_json(text, MOST)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


@pytest.mark.parametrize("text", ["[NaN]", "[1,", "[" * 5_000, '{"a": ' + "9" * 5_000 + "}", "[-Infinity]"])
@pytest.mark.parametrize("easy", [0, 100_000])
def test_what_is_no_json_is_refused_by_both_readers(monkeypatch: pytest.MonkeyPatch, text: str, easy: int) -> None:
    monkeypatch.setattr(module, "EASY", easy)

    with pytest.raises(UnreadableJsonError):
        bounded_json(text, MOST)


def test_long_line_lets_other_threads_go_first() -> None:
    text = "[" + ",".join(["1"] * 600_000) + "]"
    turns = 0
    is_over = threading.Event()

    def take_turns() -> None:
        nonlocal turns
        while not is_over.is_set():
            time.sleep(0.0005)
            turns += 1

    other = threading.Thread(target=take_turns)
    other.start()
    before = turns

    bounded_json(text, MOST)

    gained = turns - before
    is_over.set()
    other.join()
    assert gained > 10
