"""Fixtures of the unit tests: a clock and a Redis that are not real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import fakeredis
import pytest

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.embedding.service import EmbeddingService
from knowledge_base.settings import BreakerSettings, EmbeddingSettings, LLMSettings, Settings
from tests.support.fake_redis import URL, Clock, fake_endpoint

if TYPE_CHECKING:
    from tests.support.answers import FoundAtOnce, NewAnswerer
    from tests.support.llms import ScriptedLLM
    from tests.support.scripted_embedding import NewService, ScriptedEmbedding


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fake_server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
async def fake_manager(
    monkeypatch: pytest.MonkeyPatch, fake_server: fakeredis.FakeServer, clock: Clock
) -> AsyncIterator[AsyncRedisManager]:
    """A manager whose Redis is ``fake_server``."""
    fake_endpoint(monkeypatch, fake_server)
    one = AsyncRedisManager(Settings(redis_url=URL), clock=clock)
    yield one
    await one.close()


@pytest.fixture
def model() -> ScriptedEmbedding:
    """A model of two dimensions that answers as it is told."""
    from tests.support.scripted_embedding import ScriptedEmbedding

    return ScriptedEmbedding(model_name="scripted", size=2)


@pytest.fixture
async def new_embedding_service(clock: Clock, model: ScriptedEmbedding) -> AsyncIterator[NewService]:
    """Makes services around that model, or around another."""
    made: list[EmbeddingService] = []

    def make(timeout: float = 100.0, given: Any = model, **settings: Any) -> EmbeddingService:
        settings.setdefault("dimension", getattr(given, "size", None))
        made.append(
            EmbeddingService(
                EmbeddingSettings(**settings),
                timeout=timeout,
                breaker=BreakerSettings(failures=3, reset_after=10.0),
                model=given,
                clock=clock,
            )
        )
        return made[-1]

    yield make
    model.become("well")
    for one in made:
        await one.close(100.0)


@pytest.fixture
def llm() -> Iterator[ScriptedLLM]:
    """An LLM that answers as it is told."""
    from tests.support.llms import ScriptedLLM

    one = ScriptedLLM()
    yield one
    one.become("well")


@pytest.fixture
def found() -> FoundAtOnce:
    """A search that finds what it is asked for."""
    from tests.support.answers import FoundAtOnce

    return FoundAtOnce()


@pytest.fixture
async def new_answerer(llm: ScriptedLLM, found: FoundAtOnce, clock: Clock) -> AsyncIterator[NewAnswerer]:
    """Makes answerers around that LLM, or around another."""
    from knowledge_base.answers.answerer import Answerer
    from tests.support.answers import BREAKER, token_counter

    made: list[Answerer] = []
    async with token_counter() as tokens:

        def make(given: Any = llm, *, timeout: float = 60.0, **settings: Any) -> Answerer:
            one = Answerer(
                LLMSettings(**settings), found, tokens, timeout=timeout, breaker=BREAKER, llm=given, clock=clock
            )
            made.append(one)
            return one

        yield make
        llm.become("well")
        for one in made:
            await one.close(10.0)
