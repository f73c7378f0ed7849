"""The bodies that an OpenAI-compatible endpoint answers with."""

from __future__ import annotations

import base64
import json
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.support.openai_moods import Mood

PASSAGE = re.compile(r"(?:\[1\]|Source 1:)\s*(.+?)(?=\n\s*(?:\[\d+\]|Source \d+:|-{3,})|\n\s*\n|\Z)", re.DOTALL)
SENTENCE = re.compile(r".+?[.!?](?=\s|$)", re.DOTALL)
NOTHING_TO_QUOTE = "I do not know."
CREATED = 1_700_000_000


def error(message: str) -> dict[str, Any]:
    """Returns the body of a refusal."""
    return {"error": {"message": message, "type": "test_error", "param": None, "code": None}}


def embeddings(model: str, vectors: list[list[float]], mood: Mood, *, packed: bool, tokens: int) -> dict[str, Any]:
    """Returns the body with vectors.

    Args:
        model: Name of the model.
        vectors: The right ones.
        mood: What is wrong with them.
        packed: As base64 rather than numbers.
        tokens: Of all texts.
    """
    sent = mood.spoil(vectors)
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(sent[place]) if packed else sent[place]}
        for place, index in mood.order(len(sent))
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": model, "data": data, "usage": usage}


def quoting(messages: Sequence[Mapping[str, Any]]) -> str:
    """Returns an answer that quotes the first numbered passage of a prompt.

    Args:
        messages: The conversation.
    """
    passages = [found for message in reversed(messages) for found in PASSAGE.findall(text_of(message))]
    if not passages:
        return NOTHING_TO_QUOTE
    whole = " ".join(passages[0].split())
    first = SENTENCE.match(whole)
    return f"{first.group() if first else whole} [1]"


def text_of(message: Mapping[str, Any]) -> str:
    """Returns the text of a message, whichever way it is written.

    Args:
        message: One of a conversation.
    """
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content)


def completion(model: str, answer: str, prompt_tokens: int) -> dict[str, Any]:
    """Returns the body of a whole answer."""
    message = {"role": "assistant", "content": answer}
    return {
        "id": "chatcmpl-test",
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": _usage(prompt_tokens, answer),
    }


def completion_events(model: str, answer: str, prompt_tokens: int, *, with_usage: bool) -> Iterator[bytes]:
    """Yields the server-sent events of an answer, a word at a time."""

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        chunk = {"id": "chatcmpl-test", "object": "chat.completion.chunk", "created": CREATED, "model": model}
        return f"data: {json.dumps({**chunk, 'choices': choices, **more})}\n\n".encode()

    def delta(content: dict[str, Any], reason: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": content, "finish_reason": reason}]

    yield event(delta({"role": "assistant", "content": ""}))
    for word in re.findall(r"\S+\s*", answer):
        yield event(delta({"content": word}))
    yield event(delta({}, "stop"))
    if with_usage:
        yield event([], usage=_usage(prompt_tokens, answer))
    yield b"data: [DONE]\n\n"


def models(name: str) -> dict[str, Any]:
    """Returns the body with the one model that there is."""
    one = {"id": name, "object": "model", "created": CREATED, "owned_by": "tests"}
    return {"object": "list", "data": [one]}


def _packed(vector: list[float]) -> str:
    return base64.b64encode(array("f", vector).tobytes()).decode()


def _usage(prompt_tokens: int, answer: str) -> dict[str, int]:
    said = len(answer.split())
    return {"prompt_tokens": prompt_tokens, "completion_tokens": said, "total_tokens": prompt_tokens + said}
