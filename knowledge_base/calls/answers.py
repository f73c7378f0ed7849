"""The calls that have a question answered."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from knowledge_base.answers.answerer import Question
from knowledge_base.answers.parts import Parts, streamed
from knowledge_base.calls.context import ContextCalls
from knowledge_base.facts import validation
from knowledge_base.retrieval.context_history import checked_history
from knowledge_base.settings import RetrievalConfig
from knowledge_base.types import Answer, AnswerPart, ChatMessage

if TYPE_CHECKING:
    from llama_index.core.vector_stores.types import MetadataFilters


class AnswerCalls(ContextCalls):
    """Answers from contexts; each method checks its arguments, opens the deadline, and asks one collaborator."""

    async def ask(
        self,
        question: str,
        *,
        history: Iterable[ChatMessage] = (),
        token_budget: int = 2_000,
        config: RetrievalConfig | None = None,
        namespace: str | None = None,
        principals: Iterable[str] | None = None,
        filters: Mapping[str, Any] | MetadataFilters | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Returns an LLM's answer from the passages that are found for a question.

        Args:
            question: What the user asks now.
            history: The conversation before it, oldest first; the LLM reads what user and assistant said last.
            token_budget: Tokens of all passages at most; of this and ``config.token_budget`` the smaller one counts.
            config: Which passages are wanted; without one, ``RetrievalConfig()``.

        Returns:
            The answer, the passages that it cites, and all that the LLM was given. When none are found, the LLM is not
            asked, and the answer says that there is nothing.

        Raises:
            InvalidInputError: There is no LLM either, or not even one passage fits into its context window.
            LLMUnavailableError: The LLM failed, or gave no answer.
            IndexMismatchError: The namespace was built with another embedding model.
        """
        asked = self._question(question, history, token_budget, config, namespace, principals, filters)
        async with self._services.call("ask", timeout, self.settings.timeouts.ask) as services:
            return await services.answerer.answer(asked)

    def stream_answer(
        self,
        question: str,
        *,
        history: Iterable[ChatMessage] = (),
        token_budget: int = 2_000,
        config: RetrievalConfig | None = None,
        namespace: str | None = None,
        principals: Iterable[str] | None = None,
        filters: Mapping[str, Any] | MetadataFilters | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[AnswerPart, None]:
        """Yields the parts of the answer that ``ask`` gives as they come, and the whole of it in the end.

        Whoever leaves ``contextlib.aclosing(…)`` around it before the end, or is cancelled, ends the LLM's work.

        Args:
            question: What the user asks now.
            history: As for ``ask``.
            token_budget: As for ``ask``.
            config: As for ``ask``.

        Returns:
            What is to be iterated over: ``{"delta": …}`` with the next words, again and again, and then
            ``{"answer": …}``. What came before an error is no answer.

        Raises:
            InvalidInputError: An argument is refused; at once. All other errors of ``ask`` are raised on the way.
        """
        asked = self._question(question, history, token_budget, config, namespace, principals, filters)
        budget = self.settings.timeouts.ask if timeout is None else validation.checked_seconds("timeout", timeout)

        async def work(parts: Parts) -> Answer:
            async with self._services.call("stream_answer", budget, budget) as services:
                return await services.answerer.answer(asked, parts)

        return streamed(work)

    def _question(
        self,
        question: str,
        history: Iterable[ChatMessage],
        token_budget: int,
        config: RetrievalConfig | None,
        namespace: str | None,
        principals: Iterable[str] | None,
        filters: Mapping[str, Any] | MetadataFilters | None,
    ) -> Question:
        text = validation.checked_text("question", question, self.settings.limits.query_chars)
        messages = checked_history(history, self.settings.limits)
        context = self._context_request(text, messages, token_budget, config, namespace, principals, filters)
        if messages and messages[-1]["role"] == "user" and messages[-1]["content"].strip() == text.strip():
            # Many add the question to the conversation before they ask.
            messages.pop()
        return Question(text, messages, context)
