"""A small chat that awaits the knowledge base, and answers also when something is away.

Run it as it is: without configuration it uses the embedded server and the local model, and answers by quoting. Name
any OpenAI-compatible chat model to have the answers written::

    export KB_LLM__BASE_URL=http://localhost:11434/v1 KB_LLM__MODEL=qwen3:4b

Transcripts go to the folder that you name, or to a temporary one. On a terminal you can go on asking.
"""

import asyncio
import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4
from weakref import WeakValueDictionary

import httpx

from knowledge_base import (
    AsyncRedisManager,
    ChatMessage,
    Citation,
    Context,
    KnowledgeBase,
    LLMSettings,
    LLMUnavailableError,
    Settings,
    UnavailableError,
)

HISTORY = 20
KEPT_SECONDS = 7 * 86_400
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
INSTRUCTIONS = (
    "Answer the customer from the numbered passages and cite them, like [1]. If they do not answer the question, "
    "say so.\n\n"
)
HANDBOOK = [
    {"content": "Refunds are paid within fourteen days, in the way that you paid.", "source": "Handbook, Refunds"},
    {"content": "Gift cards can't be refunded, but you may pass them on.", "source": "Handbook, Gift cards"},
    {"content": "The shop is closed on Sundays and on public holidays.", "source": "Handbook, Opening hours"},
    {"content": "Parcels leave on the day of the order, if it comes before noon.", "source": "Handbook, Parcels"},
]
SCRIPT = ["When is a refund paid?", "And what about gift cards?", "Is the shop open on Sundays?"]


@dataclass(frozen=True)
class Reply:
    """An answer, the passages that it cites, and what it had to do without."""

    text: str
    citations: list[Citation]
    notes: list[str]


@dataclass(frozen=True)
class Bounds:
    """Seconds that each step of an answer may take."""

    redis: float = 2.0
    file: float = 5.0
    context: float = 5.0
    llm: float = 20.0


class LanguageModel:
    """A chat model behind an OpenAI-compatible endpoint, over one HTTP client for life."""

    def __init__(self, settings: LLMSettings) -> None:
        assert settings.base_url, "name the endpoint: KB_LLM__BASE_URL"
        key = settings.api_key.get_secret_value() if settings.api_key else "none"
        self._model = settings.model
        self._client = httpx.AsyncClient(
            base_url=settings.base_url,
            headers={"Authorization": f"Bearer {key}"},
            limits=httpx.Limits(max_connections=settings.max_concurrent_requests),
            timeout=60,
        )

    async def complete(self, messages: Sequence[ChatMessage]) -> str:
        """Returns the model's answer, or raises ``LLMUnavailableError``."""
        try:
            response = await self._client.post("chat/completions", json={"model": self._model, "messages": messages})
            response.raise_for_status()
            text: str = response.json()["choices"][0]["message"]["content"]
            return text.strip()
        except httpx.HTTPStatusError as error:
            raise LLMUnavailableError(f"it answered with HTTP status {error.response.status_code}") from error
        except httpx.HTTPError as error:
            raise LLMUnavailableError("it can't be reached") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise LLMUnavailableError("it didn't answer as a chat model does") from error

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


def append_atomically(path: Path, text: str) -> None:
    """Appends to a file: after a crash at any moment it is as before or has all of the text."""
    old = path.read_bytes() if path.exists() else b""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(old + text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    # The folder too: without it the move itself could be lost with the power.
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


@asynccontextmanager
async def step(loss: str, seconds: float, notes: list[str]) -> AsyncIterator[None]:
    """Bounds a step that the answer can do without; when it fails, a note says what is lost and why."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (UnavailableError, OSError) as error:
        notes.append(f"{loss}: {str(error) or f'not done within {seconds:g} s'}")


def quotation(context: Context) -> tuple[str, list[Citation]]:
    """Returns the best passage as an answer, for when no language model writes one, and its citation."""
    for best in context["citations"]:
        return f"{best['content']} [{best['number']}]", [best]
    return "I know nothing that would answer that.", []


def cited(text: str, context: Context) -> list[Citation]:
    """Returns the citations that a text names, like [1] or [1, 2]."""
    numbers = {int(number) for group in re.findall(r"\[([\d, ]+)\]", text) for number in re.findall(r"\d+", group)}
    return [citation for citation in context["citations"] if citation["number"] in numbers]


class ChatWorkflow:
    """Conversations side by side; the messages of each are answered one after the other.

    What is away is left out and named in the reply's notes; no step waits longer than its bound.

    Args:
        kb: Gives the context of each answer.
        redis: Keeps the conversations.
        transcripts: Folder of the transcripts, one file for each conversation.
        llm: Writes the answers; without one, the best passage is quoted.
        bounds: How long each step may take.
    """

    def __init__(
        self,
        kb: KnowledgeBase,
        redis: AsyncRedisManager,
        transcripts: Path,
        llm: LanguageModel | None = None,
        bounds: Bounds = Bounds(),
    ) -> None:
        self._kb = kb
        self._redis = redis
        self._transcripts = transcripts
        self._llm = llm
        self._bounds = bounds
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # A single thread: a write that is late still comes before the next one.
        self._writer = ThreadPoolExecutor(1, "transcripts")

    async def answer(self, conversation: str, question: str) -> Reply:
        """Answers the next message of a conversation.

        Args:
            conversation: Its name: letters, digits, ``_`` and ``-``.
            question: What the user says.
        """
        if not NAME.fullmatch(conversation):
            raise ValueError("a conversation's name has 1 to 64 letters, digits, _ or -")
        turn = self._turns.setdefault(conversation, asyncio.Lock())
        async with turn:
            notes: list[str] = []
            history = await self._history(conversation, notes)
            context = await self._context(question, history, notes)
            text, citations = await self._answer(question, history, context, notes)
            said: list[ChatMessage] = [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
            await asyncio.gather(self._remember(conversation, said, notes), self._write(conversation, said, notes))
            return Reply(text, citations, notes)

    async def close(self) -> None:
        """Closes what is the workflow's own; waits for no write that is late."""
        self._writer.shutdown(wait=False, cancel_futures=True)
        if self._llm is not None:
            await self._llm.close()

    async def _history(self, conversation: str, notes: list[str]) -> list[ChatMessage]:
        stored: list[str] = []
        async with step("without what was said before", self._bounds.redis, notes):
            client = await self._redis.main()
            stored = await client.lrange(f"chat:{conversation}", -HISTORY, -1)
        return [json.loads(message) for message in stored]

    async def _context(self, question: str, history: Sequence[ChatMessage], notes: list[str]) -> Context:
        context = await self._kb.build_context(
            question, history=history, on_error="empty", timeout=self._bounds.context
        )
        if context["reason"]:
            notes.append(f"without context: {context['reason']}")
        elif context["degraded"]:
            notes.append(f"found without: {', '.join(context['degraded'])}")
        return context

    async def _answer(
        self, question: str, history: Sequence[ChatMessage], context: Context, notes: list[str]
    ) -> tuple[str, list[Citation]]:
        if self._llm is None:
            return quotation(context)
        system: ChatMessage = {"role": "system", "content": INSTRUCTIONS + (context["text"] or "(no passages)")}
        async with step("without the language model", self._bounds.llm, notes):
            text = await self._llm.complete([system, *history, {"role": "user", "content": question}])
            return text, cited(text, context)
        return quotation(context)

    async def _remember(self, conversation: str, said: Sequence[ChatMessage], notes: list[str]) -> None:
        key = f"chat:{conversation}"
        async with step("not remembered", self._bounds.redis, notes):
            pipeline = (await self._redis.main()).pipeline()
            pipeline.rpush(key, *(json.dumps(message) for message in said))
            pipeline.ltrim(key, -HISTORY, -1)
            pipeline.expire(key, KEPT_SECONDS)
            await pipeline.execute()

    async def _write(self, conversation: str, said: Sequence[ChatMessage], notes: list[str]) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        lines = "".join(json.dumps({"at": now, **message}) + "\n" for message in said)
        path = self._transcripts / f"{conversation}.jsonl"
        async with step("not in the transcript", self._bounds.file, notes):
            await asyncio.get_running_loop().run_in_executor(self._writer, append_atomically, path, lines)


async def typed_lines() -> AsyncIterator[str]:
    """Yields what is typed on the terminal, line by line, without blocking the loop."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, lambda: lines.put_nowait(sys.stdin.readline()))
    try:
        while line := await lines.get():
            if line.strip():
                yield line.strip()
    finally:
        loop.remove_reader(sys.stdin)


async def show(chat: ChatWorkflow, conversation: str, question: str) -> None:
    """Prints the answer to a question, with its citations."""
    reply = await chat.answer(conversation, question)
    print(f"> {question}\n{reply.text}")
    for citation in reply.citations:
        print(f"  [{citation['number']}] {citation['source']}")
    for note in reply.notes:
        print(f"  ({note})")


async def main() -> None:
    """Holds a short conversation, and goes on with it on a terminal."""
    # Redis is given up before the chat's own bound, so that the circuit breaker sees that it was late.
    settings = Settings(namespace=os.environ.get("KB_NAMESPACE", "shop"), timeouts={"redis": 1.5})
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="chat-"))
    redis = AsyncRedisManager(settings)
    kb = KnowledgeBase(settings, redis=redis)
    chat = ChatWorkflow(kb, redis, folder, LanguageModel(settings.llm) if settings.llm.base_url else None)
    try:
        try:
            await kb.store_facts(HANDBOOK)
        except UnavailableError as error:
            print(f"The handbook is not stored: {error}")
        conversation = uuid4().hex
        for question in SCRIPT:
            await show(chat, conversation, question)
        if sys.stdin.isatty():
            async for question in typed_lines():
                await show(chat, conversation, question)
    finally:
        await chat.close()
        await kb.close()
        await redis.close()
    print(f"Transcripts: {folder}")


if __name__ == "__main__":
    asyncio.run(main())
