"""``Window``: what of a conversation and of the passages fits into an LLM's context window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from knowledge_base.answers import prompt
from knowledge_base.errors import InvalidInputError
from knowledge_base.retrieval.tokens import Count
from knowledge_base.types import ChatMessage

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

HISTORY_SHARE = 0.25
"""Of the window, for the conversation; what is older is left out."""

MESSAGE_TOKENS = 8
"""Of each message, for its role and for what stands between messages."""

DEFAULT_ANSWER_TOKENS = 256
"""What is kept free for the answer where the LLM does not say how long it may be."""


class Window:
    """Counts what is put into a prompt.

    Args:
        llm: Whose window it is.
        count: Returns the tokens of a text.
    """

    def __init__(self, llm: LLM, count: Count) -> None:
        self._tokens = llm.metadata.context_window
        self._answer = llm.metadata.num_output if llm.metadata.num_output > 0 else DEFAULT_ANSWER_TOKENS
        self._system = llm.system_prompt or ""
        self._count = count

    def latest(self, history: Sequence[ChatMessage]) -> list[ChatMessage]:
        """Returns the last messages of user and assistant that fit into the conversation's share, oldest first.

        Args:
            history: The conversation, oldest message first.
        """
        room = self._tokens * HISTORY_SHARE
        kept: list[ChatMessage] = []
        for message in reversed(history):
            if message["role"] == "system":
                continue
            room -= self._message(message["content"])
            if room < 0:
                break
            kept.append(message)
        return kept[::-1]

    def fitting(self, question: str, said: Sequence[ChatMessage], passages: Sequence[str]) -> list[str]:
        """Returns the first passages, as many as fit beside everything else.

        Args:
            question: The question.
            said: The conversation before it.
            passages: The passages as the LLM reads them, best first.

        Raises:
            InvalidInputError: Not even one fits.
        """
        others = (self._system, prompt.INSTRUCTIONS, prompt.QUESTION + question, *(one["content"] for one in said))
        room = self._tokens - self._answer - sum(self._message(text) for text in others)
        fitting: list[str] = []
        for passage in passages:
            room -= self._message(passage)
            if room < 0:
                break
            fitting.append(passage)
        if not fitting:
            raise InvalidInputError(
                "question", f"and a passage do not fit into the LLM's window of {self._tokens} tokens"
            )
        return fitting

    def _message(self, text: str) -> int:
        return self._count(text) + MESSAGE_TOKENS
