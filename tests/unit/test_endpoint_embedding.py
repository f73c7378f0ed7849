"""Vectors from an endpoint that speaks OpenAI's language: for the right texts, and refused where they are none."""

from __future__ import annotations

import asyncio
import threading
from array import array
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from knowledge_base.connection.deadline import deadline
from knowledge_base.embedding.prefixes import Prefixes
from knowledge_base.embedding.service import EmbeddingIdentity, EmbeddingService
from knowledge_base.errors import EmbeddingUnavailableError, UnavailableError
from knowledge_base.settings import BreakerSettings, EmbeddingSettings
from tests.support.polling import eventually

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from tests.support.openai_endpoint import OpenAIEndpoint

KEY = "sk-hunter2"
LONG = 60.0
SHORT = 0.3

NewRemoteService = Callable[..., EmbeddingService]


@pytest.fixture
async def new_service(endpoint: OpenAIEndpoint) -> AsyncIterator[NewRemoteService]:
    """Makes services that ask the endpoint, without repeats unless told otherwise."""
    made: list[EmbeddingService] = []

    def make(timeout: float = LONG, given: BaseEmbedding | None = None, **changes: Any) -> EmbeddingService:
        usual: dict[str, Any] = {
            "base_url": endpoint.base_url,
            "model": "m",
            "api_key": KEY,
            "dimension": endpoint.size,
        }
        settings = EmbeddingSettings(provider="openai", **{**usual, "retries": 0, **changes})
        breaker = BreakerSettings(failures=2)
        made.append(EmbeddingService(settings, timeout=timeout, breaker=breaker, model=given))
        return made[-1]

    yield make
    endpoint.become("well")
    for one in made:
        await one.close(LONG)


def packed(vector: list[float]) -> array[float]:
    return array("f", vector)


async def test_endpoint_is_asked_asynchronously(new_service: NewRemoteService, endpoint: OpenAIEndpoint) -> None:
    service = new_service(max_concurrent_requests=5, threads=1, batch_size=1)
    await service.load()
    threads = set(threading.enumerate())
    endpoint.become("hang")

    asked = [asyncio.create_task(service.embed_query(text)) for text in "abcde"]
    await eventually(lambda: endpoint.held == 5)
    own = {thread for thread in set(threading.enumerate()) - threads if thread.name.startswith("kb-")}
    endpoint.become("well")

    assert await asyncio.gather(*asked) == [packed(endpoint.vector(text)) for text in "abcde"]
    assert own == set()


async def test_texts_that_wait_at_the_same_time_share_a_request(
    new_service: NewRemoteService, endpoint: OpenAIEndpoint
) -> None:
    service = new_service(dimension=None)

    vectors = await asyncio.gather(*(service.embed_query(text) for text in "abcab"))

    assert vectors == [packed(endpoint.vector(text)) for text in "abcab"]
    assert list(endpoint.counters.inputs) == [["a", "b", "c"]]


async def test_passages_are_sent_as_one_request_a_batch(
    new_service: NewRemoteService, endpoint: OpenAIEndpoint
) -> None:
    service = new_service(batch_size=2)

    vectors = await service.embed_passages(["a", "bb", "ccc"])

    assert vectors == [packed(endpoint.vector(text)).tolist() for text in ("a", "bb", "ccc")]
    assert sorted(endpoint.counters.inputs) == [["a", "bb"], ["ccc"]]
    assert endpoint.counters.authorizations == {f"Bearer {KEY}"}


async def test_identity_names_the_model_and_asks_for_an_unknown_dimension(
    new_service: NewRemoteService, endpoint: OpenAIEndpoint
) -> None:
    assert await new_service(dimension=None).identity() == EmbeddingIdentity("openai:m", endpoint.size)
    assert endpoint.counters.requests == 1


async def test_wrong_dimension_is_refused_with_the_setting_to_check(
    new_service: NewRemoteService, endpoint: OpenAIEndpoint
) -> None:
    endpoint.become("wrong dimension")

    with pytest.raises(EmbeddingUnavailableError, match="KB_EMBEDDING__DIMENSION"):
        await new_service().embed_query("a")


async def test_vectors_in_another_order_are_given_to_the_texts_that_they_belong_to(
    new_service: NewRemoteService, endpoint: OpenAIEndpoint
) -> None:
    service = new_service()
    endpoint.become("permuted")

    passages = await service.embed_passages(list("abcde"))
    queries = await asyncio.gather(*(service.embed_query(text) for text in "vwxyz"))

    assert passages == [packed(endpoint.vector(text)).tolist() for text in "abcde"]
    assert queries == [packed(endpoint.vector(text)) for text in "vwxyz"]
    assert len(endpoint.counters.inputs) == 2


@pytest.mark.parametrize("mood", ["duplicate index", "too few", "too many"])
async def test_vectors_that_are_not_numbered_as_the_texts_are_refused(
    new_service: NewRemoteService, endpoint: OpenAIEndpoint, mood: Any
) -> None:
    service = new_service()
    endpoint.become(mood)

    for _ in range(3):
        with pytest.raises(EmbeddingUnavailableError, match="3 texts from 0 on"):
            await service.embed_passages(["a", "b", "c"])

    endpoint.become("well")
    assert len(await service.embed_passages(["a", "b", "c"])) == 3


@pytest.mark.parametrize("mood", ["no json", "wrong shape", "cut before", "cut within"])
async def test_answer_that_is_none_is_unavailable(
    new_service: NewRemoteService, endpoint: OpenAIEndpoint, mood: Any
) -> None:
    service = new_service()
    endpoint.become(mood)

    with pytest.raises(EmbeddingUnavailableError):
        await service.embed_passages(["a", "b"])

    assert service.breakers()[0]["failures"] == 1


@pytest.mark.parametrize("status", [500, 503, 429, 401, 404])
async def test_refusal_of_the_endpoint_is_ours_at_once_and_without_its_text(
    new_service: NewRemoteService, endpoint: OpenAIEndpoint, status: int
) -> None:
    service = new_service()
    endpoint.become("status", status=status, message=KEY)

    for _ in range(2):
        with pytest.raises(EmbeddingUnavailableError) as caught:
            await service.embed_query("a")
        assert KEY not in str(caught.value)

    assert endpoint.counters.requests == 2, "the request was tried again"
    assert service.breakers()[0]["state"] == "open"


async def test_busy_endpoint_is_asked_again_when_it_says(
    new_service: NewRemoteService, endpoint: OpenAIEndpoint
) -> None:
    service = new_service(retries=2)
    endpoint.then("status", status=429, retry_after=0.2)
    endpoint.then("status", status=503, retry_after=0.1)

    assert await service.embed_query("a") == packed(endpoint.vector("a"))

    first, second, third = endpoint.counters.arrivals
    assert second - first >= 0.2
    assert third - second >= 0.1
    assert service.stats()["embedding requests"]["retried"] == 2
    assert service.breakers()[0]["failures"] == 0


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_refused_text_fails_alone_and_does_not_count(
    new_service: NewRemoteService, endpoint: OpenAIEndpoint, status: int
) -> None:
    service = new_service()
    endpoint.become("status", status=status, containing="bad")

    outcomes = await asyncio.gather(
        *(service.embed_query(text) for text in ("a", "bad", "b", "c")), return_exceptions=True
    )

    assert [type(outcome) for outcome in outcomes] == [array, EmbeddingUnavailableError, array, array]
    assert endpoint.counters.inputs[0] == ["a", "bad", "b", "c"]
    assert service.breakers()[0]["failures"] == 0


async def test_batch_limit_is_learned_from_the_endpoint(
    new_service: NewRemoteService, endpoint: OpenAIEndpoint
) -> None:
    service = new_service(batch_size=16)
    endpoint.batch_limit = 4
    await service.embed_passages([f"early {number}" for number in range(16)])
    endpoint.reset()

    await service.embed_passages([f"late {number}" for number in range(16)])

    assert [len(texts) for texts in endpoint.counters.inputs] == [4] * 4
    assert endpoint.counters.refused == 0


@pytest.mark.parametrize(("at_once", "for_passages"), [(1, 1), (2, 1), (5, 4), (10, 8)])
async def test_passages_leave_places_for_queries(
    new_service: NewRemoteService, endpoint: OpenAIEndpoint, at_once: int, for_passages: int
) -> None:
    service = new_service(max_concurrent_requests=at_once, batch_size=1)
    await service.load()
    endpoint.become("hang")
    passages = asyncio.create_task(service.embed_passages([f"p{number}" for number in range(20)]))
    await eventually(lambda: endpoint.held == for_passages)
    queries = [asyncio.create_task(service.embed_query(f"q{number}")) for number in range(20)]

    await eventually(lambda: endpoint.held == at_once)
    under_way = sorted(text[0] for text in endpoint.counters.asked)
    endpoint.become("well")
    await asyncio.gather(passages, *queries)

    assert under_way == ["p"] * for_passages + ["q"] * (at_once - for_passages)
    assert endpoint.counters.most == at_once


async def test_endpoint_that_is_not_there_is_unavailable(new_service: NewRemoteService) -> None:
    with pytest.raises(EmbeddingUnavailableError):
        await new_service(base_url="http://127.0.0.1:1/v1").embed_query("a")


async def test_endpoint_that_hangs_is_given_up(new_service: NewRemoteService, endpoint: OpenAIEndpoint) -> None:
    service = new_service(timeout=SHORT)
    await new_service().load()
    endpoint.become("hang")

    with pytest.raises(UnavailableError):
        await service.embed_query("a")

    assert service.breakers()[0]["failures"] == 1
    await eventually(lambda: endpoint.counters.now == 0)


async def test_endpoint_that_hangs_is_given_up_by_the_callers_deadline(
    new_service: NewRemoteService, endpoint: OpenAIEndpoint
) -> None:
    service = new_service()
    await service.load()
    endpoint.become("hang")

    with pytest.raises(UnavailableError):
        async with deadline("search", SHORT):
            await service.embed_query("a")

    assert service.breakers()[0]["failures"] == 1
    await eventually(lambda: endpoint.counters.now == 0)


async def test_given_openai_model_is_asked_through_its_own_interface(
    new_service: NewRemoteService, endpoint: OpenAIEndpoint
) -> None:
    from llama_index.embeddings.openai import OpenAIEmbedding

    async with httpx.AsyncClient() as client:
        given = OpenAIEmbedding(model_name="m", api_base=endpoint.base_url, api_key=KEY, async_http_client=client)
        service = new_service(given=given, batch_size=2)

        queries = await asyncio.gather(*(service.embed_query(text) for text in "abc"))
        passages = await service.embed_passages(list("def"))

    assert queries == [packed(endpoint.vector(text)) for text in "abc"]
    assert passages == [packed(endpoint.vector(text)).tolist() for text in "def"]
    assert sorted(endpoint.counters.asked) == list("abcdef")


async def test_only_models_that_can_be_shortened_are_asked_to(
    new_service: NewRemoteService, endpoint: OpenAIEndpoint
) -> None:
    shortened = await new_service(model="text-embedding-3-small", dimension=3).embed_query("a")

    assert len(shortened) == 3
    with pytest.raises(EmbeddingUnavailableError, match=f"{endpoint.size} dimensions instead of 3"):
        await new_service(model="other", dimension=3).embed_query("a")


@pytest.mark.parametrize(
    ("changes", "prefixes"),
    [
        ({}, Prefixes("", "")),
        ({"model": "intfloat/e5-base-v2"}, Prefixes("query: ", "passage: ")),
        ({"model": "intfloat/e5-base-v2", "query_prefix": ""}, Prefixes("", "passage: ")),
        ({"query_prefix": "Q: ", "passage_prefix": "P: "}, Prefixes("Q: ", "P: ")),
    ],
)
async def test_prefixes_are_put_before_each_text_and_into_the_identity(
    new_service: NewRemoteService, endpoint: OpenAIEndpoint, changes: dict[str, Any], prefixes: Prefixes
) -> None:
    service = new_service(**changes)

    vectors = [await service.embed_query("a"), packed((await service.embed_passages(["b"]))[0])]
    model = (await service.identity()).model

    assert endpoint.counters.asked == [f"{prefixes.query}a", f"{prefixes.passage}b"]
    assert vectors == [packed(endpoint.vector(text)) for text in endpoint.counters.asked]
    assert (repr(prefixes.query) in model) is (prefixes != Prefixes("", ""))
    assert (repr(prefixes.passage) in model) is (prefixes != Prefixes("", ""))
