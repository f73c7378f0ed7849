"""The embedding service: vectors that are cached and checked."""

from __future__ import annotations

import asyncio
import math
from array import array
from typing import Any

import pytest

from knowledge_base.embedding.service import EmbeddingIdentity
from knowledge_base.errors import EmbeddingUnavailableError
from tests.support.embeddings import StubEmbedding
from tests.support.fake_redis import Clock
from tests.support.scripted_embedding import NewService, ScriptedEmbedding


async def test_identity_is_told_by_settings_without_a_request(
    new_embedding_service: NewService, model: ScriptedEmbedding
) -> None:
    identity = await new_embedding_service(dimension=7).identity()

    assert identity == EmbeddingIdentity("ScriptedEmbedding:scripted", 7)
    assert model.texts == []


async def test_dimension_that_nothing_tells_is_asked_for_once(
    new_embedding_service: NewService, model: ScriptedEmbedding
) -> None:
    service = new_embedding_service(dimension=None)

    assert (await service.identity()).dimension == 2
    assert (await service.identity()).dimension == 2
    assert len(model.texts) == 1


@pytest.mark.parametrize("answer", [[], [[]], [[math.nan, 1.0, 1.0]], [[0.0]], [[1.0, 1.0, 1.0]] * 2], ids=repr)
async def test_dimension_is_not_learned_from_an_unusable_answer(
    new_embedding_service: NewService, model: ScriptedEmbedding, answer: Any
) -> None:
    service = new_embedding_service(dimension=None)
    model.then(answer)
    with pytest.raises(EmbeddingUnavailableError):
        await service.identity()

    assert (await service.identity()).dimension == 2
    assert len(await service.embed_passages(["a"])) == 1


async def test_queries_and_passages_become_vectors_in_order(
    new_embedding_service: NewService, stub_embedding: StubEmbedding
) -> None:
    service = new_embedding_service(given=stub_embedding, batch_size=2)
    texts = [f"text {number}" for number in range(5)]

    vectors = await service.embed_passages(texts)

    # Rounded to what the index keeps.
    assert vectors == [array("f", stub_embedding.get_text_embedding(text)).tolist() for text in texts]
    assert await service.embed_query("text 3") == array("f", vectors[3])
    assert stub_embedding.queries == ["text 3"]


async def test_passages_are_sent_in_batches(new_embedding_service: NewService, model: ScriptedEmbedding) -> None:
    service = new_embedding_service(batch_size=2, threads=1)
    model.then([[1.0, 0.0], [0.0, 1.0]], [[0.0, 2.0]])

    assert await service.embed_passages(["a", "b", "c"]) == [[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]


async def test_passage_that_is_repeated_is_embedded_once(
    new_embedding_service: NewService, model: ScriptedEmbedding
) -> None:
    service = new_embedding_service()

    one, other, again = await service.embed_passages(["a", "b", "a"])

    assert one == again
    assert one is not again
    assert model.texts == ["a", "b"]
    assert len(other) == 2


async def test_known_passage_is_not_embedded_again(new_embedding_service: NewService, model: ScriptedEmbedding) -> None:
    service = new_embedding_service()
    first = await service.embed_passages(["a"], "docs")

    assert (await service.embed_passages(["b", "a"], "docs"))[1] == first[0]
    await service.embed_passages(["a"], "other")
    await service.embed_query("a", "docs")

    assert model.texts == ["a", "b", "a"]
    assert model.queries == ["a"]


async def test_namespaces_do_not_share_what_is_known(
    new_embedding_service: NewService, model: ScriptedEmbedding
) -> None:
    service = new_embedding_service()

    assert await service.embed_query("a", "docs") == await service.embed_query("a", "other")

    assert model.queries == ["a", "a"]


@pytest.mark.parametrize("is_loaded", [True, False])
async def test_many_who_ask_the_same_are_answered_by_one_request(
    new_embedding_service: NewService, model: ScriptedEmbedding, is_loaded: bool
) -> None:
    service = new_embedding_service()
    if is_loaded:
        await service.load()

    vectors = await asyncio.gather(*(service.embed_query("a") for _ in range(500)))

    assert all(vector == vectors[0] for vector in vectors)
    assert model.queries == ["a"]


async def test_probe_asks_the_model_each_time(new_embedding_service: NewService, model: ScriptedEmbedding) -> None:
    service = new_embedding_service()

    for _ in range(2):
        await service.probe()

    assert len(model.queries) == 2
    model.become("failing")
    with pytest.raises(EmbeddingUnavailableError):
        await service.probe()


async def test_no_passages_need_no_request(new_embedding_service: NewService, model: ScriptedEmbedding) -> None:
    assert await new_embedding_service().embed_passages([]) == []
    assert model.texts == []


async def test_known_query_is_not_embedded_again(new_embedding_service: NewService, model: ScriptedEmbedding) -> None:
    service = new_embedding_service()

    first = await service.embed_query("wings")

    assert await service.embed_query("wings") == first
    assert model.queries == ["wings"]
    await service.embed_query("Wings")
    assert model.queries == ["wings", "Wings"]


async def test_cached_query_is_forgotten_when_its_time_is_over(
    new_embedding_service: NewService, model: ScriptedEmbedding, clock: Clock
) -> None:
    service = new_embedding_service(cache_ttl=60)
    await service.embed_query("wings")
    clock.pass_by(59.9)
    await service.embed_query("wings")
    assert len(model.queries) == 1

    clock.pass_by(0.1)
    await service.embed_query("wings")
    assert len(model.queries) == 2
    clock.pass_by(59.9)
    await service.embed_query("wings")

    assert len(model.queries) == 2


async def test_cache_keeps_what_was_asked_for_last(new_embedding_service: NewService, model: ScriptedEmbedding) -> None:
    service = new_embedding_service(cache_size=2)
    for query in ("a", "b", "a", "c"):
        await service.embed_query(query)
    assert model.queries == ["a", "b", "c"]

    await service.embed_query("a")
    await service.embed_query("c")
    assert model.queries == ["a", "b", "c"]
    await service.embed_query("b")

    assert model.queries == ["a", "b", "c", "b"]


async def test_cache_can_be_switched_off(new_embedding_service: NewService, model: ScriptedEmbedding) -> None:
    service = new_embedding_service(cache_size=0)

    for _ in range(2):
        await service.embed_query("a")

    assert model.queries == ["a", "a"]


async def test_failed_query_is_not_cached(new_embedding_service: NewService, model: ScriptedEmbedding) -> None:
    service = new_embedding_service()
    model.become("not a number")
    with pytest.raises(EmbeddingUnavailableError):
        await service.embed_query("a")
    model.become("well")

    assert len(await service.embed_query("a")) == 2


async def test_known_query_is_answered_although_the_model_is_down(
    new_embedding_service: NewService, model: ScriptedEmbedding
) -> None:
    service = new_embedding_service()
    known = await service.embed_query("a")
    model.become("failing")
    for _ in range(3):
        with pytest.raises(EmbeddingUnavailableError):
            await service.embed_query("b")

    assert service.breakers()[0]["state"] == "open"
    assert await service.embed_query("a") == known


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ([[1.0, 0.0]], "1 vectors for 2 texts"),
        ([[1.0, 0.0]] * 3, "3 vectors for 2 texts"),
        ([], "0 vectors for 2 texts"),
        ([[1.0, 0.0], [1.0]], "1 dimensions instead of 2"),
        ([[1.0, 0.0], [1.0, 0.0, 0.0]], "3 dimensions instead of 2"),
        ([[1.0, 0.0], [0.0, 0.0]], "zero or not finite"),
        ([[1.0, 0.0], [math.nan, 1.0]], "zero or not finite"),
        ([[1.0, 0.0], [math.inf, 1.0]], "zero or not finite"),
        ([[1.0, 0.0], [-math.inf, math.nan]], "zero or not finite"),
    ],
)
async def test_unusable_vectors_are_refused(
    new_embedding_service: NewService, model: ScriptedEmbedding, answer: Any, says: str
) -> None:
    model.then(answer)

    with pytest.raises(EmbeddingUnavailableError, match=says):
        await new_embedding_service(threads=1).embed_passages(["a", "b"])


async def test_model_that_answers_nonsense_is_not_taken_for_a_dead_one(
    new_embedding_service: NewService, model: ScriptedEmbedding
) -> None:
    service = new_embedding_service()
    model.become("wrong dimension")

    for _ in range(5):
        with pytest.raises(EmbeddingUnavailableError):
            await service.embed_query("a")

    assert service.breakers()[0]["state"] == "closed"


async def test_probe_takes_no_place_in_the_cache(new_embedding_service: NewService, model: ScriptedEmbedding) -> None:
    service = new_embedding_service(cache_size=1)
    await service.embed_query("a")

    await service.probe()
    await service.embed_query("a")

    assert model.queries.count("a") == 1
