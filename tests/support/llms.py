"""An LLM of the tests' own, that hangs and fails when told to."""

from __future__ import annotations

import re
import textwrap
import threading
from collections.abc import Sequence
from typing import Any, Literal

from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback

from knowledge_base.types import Citation

HANGS_AT_MOST = 20.0

LLMMood = Literal["well", "failing", "refusing a value", "hanging", "hanging after the first word"]


class LLMDownError(RuntimeError):
    """What a failing LLM raises: an error that the package has never heard of."""


class ScriptedLLM(CustomLLM):
    """Answers what it is told to, a word at a time; synchronous only, as most LLMs that run in the process are."""

    window: int = 3_900
    text: str = "Tea is at four. [1]"
    _mood: LLMMood = PrivateAttr(default="well")
    _released: threading.Event = PrivateAttr(default_factory=threading.Event)
    _prompts: list[str] = PrivateAttr(default_factory=list)
    _words: int = PrivateAttr(default=0)
    _closed: threading.Event = PrivateAttr(default_factory=threading.Event)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=self.window, num_output=256, model_name="scripted")

    @property
    def prompts(self) -> list[str]:
        """Every prompt, in order, failures included."""
        return list(self._prompts)

    @property
    def words(self) -> int:
        """Words that were given as parts."""
        return self._words

    @property
    def closed(self) -> bool:
        """Whether a stream has ended, by itself or by being closed."""
        return self._closed.is_set()

    def become(self, mood: LLMMood) -> None:
        """Sets how the LLM behaves from the next call on; those that hang are released by another mood."""
        self._mood = mood
        if mood.startswith("hanging"):
            self._released.clear()
        else:
            self._released.set()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self._begin(prompt)
        self._hang("hanging", "hanging after the first word")
        return CompletionResponse(text=self.text)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        def words() -> CompletionResponseGen:
            self._begin(prompt)
            self._closed.clear()
            said = ""
            try:
                self._hang("hanging")
                for word in re.findall(r"\S+\s*", self.text) or [self.text]:
                    said += word
                    self._words += 1
                    yield CompletionResponse(text=said, delta=word)
                    self._hang("hanging after the first word")
            finally:
                self._closed.set()

        return words()

    def _begin(self, prompt: str) -> None:
        self._prompts.append(prompt)
        if self._mood == "failing":
            raise LLMDownError(f"cannot answer {prompt}")
        if self._mood == "refusing a value":
            raise ValueError(f"cannot answer {prompt}")

    def _hang(self, *moods: LLMMood) -> None:
        if self._mood in moods and not self._released.wait(HANGS_AT_MOST):
            raise LLMDownError("nobody released the LLM")


def citation(number: int, content: str, **changes: Any) -> Citation:
    """Returns a passage that was found."""
    found: Citation = {
        "number": number,
        "fact_id": f"f{number}",
        "document_id": None,
        "source": None,
        "content": content,
        "similarity": 0.5,
        "chunk_index": 0,
        "section_title": None,
        "page_start": None,
        "page_end": None,
    }
    found.update(changes)  # type: ignore[typeddict-item]
    return found


def shown_passages(prompt: str) -> list[str]:
    """Returns the passages that a prompt shows, as an LLM reads them: the indented lines below each number."""
    found = re.findall(r"^\[\d+\].*\n((?:  .*\n)+)", prompt, re.MULTILINE)
    return [textwrap.dedent(lines).strip() for lines in found]


def words(count: int) -> str:
    """Returns an answer of so many words."""
    return " ".join(f"word{number}" for number in range(count))


def numbers(citations: Sequence[Citation]) -> list[int]:
    """Returns the numbers of citations."""
    return [one["number"] for one in citations]
