"""``EndpointLLM``: LlamaIndex's OpenAI LLM for any model name. Slow to import: LlamaIndex comes with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ChatResponseGen, LLMMetadata
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai.utils import openai_modelname_to_contextsize

from knowledge_base.errors import LLMUnavailableError

DEFAULT_CONTEXT_WINDOW = 8_192
NO_COMPLETION = "the LLM's endpoint answered with what is no chat completion; check KB_LLM__BASE_URL"
MALFORMED = (AttributeError, LookupError, TypeError, ValueError)
"""What the client raises where an answer has not the shape that it should have."""


class EndpointLLM(OpenAI):
    """A chat model behind an OpenAI-compatible endpoint.

    LlamaIndex's own class knows OpenAI's models only, and takes an answer that breaks off for a whole one.

    Args:
        context_window: Tokens that prompt and answer have together; None for OpenAI's own figures, where it has any.
        **options: What LlamaIndex's ``OpenAI`` takes.
    """

    _context_window: int = PrivateAttr()

    def __init__(self, context_window: int | None, **options: Any) -> None:
        super().__init__(**options)
        self._context_window = context_window or _known_window(self.model)

    @classmethod
    def class_name(cls) -> str:
        """Returns the name by which LlamaIndex knows the class."""
        return "EndpointLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex must know of the model."""
        return LLMMetadata(
            context_window=self._context_window,
            num_output=self.max_tokens or -1,
            is_chat_model=True,
            is_function_calling_model=False,
            model_name=self.model,
        )

    @property
    def _tokenizer(self) -> None:
        """None: which tokens the model has is not known."""
        return None

    def _chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        try:
            response: ChatResponse = super()._chat(messages, **kwargs)
        except MALFORMED as error:
            raise LLMUnavailableError(NO_COMPLETION) from error
        return response

    def _stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        parts = super()._stream_chat(messages, **kwargs)

        def whole() -> ChatResponseGen:
            reason = None
            part = None
            try:
                for part in parts:
                    reason = reason or next((choice.finish_reason for choice in part.raw.choices), None)
                    yield part
            except MALFORMED as error:
                raise LLMUnavailableError(NO_COMPLETION) from error
            if reason is None:
                raise LLMUnavailableError(NO_COMPLETION if part is None else "the LLM's answer broke off")

        return whole()


def _known_window(model: str) -> int:
    try:
        return openai_modelname_to_contextsize(model)
    except ValueError:
        return DEFAULT_CONTEXT_WINDOW
