"""The fake endpoint does what it is told to, and the real client understands it."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from tests.support.openai_endpoint import MODEL, OpenAIEndpoint
from tests.support.openai_process import EndpointProcess
from tests.support.polling import eventually

KEY = "sk-test"
QUESTION = [
    {"role": "user", "content": "Passages:\n[1] Penguins swim. They eat fish.\n[2] Walruses dive.\n\nWho swims?"}
]


@pytest.fixture
async def client(endpoint: OpenAIEndpoint) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=endpoint.base_url, api_key=KEY, max_retries=0, timeout=10) as one:
        yield one


async def embed(client: openai.AsyncOpenAI, *texts: str, **more: Any) -> list[list[float]]:
    answer = await client.embeddings.create(input=list(texts), model=MODEL, **more)
    return [datum.embedding for datum in answer.data]


@pytest.mark.parametrize("more", [{}, {"encoding_format": "float"}, {"dimensions": 7}], ids=str)
async def test_vectors_are_those_of_the_texts(
    endpoint: OpenAIEndpoint, client: openai.AsyncOpenAI, more: dict[str, Any]
) -> None:
    vectors = await embed(client, "penguins swim", "walruses", **more)

    for text, vector in zip(("penguins swim", "walruses"), vectors, strict=True):
        assert vector == pytest.approx(endpoint.vector(text, more.get("dimensions")))
    assert (endpoint.counters.requests, endpoint.counters.texts, endpoint.counters.most) == (1, 2, 1)
    assert endpoint.counters.asked == ["penguins swim", "walruses"]
    assert endpoint.counters.authorizations == {f"Bearer {KEY}"}


async def test_a_single_text_need_not_be_in_a_list(endpoint: OpenAIEndpoint, client: openai.AsyncOpenAI) -> None:
    answer = await client.embeddings.create(input="penguins", model=MODEL)

    assert answer.data[0].embedding == pytest.approx(endpoint.vector("penguins"))
    assert (answer.data[0].index, answer.usage.prompt_tokens) == (0, 1)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, openai.AuthenticationError),
        (408, openai.APIStatusError),
        (409, openai.ConflictError),
        (429, openai.RateLimitError),
        (503, openai.InternalServerError),
    ],
)
async def test_it_refuses_the_next_requests_only(
    endpoint: OpenAIEndpoint, client: openai.AsyncOpenAI, status: int, error: type[openai.APIStatusError]
) -> None:
    endpoint.then("status", status=status, retry_after=2)

    with pytest.raises(error) as refused:
        await embed(client, "penguins")
    again = await embed(client, "penguins")

    assert (refused.value.status_code, refused.value.response.headers["retry-after"]) == (status, "2")
    assert len(again) == 1
    assert (endpoint.counters.requests, endpoint.counters.refused) == (2, 1)


async def test_retry_after_can_be_a_date(endpoint: OpenAIEndpoint, client: openai.AsyncOpenAI) -> None:
    endpoint.become("status", status=429, retry_after=2, dated=True)

    with pytest.raises(openai.RateLimitError) as refused:
        await embed(client, "penguins")

    assert refused.value.response.headers["retry-after"].endswith("GMT")


async def test_it_hangs_until_it_is_released(endpoint: OpenAIEndpoint, client: openai.AsyncOpenAI) -> None:
    endpoint.become("hang", containing="penguins")
    hanging = [asyncio.create_task(embed(client, f"penguins {number}")) for number in range(3)]
    await eventually(lambda: endpoint.held == 3)

    other = await embed(client, "walruses")
    endpoint.release()
    done, left = await asyncio.wait(hanging, return_when=asyncio.FIRST_COMPLETED)
    endpoint.become("well")
    await asyncio.gather(*left)

    assert len(other) == len(done) == 1
    assert endpoint.counters.most == 4


async def test_clients_that_go_away_are_counted(endpoint: OpenAIEndpoint, client: openai.AsyncOpenAI) -> None:
    endpoint.become("hang")
    hanging = asyncio.create_task(embed(client, "penguins"))
    await eventually(lambda: endpoint.held)

    hanging.cancel()

    await eventually(lambda: endpoint.counters.cancelled == 1)
    assert (endpoint.counters.now, endpoint.held) == (0, 0)


@pytest.mark.parametrize("kind", ["cut before", "cut within"])
async def test_connections_are_cut(endpoint: OpenAIEndpoint, client: openai.AsyncOpenAI, kind: Any) -> None:
    endpoint.then(kind)

    with pytest.raises((openai.APIConnectionError, httpx.RemoteProtocolError)):
        await embed(client, "penguins")

    assert len(await embed(client, "penguins")) == 1
    assert endpoint.counters.connections == 2


async def test_bodies_are_garbage(endpoint: OpenAIEndpoint) -> None:
    async with httpx.AsyncClient(base_url=endpoint.base_url) as client:
        request = {"input": ["penguins"], "model": MODEL}
        endpoint.then("no json")
        no_json = await client.post("/embeddings", json=request)
        endpoint.then("wrong shape")
        wrong_shape = await client.post("/embeddings", json=request)

    with pytest.raises(json.JSONDecodeError):
        no_json.json()
    assert wrong_shape.json()["data"] != []


async def test_slow_bodies_are_whole_in_the_end(endpoint: OpenAIEndpoint, client: openai.AsyncOpenAI) -> None:
    endpoint.become("slow body", seconds=0.05)

    assert (await embed(client, "penguins"))[0] == pytest.approx(endpoint.vector("penguins"))


@pytest.mark.parametrize(("kind", "count"), [("too few", 2), ("too many", 4)])
async def test_vectors_are_missing_or_too_many(
    endpoint: OpenAIEndpoint, client: openai.AsyncOpenAI, kind: Any, count: int
) -> None:
    endpoint.become(kind)

    assert len(await embed(client, "a", "b", "c")) == count


@pytest.mark.parametrize(("kind", "indices"), [("permuted", [1, 2, 0]), ("duplicate index", [0, 0, 0])])
async def test_vectors_are_out_of_order(
    endpoint: OpenAIEndpoint, client: openai.AsyncOpenAI, kind: Any, indices: list[int]
) -> None:
    endpoint.become(kind)
    texts = ["penguins", "walruses", "puffins"]

    answer = await client.embeddings.create(input=texts, model=MODEL)

    assert [datum.index for datum in answer.data] == indices
    if kind == "permuted":
        for datum in answer.data:
            assert datum.embedding == pytest.approx(endpoint.vector(texts[datum.index]))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("only_last", [True, False])
@pytest.mark.parametrize("kind", ["wrong dimension", "not a number", "infinite", "zero"])
async def test_vectors_are_spoilt(
    endpoint: OpenAIEndpoint, client: openai.AsyncOpenAI, kind: Any, only_last: bool, packed: bool
) -> None:
    endpoint.become(kind, only_last=only_last)

    first, last = await embed(client, "a", "b", **({} if packed else {"encoding_format": "float"}))

    def good(vector: list[float]) -> bool:
        return len(vector) == endpoint.size and math.isfinite(sum(vector)) and any(vector)

    assert (good(first), good(last)) == (only_last, False)


async def test_big_batches_are_refused(endpoint: OpenAIEndpoint, client: openai.AsyncOpenAI) -> None:
    endpoint.batch_limit = 2

    with pytest.raises(openai.APIStatusError) as refused:
        await embed(client, "a", "b", "c")

    assert refused.value.status_code == 413
    assert len(await embed(client, "a", "b")) == 2


async def test_answers_quote_the_first_passage(endpoint: OpenAIEndpoint, client: openai.AsyncOpenAI) -> None:
    chat: Any = client.chat.completions
    endpoint.answers.append("As you said.")

    scripted = await chat.create(model="test", messages=QUESTION)
    plain = await chat.create(model="test", messages=QUESTION)
    parts = [part async for part in await chat.create(model="test", messages=QUESTION, stream=True)]
    unknown = await chat.create(model="test", messages=[{"role": "user", "content": "Who swims?"}])

    assert scripted.choices[0].message.content == "As you said."
    assert plain.choices[0].message.content == "Penguins swim. [1]"
    assert "".join(part.choices[0].delta.content or "" for part in parts) == "Penguins swim. [1]"
    assert len(parts) > 3
    assert unknown.choices[0].message.content == "I do not know."
    assert endpoint.counters.chats == 4


async def test_a_stream_is_cut(endpoint: OpenAIEndpoint, client: openai.AsyncOpenAI) -> None:
    endpoint.become("cut within", path="chat")
    chat: Any = client.chat.completions

    with pytest.raises((httpx.RemoteProtocolError, openai.APIConnectionError)):
        async for _ in await chat.create(model="test", messages=QUESTION, stream=True):
            pass

    assert len(await embed(client, "penguins")) == 1


async def test_models_are_listed(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]


def test_a_process_of_its_own_is_controlled_from_outside() -> None:
    with EndpointProcess(size=8) as process, httpx.Client(base_url=process.base_url) as client:
        request = {"input": ["penguins"], "model": MODEL}
        process.become("status", status=503)
        refused = client.post("/embeddings", json=request)
        process.become("well")
        process.tell(latency=0.01, reset=True)
        answered = client.post("/embeddings", json=request)
        counters, inputs = process.counters(), process.inputs()

    assert (refused.status_code, answered.status_code) == (503, 200)
    assert (counters["requests"], counters["refused"], counters["now"]) == (1, 0, 0)
    assert inputs == [["penguins"]]
