"""The embedding service before an endpoint: what is taken from Redis, what is written there, and what never is."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import AsyncIterator, Callable
from typing import Any

import fakeredis
import pytest

from knowledge_base.connection.deadline import deadline
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.embedding import service as service_module
from knowledge_base.embedding.service import EmbeddingService
from knowledge_base.errors import EmbeddingUnavailableError, UnavailableError
from knowledge_base.settings import BreakerSettings, EmbeddingSettings
from tests.support.fake_redis import Clock
from tests.support.polling import eventually
from tests.support.scripted_requests import SIZE, ScriptedRequests, StatusError, loaded, vector_for

NAMESPACE = "docs"
LONG = 100.0
SHORT = 0.05

NewService = Callable[..., EmbeddingService]


@pytest.fixture
def endpoint() -> ScriptedRequests:
    return ScriptedRequests()


@pytest.fixture
def keys(fake_server: fakeredis.FakeServer) -> Callable[[], list[str]]:
    """Looks at the server from outside."""
    client = fakeredis.FakeRedis(server=fake_server, decode_responses=True)
    return lambda: [key for key in client.keys("*") if ":query_vector:" in key]  # type: ignore[union-attr]


@pytest.fixture
async def new_service(
    endpoint: ScriptedRequests, fake_manager: AsyncRedisManager, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[NewService]:
    """Makes services of processes that share a Redis and an endpoint; arguments are those of ``loaded``."""
    made: list[EmbeddingService] = []
    await fake_manager.start()

    def at_once(texts: list[str]) -> list[list[float]]:
        endpoint.requests.append(list(texts))
        return [vector_for(text) for text in texts]

    def make(settings: dict[str, Any] | None = None, **model: Any) -> EmbeddingService:
        one = loaded(endpoint if model.get("awaits", True) else at_once, **model)
        monkeypatch.setattr(service_module, "load_model", lambda *_: one)
        made.append(
            EmbeddingService(
                EmbeddingSettings(**(settings or {})),
                timeout=LONG,
                breaker=BreakerSettings(failures=3, reset_after=10.0),
                manager=fake_manager,
                clock=clock,
            )
        )
        return made[-1]

    yield make
    for one in made:
        await one.close(LONG)


def packed(text: str) -> array[float]:
    return array("f", vector_for(text))


async def embedded(service: EmbeddingService, keys: Callable[[], list[str]], *texts: str) -> None:
    """Embeds queries, and waits until all processes know them."""
    await asyncio.gather(*(service.embed_query(text, NAMESPACE) for text in texts))
    await eventually(lambda: len(keys()) == len(texts))


async def test_only_what_no_process_knows_is_asked_of_the_endpoint(
    new_service: NewService, endpoint: ScriptedRequests, keys: Callable[[], list[str]]
) -> None:
    first, second = new_service(), new_service()
    await first.load()
    await embedded(first, keys, "a", "b")
    await second.load()

    vectors = await asyncio.gather(*(second.embed_query(text, NAMESPACE) for text in "cabd"))

    assert vectors == [packed(text) for text in "cabd"]
    assert endpoint.requests == [["a", "b"], ["c", "d"]]


async def test_what_was_found_in_redis_is_then_known_in_memory(
    new_service: NewService, endpoint: ScriptedRequests, keys: Callable[[], list[str]], fake_server: Any
) -> None:
    await embedded(new_service(), keys, "a")
    second = new_service()
    await second.embed_query("a", NAMESPACE)
    fake_server.connected = False

    assert await second.embed_query("a", NAMESPACE) == packed("a")
    assert endpoint.requests == [["a"]]


async def test_redis_that_is_away_only_costs_requests(
    new_service: NewService, endpoint: ScriptedRequests, fake_server: Any
) -> None:
    fake_server.connected = False

    for service in (new_service(), new_service()):
        assert await service.embed_query("a", NAMESPACE) == packed("a")

    assert endpoint.requests == [["a"], ["a"]]


@pytest.mark.parametrize(
    ("settings", "model", "namespace"),
    [({"shared_cache_size": 0}, {}, NAMESPACE), ({}, {"awaits": False}, NAMESPACE), ({}, {}, "")],
    ids=["switched off", "model on this machine", "nobody's"],
)
async def test_what_is_not_to_be_shared_is_not_written(
    new_service: NewService,
    keys: Callable[[], list[str]],
    settings: dict[str, Any],
    model: dict[str, Any],
    namespace: str,
) -> None:
    service = new_service(settings, **model)

    assert await service.embed_query("a", namespace) == packed("a")

    for _ in range(10):
        await asyncio.sleep(0.01)
    assert keys() == []


async def test_passages_and_probes_are_not_shared(new_service: NewService, keys: Callable[[], list[str]]) -> None:
    service = new_service()

    await service.embed_passages(["a"], NAMESPACE)
    await service.probe()
    await embedded(service, keys, "q")

    assert len(keys()) == 1


@pytest.mark.parametrize("bad", [[0.0] * SIZE, [math.nan] * SIZE, [1.0] * (SIZE + 1)], ids=str)
async def test_unusable_vector_is_kept_nowhere(
    new_service: NewService, endpoint: ScriptedRequests, keys: Callable[[], list[str]], bad: list[float]
) -> None:
    service = new_service()
    await service.load()
    endpoint.then([vector_for("a"), bad])

    outcomes = await asyncio.gather(*(service.embed_query(text, NAMESPACE) for text in "ab"), return_exceptions=True)
    await eventually(keys)

    assert [type(outcome) for outcome in outcomes] == [array, EmbeddingUnavailableError]
    assert len(keys()) == 1
    assert await service.embed_query("b", NAMESPACE) == packed("b")


async def test_model_of_another_dimension_is_not_given_these_vectors(
    new_service: NewService, endpoint: ScriptedRequests, keys: Callable[[], list[str]]
) -> None:
    await embedded(new_service(), keys, "a")
    endpoint.then([[1.0, 2.0, 3.0]])

    assert len(await new_service(dimension=3).embed_query("a", NAMESPACE)) == 3


async def test_failed_request_is_asked_again_by_the_next_caller(
    new_service: NewService, endpoint: ScriptedRequests
) -> None:
    service = new_service({"retries": 0})
    endpoint.then(StatusError(503))
    with pytest.raises(EmbeddingUnavailableError):
        await service.embed_query("a", NAMESPACE)

    assert await service.embed_query("a", NAMESPACE) == packed("a")


async def test_wait_for_redis_is_no_failure_of_the_model(
    new_service: NewService, fake_manager: AsyncRedisManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = new_service()
    await service.load()
    monkeypatch.setattr(fake_manager, "main", asyncio.Event().wait)

    for query in "abc":
        with pytest.raises(UnavailableError):
            async with deadline("search", SHORT):
                await service.embed_query(query, NAMESPACE)

    assert service.breakers()[0]["failures"] == 0


async def test_queries_that_cannot_travel_together_travel_alone(
    new_service: NewService, endpoint: ScriptedRequests
) -> None:
    service = new_service(takes_queries_together=False)
    await service.load()

    await asyncio.gather(*(service.embed_query(text) for text in "abc"), service.embed_passages(["d", "e"]))

    assert sorted(endpoint.requests) == [["a"], ["b"], ["c"], ["d", "e"]]


@pytest.mark.parametrize(("settings", "model", "most"), [(5, 2, 2), (2, 5, 2), (5, None, 5)])
async def test_batches_are_as_large_as_settings_and_model_both_allow(
    new_service: NewService, endpoint: ScriptedRequests, settings: int, model: int | None, most: int
) -> None:
    service = new_service({"batch_size": settings}, batch=model)
    texts = [f"{number}" for number in range(10)]

    await service.embed_passages(texts)
    await asyncio.gather(*(service.embed_query(text) for text in texts))

    assert [len(request) for request in endpoint.requests] == [most] * (2 * len(texts) // most)


@pytest.mark.parametrize(("awaits", "requests"), [(True, [["a", "b"]]), (False, [["a"], ["b"]])])
async def test_only_an_endpoints_texts_wait_for_others(
    new_service: NewService, endpoint: ScriptedRequests, awaits: bool, requests: list[list[str]]
) -> None:
    service = new_service({"batch_wait": 1.0, "batch_size": 2}, awaits=awaits)
    await service.load()

    first = asyncio.create_task(service.embed_query("a"))
    await asyncio.sleep(SHORT)
    await asyncio.gather(first, service.embed_query("b"))

    assert endpoint.requests == requests


async def test_close_ends_the_writing_to_redis(
    new_service: NewService, fake_manager: AsyncRedisManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = asyncio.all_tasks()
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    service = new_service(dimension=None, close=close)
    monkeypatch.setattr(fake_manager, "main", asyncio.Event().wait)
    await service.embed_query("a", NAMESPACE)
    assert asyncio.all_tasks() > before

    await service.close(LONG)

    assert asyncio.all_tasks() == before
    assert closed == [True]
