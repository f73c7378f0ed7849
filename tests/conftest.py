"""Fixtures of every test: a real server, settings for it, and knowledge bases that leave nothing behind."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from knowledge_base.settings import Settings
from tests.support.control import Control
from tests.support.leaks import Footprint
from tests.support.server import RedisServer

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from knowledge_base import KnowledgeBase
    from tests.support.embeddings import AsyncStubEmbedding, StubEmbedding
    from tests.support.openai_endpoint import OpenAIEndpoint


class OpenKnowledgeBase(Protocol):
    """Makes a knowledge base that the fixture closes."""

    def __call__(self, embed_model: BaseEmbedding | None = None, **changes: Any) -> KnowledgeBase: ...


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("KB_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The server that most tests share; no test stops or freezes it."""
    server = RedisServer()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    return redis_server.url


@pytest.fixture(scope="session")
def control(redis_server: RedisServer) -> Iterator[Control]:
    """A plain client that looks at the server from outside."""
    client = Control(redis_server.url)
    client.ping()
    yield client
    client.close()


@pytest.fixture
def new_server() -> Iterator[Callable[..., RedisServer]]:
    """Makes servers, not yet started, for the tests that hurt them; takes the arguments of ``RedisServer``."""
    servers: list[RedisServer] = []

    def make(**options: Any) -> RedisServer:
        servers.append(RedisServer(**options))
        return servers[-1]

    yield make
    for server in servers:
        server.remove()


@pytest.fixture
def namespace() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def settings(redis_url: str, namespace: str) -> Settings:
    return Settings(redis_url=redis_url, namespace=namespace)


@pytest.fixture(scope="session")
def local_embedding() -> BaseEmbedding:
    """The real local model, loaded once."""
    from knowledge_base.embedding.local_embedding import LocalEmbedding

    model = LocalEmbedding.load()
    model.get_text_embedding("warm")
    return model


@pytest.fixture
def stub_embedding() -> Iterator[StubEmbedding]:
    """A fast model that can be told to hang, to fail or to lie; synchronous only."""
    from tests.support.embeddings import StubEmbedding

    model = StubEmbedding(model_name="stub")
    yield model
    model.become("well")


@pytest.fixture
def failing_embedding(stub_embedding: StubEmbedding) -> StubEmbedding:
    """The same model, for tests that make it fail."""
    return stub_embedding


@pytest.fixture
def async_embedding() -> Iterator[AsyncStubEmbedding]:
    """A fast model with native asynchronous methods."""
    from tests.support.embeddings import AsyncStubEmbedding

    model = AsyncStubEmbedding(model_name="async-stub")
    yield model
    model.become("well")


@pytest.fixture
async def endpoint() -> AsyncIterator[OpenAIEndpoint]:
    """A fake OpenAI-compatible endpoint over real HTTP, in the test's own loop."""
    from tests.support.openai_endpoint import OpenAIEndpoint

    async with OpenAIEndpoint() as one:
        yield one


@pytest.fixture
async def open_kb(
    settings: Settings, stub_embedding: StubEmbedding, control: Control
) -> AsyncIterator[OpenKnowledgeBase]:
    """Makes knowledge bases on the shared server (or on another, by ``redis_url=``), and closes them.

    Keyword arguments replace settings; without a model of its own each has the stub. Fails the test when a
    closed knowledge base leaves a task, a thread or a connection behind.
    """
    from knowledge_base import KnowledgeBase

    before = Footprint.taken(control)
    opened: list[KnowledgeBase] = []

    def open_one(embed_model: BaseEmbedding | None = None, **changes: Any) -> KnowledgeBase:
        changed = settings.model_copy(update=changes)
        opened.append(KnowledgeBase(changed, embed_model=embed_model or stub_embedding))
        return opened[-1]

    yield open_one
    stub_embedding.become("well")
    for one in opened:
        await one.close()
    await before.assert_regained(control)


@pytest.fixture
async def kb(open_kb: OpenKnowledgeBase, local_embedding: BaseEmbedding) -> KnowledgeBase:
    """A started knowledge base with the real local model."""
    one = open_kb(local_embedding)
    await one.start()
    return one


@pytest.fixture
async def stub_kb(open_kb: OpenKnowledgeBase) -> KnowledgeBase:
    """A started knowledge base with the stub model."""
    one = open_kb()
    await one.start()
    return one
