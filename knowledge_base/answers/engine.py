"""LlamaIndex's query engine over passages that were found already. Slow to import; call it in a worker thread."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import ChatMessage as Message
from llama_index.core.base.llms.types import LLMMetadata, MessageRole
from llama_index.core.indices.prompt_helper import ChatPromptHelper, PromptHelper
from llama_index.core.llms import LLM
from llama_index.core.prompts import BasePromptTemplate, ChatPromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import CompactAndRefine
from llama_index.core.response_synthesizers.refine import DefaultRefineProgram
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from knowledge_base.answers import prompt
from knowledge_base.answers.exchange import Exchange
from knowledge_base.answers.llm import EmptyAnswerError, unavailable
from knowledge_base.answers.window import Window
from knowledge_base.errors import KnowledgeBaseError, LLMUnavailableError
from knowledge_base.retrieval.context_text import BETWEEN
from knowledge_base.retrieval.tokens import Count
from knowledge_base.types import ChatMessage


class Written(NamedTuple):
    """What the LLM wrote, and how many of the passages it was shown."""

    text: str
    shown: int


class FoundPassages(BaseRetriever):
    """A retriever whose search was done before.

    Args:
        passages: What was found, as the LLM reads it.
    """

    def __init__(self, passages: Sequence[str]) -> None:
        super().__init__()
        self._passages = passages

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text=text)) for text in self._passages]


class WholePrompt(PromptHelper):
    """Puts all passages into one prompt; LlamaIndex's own would count once more what is known to fit.

    Args:
        metadata: What the LLM can do.
    """

    def __init__(self, metadata: LLMMetadata) -> None:
        super().__init__(context_window=metadata.context_window, tokenizer=list)

    def repack(self, prompt: BasePromptTemplate, text_chunks: Sequence[str], *args: Any, **options: Any) -> list[str]:
        """Returns the passages as one text.

        Args:
            prompt: Not used.
            text_chunks: The passages.
            *args: Not used.
            **options: Not used.
        """
        return [BETWEEN.join(text_chunks)]


class StrictProgram(DefaultRefineProgram):
    """Asks the LLM; LlamaIndex's own takes some of an LLM's errors, and empty answers, for "Empty Response"."""

    def __call__(self, *args: Any, **values: Any) -> Any:
        """Returns the LLM's answer.

        Args:
            *args: Not used.
            **values: Of the prompt's variables.

        Raises:
            LLMUnavailableError: The LLM failed, or its answer is empty.
        """
        try:
            response = super().__call__(*args, **values)
        except (ValueError, TypeError) as error:
            raise unavailable(error) from error
        if not response.answer.strip():
            raise _empty()
        return response


class Synthesizer(CompactAndRefine):
    """LlamaIndex's own, with a program that is strict."""

    def _default_program_factory(self, prompt: BasePromptTemplate) -> StrictProgram:
        return StrictProgram(prompt, self._llm)


def write(
    llm: LLM,
    count: Count,
    question: str,
    history: Sequence[ChatMessage],
    passages: Sequence[str],
    exchange: Exchange,
) -> Written:
    """Lets the LLM answer a question from passages.

    Args:
        llm: The LLM.
        count: Returns the tokens of a text.
        question: The question.
        history: The conversation before it, oldest message first.
        passages: The numbered passages, best first; those that do not fit into the context window are left out.
        exchange: Is told the connection, and the parts if they are wanted.

    Raises:
        LLMUnavailableError: The LLM failed, or gave no answer.
        InvalidInputError: Not even one passage fits into the context window.
    """
    exchange.begin()
    try:
        window = Window(llm, count)
        said = window.latest(history)
        shown = window.fitting(question, said, passages)
        response = _engine(llm, question, said, shown, streaming=exchange.parts is not None).query(question)
        text = str(response) if exchange.parts is None else _relayed(response, exchange)
    except KnowledgeBaseError:
        raise
    except Exception as error:
        # Whatever the library or the endpoint's client comes up with is one error of ours.
        raise unavailable(error) from error
    return Written(text, len(shown))


def _engine(
    llm: LLM, question: str, said: Sequence[ChatMessage], passages: Sequence[str], *, streaming: bool
) -> RetrieverQueryEngine:
    template = _template(question, said)
    synthesizer = Synthesizer(
        llm=llm,
        callback_manager=llm.callback_manager,
        prompt_helper=WholePrompt(llm.metadata),
        chat_prompt_helper=ChatPromptHelper(tokenizer=list),
        text_qa_template=template,
        # All passages fit into one prompt: there is never an answer to refine.
        refine_template=template,
        streaming=streaming,
    )
    return RetrieverQueryEngine(FoundPassages(passages), synthesizer, callback_manager=llm.callback_manager)


def _relayed(response: Any, exchange: Exchange) -> str:
    said: list[str] = []
    # Closing it closes what it reads from, down to the connection.
    with contextlib.closing(response.response_gen) as parts:
        for part in parts:
            if part:
                said.append(part)
                exchange.hand_over(part)
    text = "".join(said)
    if not text.strip():
        raise _empty()
    return text


def _template(question: str, said: Sequence[ChatMessage]) -> ChatPromptTemplate:
    # What was said is filled in as a value: braces in it are no variables.
    messages = [Message(role=MessageRole.SYSTEM, content=prompt.INSTRUCTIONS)]
    messages += [Message(role=one["role"], content=f"{{said_{place}}}") for place, one in enumerate(said)]
    messages.append(Message(role=MessageRole.USER, content=prompt.QUESTION))
    values = {f"said_{place}": one["content"] for place, one in enumerate(said)}
    return ChatPromptTemplate(messages).partial_format(query_str=question, **values)


def _empty() -> LLMUnavailableError:
    return EmptyAnswerError("the LLM gave an empty answer; raise KB_LLM__MAX_TOKENS, or ask otherwise")
