"""Building the model that the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from knowledge_base.embedding import local_embedding
from knowledge_base.embedding.models import load_model
from knowledge_base.errors import InvalidInputError
from knowledge_base.settings import EmbeddingSettings
from tests.support.embeddings import StubEmbedding

KEY = "sk-hunter2"
URL = "http://nobody.invalid/v1"
LONG = 60.0


def described(**changes: Any) -> EmbeddingSettings:
    arguments: dict[str, Any] = {"provider": "openai", "base_url": URL, "model": "m", "api_key": KEY}
    return EmbeddingSettings(**{**arguments, **changes})


def test_endpoint_on_this_machine_needs_no_key() -> None:
    loaded = load_model(described(api_key=None), LONG, None)

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


def test_given_model_is_used_whatever_the_settings_name(stub_embedding: StubEmbedding) -> None:
    loaded = load_model(EmbeddingSettings(provider="openai", dimension=9), LONG, stub_embedding)

    assert loaded.model is stub_embedding
    assert (loaded.name, loaded.dimension) == ("StubEmbedding:stub", 9)
    assert (loaded.tokens, loaded.tokenizer, loaded.awaits) == (None, None, False)
    # LlamaIndex's interface has a batch for passages only.
    assert not loaded.takes_queries_together
    assert loaded.embed_queries(["a", "b"]) == [stub_embedding.get_query_embedding(text) for text in "ab"]


def test_given_openai_model_is_awaited() -> None:
    given = load_model(described(), LONG, None).model

    assert load_model(EmbeddingSettings(), LONG, given).awaits


class LocalModelDouble:
    """What is asked of a local model here."""

    identity = "minilm"
    dimension = 4
    max_tokens = 128
    batch = 8
    background = 0.25

    def tokenize(self, text: str) -> list[str]:
        return text.split()

    def embed_queries(self, texts: list[str]) -> list[list[float]]:
        return [[1.0, 0.0, 0.0, 0.0] for _ in texts]

    def embed_passages(self, texts: list[str]) -> list[list[float]]:
        return [[0.0, 1.0, 0.0, 0.0] for _ in texts]


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
    assert (loaded.batch, loaded.is_local, loaded.takes_queries_together) == (8, True, True)
    assert loaded.background == 0.25
    assert loaded.embed_queries(["a", "b"]) == [[1.0, 0.0, 0.0, 0.0]] * 2
    assert loaded.embed_passages(["a"]) == [[0.0, 1.0, 0.0, 0.0]]
    assert loaded.tokenizer is not None
    assert loaded.tokenizer("a b") == ["a", "b"]


def test_dimension_that_the_local_model_does_not_have_is_refused(loaded_from: list[Path | None]) -> None:
    assert load_model(EmbeddingSettings(dimension=4), LONG, None).dimension == 4

    with pytest.raises(InvalidInputError, match="4 dimensions") as caught:
        load_model(EmbeddingSettings(dimension=5), LONG, None)

    assert caught.value.field == "embedding.dimension"
