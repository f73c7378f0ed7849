"""A fake OpenAI-compatible endpoint over real HTTP: in a test's own loop, or alone in a process.

``python -m tests.support.openai_endpoint --latency 0.1`` prints its base URL and serves until standard input
ends; what ``POST /_control`` takes is said at ``OpenAIEndpoint.obey``, and ``GET /_control`` gives the counters.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from aiohttp import web

from tests.support import openai_bodies
from tests.support.hashed_words import unit_vector
from tests.support.openai_moods import Kind, Mood, Moods

HOST = "127.0.0.1"
DEFAULT_SIZE = 32
MODEL = "test-embedding"
KEPT = 50_000
MOST_BYTES = 64 * 2**20
PIECES = 10
CLOSING_SECONDS = 0.1
NO_JSON = b"<html><body>It works!</body></html>"
WRONG_SHAPE = {"object": "list", "data": [{"embedding": "cat"}, 7], "choices": "none"}


@dataclass
class Counters:
    """What the endpoint saw; ``inputs``, ``arrivals`` and ``prompts`` keep the last ones only.

    Attributes:
        requests: Requests for embeddings.
        texts: Texts in them.
        chats: Requests for answers.
        refused: Requests that were answered with an error's status.
        cancelled: Requests whose client went away.
        now: Requests under way.
        most: Most requests that were ever under way at once.
        connections: Connections that brought a request.
        authorizations: Every ``Authorization`` header seen.
        inputs: The texts of each request for embeddings, in order of arrival.
        arrivals: When each came, in monotonic seconds.
        prompts: The messages of each request for an answer.
    """

    requests: int = 0
    texts: int = 0
    chats: int = 0
    refused: int = 0
    cancelled: int = 0
    now: int = 0
    most: int = 0
    connections: int = 0
    authorizations: set[str] = field(default_factory=set)
    inputs: deque[list[str]] = field(default_factory=lambda: deque(maxlen=KEPT))
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    prompts: deque[list[dict[str, Any]]] = field(default_factory=lambda: deque(maxlen=KEPT))

    @property
    def asked(self) -> list[str]:
        """Every text of every request, in order."""
        return [text for texts in self.inputs for text in texts]

    def numbers(self) -> dict[str, int]:
        """Returns the counts alone."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, int)}


class OpenAIEndpoint:
    """Answers ``/v1/embeddings``, ``/v1/chat/completions`` and ``/v1/models``; used as an async context manager.

    Args:
        size: Dimensions of a vector where the request asks for none.
        latency: Seconds that each answer takes.
        batch_limit: Most texts of a request; None for no limit.
        batch_status: With what more are refused.
        port: Where it listens; 0 for any free port.
    """

    def __init__(
        self,
        *,
        size: int = DEFAULT_SIZE,
        latency: float = 0.0,
        batch_limit: int | None = None,
        batch_status: int = 413,
        port: int = 0,
    ) -> None:
        self.size = size
        self.latency = latency
        self.batch_limit = batch_limit
        self.batch_status = batch_status
        self.port = port
        self.counters = Counters()
        self.answers: deque[str] = deque()
        self._moods = Moods()
        self._held: deque[asyncio.Event] = deque()
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base URL."""
        return f"http://{HOST}:{self.port}/v1"

    @property
    def held(self) -> int:
        """Requests that hang just now."""
        return len(self._held)

    async def __aenter__(self) -> OpenAIEndpoint:
        app = web.Application(client_max_size=MOST_BYTES)
        app.router.add_post("/v1/embeddings", self._embeddings)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/_control", self._control)
        app.router.add_get("/_control", self._report)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=CLOSING_SECONDS, keepalive_timeout=600
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, self.port, backlog=1_024)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        self.become("well")
        await self._runner.cleanup()

    def become(self, kind: Kind, **details: Any) -> None:
        """Sets how every request is answered from now on; those that hang are released.

        Args:
            kind: The mood.
            **details: Further fields of ``Mood``.
        """
        self._moods.become(Mood(kind, **details))
        self.release(len(self._held))

    def then(self, kind: Kind, times: int = 1, **details: Any) -> None:
        """Sets how the next requests are answered, after those that were planned before.

        Args:
            kind: The mood.
            times: How many requests.
            **details: Further fields of ``Mood``.
        """
        self._moods.plan(Mood(kind, **details), times)

    def release(self, count: int = 1) -> None:
        """Lets requests that hang be answered, the oldest first.

        Args:
            count: How many at most.
        """
        for _ in range(min(count, len(self._held))):
            self._held.popleft().set()

    def reset(self) -> None:
        """Begins to count anew."""
        under_way = self.counters.now
        self.counters = Counters(now=under_way, most=under_way)

    def vector(self, text: str, size: int | None = None) -> list[float]:
        """Returns the right vector of a text.

        Args:
            text: The text as it is sent, prefix included.
            size: Its dimensions, where not the usual.
        """
        return unit_vector(text, size or self.size)

    def obey(self, order: dict[str, Any]) -> None:
        """Does what another process wants.

        Args:
            order: Any of "reset" (true), "latency" and "batch_limit"; "become" or "then", the fields of a ``Mood``,
                and "times"; "answers", a list of answers to give.
        """
        if order.get("reset"):
            self.reset()
        self.latency = order.get("latency", self.latency)
        self.batch_limit = order.get("batch_limit", self.batch_limit)
        self.answers.extend(order.get("answers", ()))
        if "become" in order:
            self._moods.become(Mood(**order["become"]))
            self.release(len(self._held))
        if "then" in order:
            self._moods.plan(Mood(**order["then"]), order.get("times", 1))

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        counters = self.counters
        counters.requests += 1
        counters.texts += len(texts)
        counters.inputs.append(texts)
        counters.arrivals.append(time.monotonic())
        async with self._under_way(request):
            if self.batch_limit is not None and len(texts) > self.batch_limit:
                return self._refusal(self.batch_status, f"batch size {len(texts)} > {self.batch_limit}")
            mood = self._moods.next("embeddings", texts)
            if (answer := await self._before(request, mood)) is not None:
                return answer
            size = body.get("dimensions") or self.size
            sent = openai_bodies.embeddings(
                body["model"],
                [unit_vector(text, size) for text in texts],
                mood,
                packed=body.get("encoding_format") == "base64",
                tokens=sum(len(text.split()) for text in texts),
            )
            return await self._send(request, mood, json.dumps(sent).encode())

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        messages: list[dict[str, Any]] = body["messages"]
        texts = [openai_bodies.text_of(message) for message in messages]
        self.counters.chats += 1
        self.counters.prompts.append(messages)
        async with self._under_way(request):
            mood = self._moods.next("chat", texts)
            if (answer := await self._before(request, mood)) is not None:
                return answer
            said = self.answers.popleft() if self.answers else openai_bodies.quoting(messages)
            tokens = sum(len(text.split()) for text in texts)
            if not body.get("stream"):
                whole = openai_bodies.completion(body["model"], said, tokens)
                return await self._send(request, mood, json.dumps(whole).encode())
            with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            events = openai_bodies.completion_events(body["model"], said, tokens, with_usage=with_usage)
            return await self._send_events(request, mood, list(events))

    async def _models(self, request: web.Request) -> web.StreamResponse:
        mood = self._moods.next("models", ())
        if (answer := await self._before(request, mood)) is not None:
            return answer
        return await self._send(request, mood, json.dumps(openai_bodies.models(MODEL)).encode())

    async def _control(self, request: web.Request) -> web.Response:
        self.obey(await request.json())
        return web.json_response({})

    async def _report(self, request: web.Request) -> web.Response:
        report: dict[str, Any] = self.counters.numbers()
        if "inputs" in request.query:
            report["inputs"] = list(self.counters.inputs)
        return web.json_response(report)

    @contextlib.asynccontextmanager
    async def _under_way(self, request: web.Request) -> AsyncIterator[None]:
        counters = self.counters
        if request.transport not in self._seen:
            self._seen.add(request.transport)
            counters.connections += 1
        if "Authorization" in request.headers:
            counters.authorizations.add(request.headers["Authorization"])
        counters.now += 1
        counters.most = max(counters.most, counters.now)
        try:
            yield
        except asyncio.CancelledError:
            self.counters.cancelled += 1
            raise
        finally:
            # A reset meanwhile has taken those under way over.
            self.counters.now -= 1

    async def _before(self, request: web.Request, mood: Mood) -> web.StreamResponse | None:
        """Takes its time; returns an answer where the mood wants no other."""
        await asyncio.sleep(self.latency)
        if mood.kind == "hang":
            await self._hang()
        elif mood.kind == "status":
            return self._refusal(mood.status, mood.message, mood.headers())
        elif mood.kind == "no json":
            return web.Response(body=NO_JSON, content_type="text/html")
        elif mood.kind == "wrong shape":
            return web.json_response(WRONG_SHAPE)
        elif mood.kind == "cut before":
            return self._cut(request)
        return None

    async def _hang(self) -> None:
        released = asyncio.Event()
        self._held.append(released)
        try:
            await released.wait()
        finally:
            if released in self._held:
                self._held.remove(released)

    def _refusal(self, status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
        self.counters.refused += 1
        return web.json_response(openai_bodies.error(message), status=status, headers=headers)

    async def _send(self, request: web.Request, mood: Mood, body: bytes) -> web.StreamResponse:
        if mood.kind not in ("cut within", "slow body"):
            return web.Response(body=body, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
        await response.prepare(request)
        if mood.kind == "cut within":
            await response.write(body[: len(body) // 2])
            return self._cut(request, response)
        step = len(body) // PIECES + 1
        for start in range(0, len(body), step):
            await asyncio.sleep(mood.seconds / PIECES)
            await response.write(body[start : start + step])
        return response

    async def _send_events(self, request: web.Request, mood: Mood, events: Sequence[bytes]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number, event in enumerate(events):
            if mood.kind == "cut within" and number > len(events) // 2:
                return self._cut(request, response)
            if mood.kind == "slow body":
                await asyncio.sleep(mood.seconds / len(events))
            await response.write(event)
        return response

    def _cut(self, request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return response or web.Response()


async def serve(endpoint: OpenAIEndpoint) -> None:
    """Serves until standard input ends, which it does with whoever started it."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    # A daemon: an interrupt must not wait for it.
    threading.Thread(target=wait, daemon=True).start()
    async with endpoint:
        print(endpoint.base_url, flush=True)
        await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.openai_endpoint", description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that each answer takes")
    parser.add_argument("--size", type=int, default=DEFAULT_SIZE, help="dimensions of a vector")
    parser.add_argument("--port", type=int, default=0, help="where it listens; any free port by default")
    chosen = parser.parse_args()
    asyncio.run(serve(OpenAIEndpoint(size=chosen.size, latency=chosen.latency, port=chosen.port)))


if __name__ == "__main__":
    main()
