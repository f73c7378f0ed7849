"""Building the embedding model that the settings name. Slow to import models live behind it: call it in a thread."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from knowledge_base.embedding.asked import Vector
from knowledge_base.embedding.prefixes import NONE, Prefixes, wanted_prefixes
from knowledge_base.errors import InvalidInputError
from knowledge_base.heavy_imports import import_heavy
from knowledge_base.settings import EmbeddingSettings

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

KNOWN_DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
"""Of OpenAI's models, as its documentation gives them."""

DEFAULT_OPENAI_MODEL = "text-embedding-3-small"

Embed: TypeAlias = Callable[[list[str]], list[Vector] | Awaitable[list[Vector]]]
"""Makes the vectors of texts, by one request."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An embedding model, and what the rest must know of it."""

    model: BaseEmbedding
    name: str
    dimension: int | None
    tokens: int | None
    tokenizer: Callable[[str], Sequence[Any]] | None
    embed_queries: Embed
    embed_passages: Embed
    awaits: bool
    """Whether what embeds really waits on the network rather than blocks the loop."""

    is_local: bool = False
    """Whether it is the package's own, which computes in the thread that calls it."""

    batch: int | None = None
    """Texts that it takes at a time, when more would only make others wait longer; None for no opinion."""

    background: float = 0.0
    """Cosine similarity that texts have which have nothing in common."""

    takes_queries_together: bool = True
    """Whether several queries may be one request; LlamaIndex's interface has no such method."""

    close: Callable[[], Awaitable[None]] | None = None
    """Closes what was opened for it."""


def load_model(settings: EmbeddingSettings, timeout: float, given: BaseEmbedding | None) -> LoadedModel:
    """Returns the model to use.

    Args:
        settings: Name it, unless one is given.
        timeout: Seconds for one request.
        given: A LlamaIndex embedding that the caller brings.

    Raises:
        InvalidInputError: The settings do not name a usable model.
        ServerRequirementError: A package is missing.
    """
    loaded = _loaded(settings, timeout, given)
    return loaded if settings.background is None else replace(loaded, background=settings.background)


def _loaded(settings: EmbeddingSettings, timeout: float, given: BaseEmbedding | None) -> LoadedModel:
    if given is not None:
        return _describe(given, settings.dimension)
    if settings.provider == "openai":
        return _openai(settings, timeout)
    local_embedding = import_heavy("knowledge_base.embedding.local_embedding")
    return _describe(
        local_embedding.LocalEmbedding.load(Path(settings.model) if settings.model else None), settings.dimension
    )


def _describe(model: BaseEmbedding, dimension: int | None) -> LoadedModel:
    local_embedding = import_heavy("knowledge_base.embedding.local_embedding")
    if isinstance(model, local_embedding.LocalEmbedding):
        local = model.local_model
        if dimension is not None and dimension != local.dimension:
            raise InvalidInputError("embedding.dimension", f"the model's vectors have {local.dimension} dimensions")
        return LoadedModel(
            model,
            local.identity,
            local.dimension,
            local.max_tokens,
            local.tokenize,
            local.embed_queries,
            local.embed_passages,
            awaits=False,
            is_local=True,
            batch=local.batch,
            background=local.background,
        )
    name = f"{type(model).__name__}:{model.model_name}"
    if _is_openai(model):
        return LoadedModel(
            model,
            name,
            dimension,
            None,
            None,
            lambda texts: _one_by_one(model, texts),
            model.aget_text_embedding_batch,
            awaits=True,
            takes_queries_together=False,
        )
    return LoadedModel(
        model,
        name,
        dimension,
        None,
        None,
        lambda texts: [model.get_query_embedding(text) for text in texts],
        model.get_text_embedding_batch,
        awaits=False,
        takes_queries_together=False,
    )


async def _one_by_one(model: BaseEmbedding, queries: Sequence[str]) -> list[Vector]:
    return [await model.aget_query_embedding(query) for query in queries]


def _is_openai(model: BaseEmbedding) -> bool:
    return any(base.__module__.startswith("llama_index.embeddings.openai") for base in type(model).__mro__)


def _openai(settings: EmbeddingSettings, timeout: float) -> LoadedModel:
    httpx = import_heavy("httpx")
    endpoint_embedding = import_heavy("knowledge_base.embedding.endpoint_embedding")
    name = settings.model or DEFAULT_OPENAI_MODEL
    if settings.api_key is None and settings.base_url is None:
        raise InvalidInputError("embedding.api_key (KB_EMBEDDING__API_KEY)", "the OpenAI endpoint needs a key")
    wanted = wanted_prefixes(name)
    prefixes = Prefixes(
        wanted.query if settings.query_prefix is None else settings.query_prefix,
        wanted.passage if settings.passage_prefix is None else settings.passage_prefix,
    )
    limits = httpx.Limits(max_connections=settings.pool_size, max_keepalive_connections=settings.pool_size)
    client = httpx.AsyncClient(limits=limits, timeout=timeout)
    model = endpoint_embedding.EndpointEmbedding(
        prefixes,
        model_name=name,
        api_base=settings.base_url,
        # Endpoints on this machine take any key, but the client refuses to start without one.
        api_key=settings.api_key.get_secret_value() if settings.api_key else "none",
        dimensions=settings.dimension if name.startswith("text-embedding-3") else None,
        embed_batch_size=settings.batch_size,
        # Repeats are ours: they know the caller's deadline.
        max_retries=0,
        timeout=timeout,
        async_http_client=client,
    )
    return LoadedModel(
        model,
        _identity(name, prefixes),
        settings.dimension or KNOWN_DIMENSIONS.get(name),
        None,
        None,
        model.aget_query_embedding_batch,
        model.aget_text_embedding_batch,
        awaits=True,
        close=client.aclose,
    )


def _identity(name: str, prefixes: Prefixes) -> str:
    if prefixes == NONE:
        return f"openai:{name}"
    return f"openai:{name} (query prefix {prefixes.query!r}, passage prefix {prefixes.passage!r})"
