"""``TokenCounter``: how many tokens a text takes of a prompt, without a network and off the event loop."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.errors import ServerRequirementError
from knowledge_base.heavy_imports import import_heavy

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

Count: TypeAlias = Callable[[str], int]
"""Returns the tokens of a text. Takes milliseconds for long ones: to be called in a thread."""

DEFAULT_ENCODING = "cl100k_base"

AT_HAND = frozenset({"cl100k_base", "o200k_base", "o200k_harmony"})
"""Encodings whose data comes with LlamaIndex; all others would be downloaded."""

CACHE_VARIABLE = "TIKTOKEN_CACHE_DIR"

LOADING_SECONDS = 30.0
COUNTING_SECONDS = 10.0

LONGEST_RUN = 2_000
"""Characters of a run without a seam that are counted together; a run takes time by its square."""

LONG_RUNS = re.compile(rf"[^\W_]{{{LONGEST_RUN + 1},}}|[\W_]{{{LONGEST_RUN + 1},}}")

_loading = threading.Lock()


class TokenCounter:
    """Counts tokens as an LLM does, where its encoding is at hand; else as ``cl100k_base`` does.

    Args:
        threads: Where encodings are loaded and tokens counted.
        model: Name of the LLM, or None when unknown.
        llm: A LlamaIndex LLM, whose name counts before ``model``.
    """

    def __init__(self, threads: WorkloadThreads, *, model: str | None = None, llm: LLM | None = None) -> None:
        self._threads = threads
        self._model = model
        self._llm = llm
        self._count: Count | None = None

    async def load(self) -> Count:
        """Returns the function that counts, for use in a thread; loads its encoding with the first call.

        Raises:
            ServerRequirementError: LlamaIndex came without the data.
            OperationTimeoutError: Loading took too long.
        """
        if self._count is None:
            self._count = await self._threads.to_thread(
                self._counter, step="loading the tokenizer", limit=LOADING_SECONDS
            )
        return self._count

    async def count(self, text: str) -> int:
        """Returns the tokens of a text; see ``load`` for the errors.

        Args:
            text: The text.
        """
        count = await self.load()
        return await self._threads.to_thread(count, text, step="counting tokens", limit=COUNTING_SECONDS)

    def _counter(self) -> Count:
        encode = _encoding(_encoding_name(self._model_name())).encode_ordinary

        def count(text: str) -> int:
            return sum(len(encode(piece)) for piece in _pieces(text))

        return count

    def _model_name(self) -> str | None:
        # Its metadata would tell as well, but that of some refuses models that LlamaIndex has never heard of.
        for attribute in ("model", "model_name"):
            name = getattr(self._llm, attribute, None)
            if isinstance(name, str) and name:
                return name
        return self._model


def _encoding_name(model: str | None) -> str:
    if model is None:
        return DEFAULT_ENCODING
    try:
        name: str = import_heavy("tiktoken").encoding_name_for_model(model)
    except KeyError:
        return DEFAULT_ENCODING
    return name if name in AT_HAND else DEFAULT_ENCODING


def _encoding(name: str) -> Any:
    tiktoken = import_heavy("tiktoken")
    with _loading:
        before = os.environ.get(CACHE_VARIABLE)
        os.environ[CACHE_VARIABLE] = str(_data())
        try:
            return tiktoken.get_encoding(name)
        finally:
            if before is None:
                del os.environ[CACHE_VARIABLE]
            else:
                os.environ[CACHE_VARIABLE] = before


def _data() -> Path:
    spec = find_spec("llama_index.core")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        data = Path(folder) / "_static" / "tiktoken_cache"
        if data.is_dir():
            return data
    raise ServerRequirementError("the tokenizer's data is missing; install llama-index-core again")


def _pieces(text: str) -> Iterator[str]:
    begin = 0
    for run in LONG_RUNS.finditer(text):
        for cut in range(run.start() + LONGEST_RUN, run.end(), LONGEST_RUN):
            yield text[begin:cut]
            begin = cut
    yield text[begin:]
