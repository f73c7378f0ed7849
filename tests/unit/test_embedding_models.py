"""Building the model that the settings name, and talking to an endpoint that speaks OpenAI's language."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from knowledge_base.connection.deadline import deadline
from knowledge_base.embedding import local_embedding
from knowledge_base.embedding.models import load_model
from knowledge_base.embedding.service import EmbeddingIdentity, EmbeddingService
from knowledge_base.errors import EmbeddingUnavailableError, InvalidInputError, UnavailableError
from knowledge_base.settings import BreakerSettings, EmbeddingSettings
from tests.support.embeddings import StubEmbedding
from tests.support.polling import eventually

KEY = "sk-hunter2"
SIZE = 3
LONG = 60.0


class Endpoint(ThreadingHTTPServer):
    """A local server that answers ``POST /v1/embeddings``, as well or badly as it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.status = 200
        self.size = SIZE
        self.gate = threading.Event()
        self.gate.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append({"path": self.path, **body})
        self.server.keys.append(self.headers["Authorization"])
        self.server.gate.wait(20.0)
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        rows = [[float(len(text)), *[1.0] * (self.server.size - 1)] for text in texts]
        if body.get("encoding_format") == "base64":
            encoded: list[Any] = [base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode() for row in rows]
        else:
            encoded = list(rows)
        data = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(encoded)]
        answer = {"object": "list", "data": data, "model": body["model"], "usage": {}}
        reply = json.dumps(answer if self.server.status == 200 else {"error": {"message": KEY}}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(reply)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.gate.set()
    server.shutdown()
    server.server_close()
    thread.join()


def described(endpoint: Endpoint, **changes: Any) -> EmbeddingSettings:
    arguments: dict[str, Any] = {"provider": "openai", "base_url": endpoint.url, "model": "m", "api_key": KEY}
    return EmbeddingSettings(**{**arguments, **changes})


@pytest.fixture
async def new_service(endpoint: Endpoint) -> AsyncIterator[Callable[..., EmbeddingService]]:
    made: list[EmbeddingService] = []

    def make(timeout: float = LONG, **changes: Any) -> EmbeddingService:
        settings = described(endpoint, **changes)
        made.append(EmbeddingService(settings, timeout=timeout, breaker=BreakerSettings(failures=2)))
        return made[-1]

    yield make
    for one in made:
        await one.close(LONG)


async def test_endpoint_is_asked_asynchronously(
    new_service: Callable[..., EmbeddingService], endpoint: Endpoint
) -> None:
    service = new_service(max_concurrent_requests=5, threads=1)
    await service.load()
    threads = set(threading.enumerate())
    endpoint.gate.clear()

    asked = [asyncio.create_task(service.embed_query("x" * length)) for length in range(1, 6)]
    await eventually(lambda: len(endpoint.requests) == 5)
    own = {thread for thread in set(threading.enumerate()) - threads if thread.name.startswith("kb-")}
    endpoint.gate.set()

    assert [vector[0] for vector in await asyncio.gather(*asked)] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert own == set()


async def test_passages_are_sent_as_one_request_a_batch(
    new_service: Callable[..., EmbeddingService], endpoint: Endpoint
) -> None:
    service = new_service(batch_size=2, dimension=SIZE)

    vectors = await service.embed_passages(["a", "bb", "ccc"])

    assert [vector[0] for vector in vectors] == [1.0, 2.0, 3.0]
    assert sorted(request["input"] for request in endpoint.requests) == [["a", "bb"], ["ccc"]]
    assert {request["path"] for request in endpoint.requests} == {"/v1/embeddings"}
    assert {request["model"] for request in endpoint.requests} == {"m"}
    assert set(endpoint.keys) == {f"Bearer {KEY}"}


async def test_identity_names_the_model_and_asks_for_an_unknown_dimension(
    new_service: Callable[..., EmbeddingService], endpoint: Endpoint
) -> None:
    assert await new_service().identity() == EmbeddingIdentity("openai:m", SIZE)
    assert len(endpoint.requests) == 1


async def test_wrong_dimension_is_refused_with_the_setting_to_check(
    new_service: Callable[..., EmbeddingService], endpoint: Endpoint
) -> None:
    endpoint.size = SIZE + 1

    with pytest.raises(EmbeddingUnavailableError, match="KB_EMBEDDING__DIMENSION"):
        await new_service(dimension=SIZE).embed_query("a")


@pytest.mark.parametrize("status", [500, 503, 429, 401, 404])
async def test_refusal_of_the_endpoint_is_ours_at_once_and_without_its_text(
    new_service: Callable[..., EmbeddingService], endpoint: Endpoint, status: int
) -> None:
    service = new_service(dimension=SIZE)
    endpoint.status = status

    for _ in range(2):
        with pytest.raises(EmbeddingUnavailableError) as caught:
            await service.embed_query("a")
        assert KEY not in str(caught.value)

    assert len(endpoint.requests) == 2, "the request was tried again"
    assert service.breakers()[0]["state"] == "open"


async def test_endpoint_that_is_not_there_is_unavailable(new_service: Callable[..., EmbeddingService]) -> None:
    with pytest.raises(EmbeddingUnavailableError):
        await new_service(dimension=SIZE, base_url="http://127.0.0.1:1/v1").embed_query("a")


async def test_endpoint_that_hangs_is_given_up(
    new_service: Callable[..., EmbeddingService], endpoint: Endpoint
) -> None:
    service = new_service(timeout=0.3, dimension=SIZE)
    await new_service().load()
    endpoint.gate.clear()

    with pytest.raises(UnavailableError):
        await service.embed_query("a")

    assert service.breakers()[0]["failures"] == 1


async def test_endpoint_that_hangs_is_given_up_by_the_callers_deadline(
    new_service: Callable[..., EmbeddingService], endpoint: Endpoint
) -> None:
    service = new_service(dimension=SIZE)
    await service.load()
    endpoint.gate.clear()

    with pytest.raises(UnavailableError):
        async with deadline("search", 0.1):
            await service.embed_query("a")

    assert service.breakers()[0]["failures"] == 1


def test_endpoint_on_this_machine_needs_no_key(endpoint: Endpoint) -> None:
    loaded = load_model(described(endpoint, api_key=None), LONG, None)

    assert loaded.name == "openai:m"
    assert loaded.awaits


def test_openai_itself_needs_a_key() -> None:
    with pytest.raises(InvalidInputError, match="KB_EMBEDDING__API_KEY"):
        load_model(EmbeddingSettings(provider="openai"), LONG, None)


@pytest.mark.parametrize(
    ("model", "dimension", "found"),
    [
        (None, None, 1536),
        ("text-embedding-3-large", None, 3072),
        ("text-embedding-3-large", 256, 256),
        ("other", None, None),
        ("other", 5, 5),
    ],
)
def test_dimension_of_known_models_is_known(model: str | None, dimension: int | None, found: int | None) -> None:
    settings = EmbeddingSettings(provider="openai", model=model, dimension=dimension, api_key=KEY)

    loaded = load_model(settings, LONG, None)

    assert loaded.dimension == found
    assert loaded.name == f"openai:{model or 'text-embedding-3-small'}"


async def test_only_models_that_can_be_shortened_are_asked_to(
    new_service: Callable[..., EmbeddingService], endpoint: Endpoint
) -> None:
    await new_service(model="text-embedding-3-small", dimension=SIZE).embed_query("a")
    await new_service(model="other", dimension=SIZE).embed_query("a")

    assert [request.get("dimensions") for request in endpoint.requests] == [SIZE, None]


def test_given_model_is_used_whatever_the_settings_name(stub_embedding: StubEmbedding) -> None:
    loaded = load_model(EmbeddingSettings(provider="openai", dimension=9), LONG, stub_embedding)

    assert loaded.model is stub_embedding
    assert (loaded.name, loaded.dimension) == ("StubEmbedding:stub", 9)
    assert (loaded.tokens, loaded.tokenizer, loaded.awaits) == (None, None, False)


def test_given_openai_model_is_awaited(endpoint: Endpoint) -> None:
    given = load_model(described(endpoint), LONG, None).model

    assert load_model(EmbeddingSettings(), LONG, given).awaits


class LocalModelDouble:
    """What is asked of a local model here."""

    identity = "minilm"
    dimension = 4
    max_tokens = 128
    batch = 8

    def tokenize(self, text: str) -> list[str]:
        return text.split()


@pytest.fixture
def loaded_from(monkeypatch: pytest.MonkeyPatch) -> list[Path | None]:
    """The directories that local models were loaded from."""
    directories: list[Path | None] = []

    def load(directory: Path | None = None) -> local_embedding.LocalEmbedding:
        directories.append(directory)
        return local_embedding.LocalEmbedding(LocalModelDouble())  # type: ignore[arg-type]

    monkeypatch.setattr(local_embedding.LocalEmbedding, "load", load)
    return directories


@pytest.mark.parametrize(("model", "directory"), [(None, None), ("/models/own", Path("/models/own"))])
def test_local_model_tells_all_of_itself(
    loaded_from: list[Path | None], model: str | None, directory: Path | None
) -> None:
    loaded = load_model(EmbeddingSettings(model=model), LONG, None)

    assert loaded_from == [directory]
    assert (loaded.name, loaded.dimension, loaded.tokens, loaded.awaits) == ("minilm", 4, 128, False)
    assert loaded.batch == 8
    assert loaded.tokenizer is not None
    assert loaded.tokenizer("a b") == ["a", "b"]


def test_dimension_that_the_local_model_does_not_have_is_refused(loaded_from: list[Path | None]) -> None:
    assert load_model(EmbeddingSettings(dimension=4), LONG, None).dimension == 4

    with pytest.raises(InvalidInputError, match="4 dimensions") as caught:
        load_model(EmbeddingSettings(dimension=5), LONG, None)

    assert caught.value.field == "embedding.dimension"
