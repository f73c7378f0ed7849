"""Which models are used, and how hard."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from knowledge_base.settings.base import OptionalCount, OptionalSecret, OptionalText, OptionalUrl, Seconds, SettingsPart


class EmbeddingSettings(SettingsPart):
    """Which embedding model is used, and how hard."""

    provider: Literal["local", "openai"] = Field(
        "local", description="`local`: ONNX on this machine; `openai`: any OpenAI-compatible endpoint"
    )
    model: OptionalText = Field(
        None, description="a directory with an ONNX model (`local`) or the endpoint's model name (`openai`)"
    )
    base_url: OptionalUrl = Field(None, description="the endpoint's base URL, for example `http://localhost:11434/v1`")
    api_key: OptionalSecret = Field(None, description="the endpoint's key")
    dimension: OptionalCount = Field(None, ge=1, le=32_768, description="length of the vectors, if nothing else tells")
    max_concurrent_requests: int = Field(10, ge=1, le=10_000, description="requests to the model under way at once")
    max_waiting_requests: int = Field(4_000, ge=0, le=1_000_000, description="requests that may wait for their turn")
    pool_size: int = Field(100, ge=1, le=10_000, description="HTTP connections to the endpoint")
    threads: int = Field(2, ge=1, le=64, description="worker threads for a model that runs on this machine")
    batch_size: int = Field(32, ge=1, le=2_048, description="texts of one request at most")
    batch_wait: float = Field(
        0.005,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="seconds that a text waits for others to share its request; with a model on this machine, none",
    )
    retries: int = Field(
        3, ge=0, le=20, description="how often a request that a busy endpoint refused is repeated, within the deadline"
    )
    requests_per_minute: OptionalCount = Field(None, ge=1, le=10_000_000, description="what the endpoint allows")
    tokens_per_minute: OptionalCount = Field(
        None, ge=1, le=10_000_000_000, description="tokens that the endpoint allows, taken as a third of a text's bytes"
    )
    cache_size: int = Field(10_000, ge=0, le=10_000_000, description="embeddings kept in memory")
    cache_ttl: Seconds = Field(3_600.0, description="seconds that an embedding is kept, in memory and in Redis")
    shared_cache_size: int = Field(
        2_000,
        ge=0,
        le=10_000_000,
        description="query embeddings of an endpoint that all processes share in Redis, per namespace; 0 for none",
    )
    background: float | None = Field(
        None,
        ge=0,
        lt=1,
        allow_inf_nan=False,
        description="cosine similarity of texts that have nothing in common, which counts as none; "
        "without it measured for a model on this machine, else 0",
    )
    query_prefix: str | None = Field(
        None, max_length=1_000, description="put before queries; without one, what the model's name is known to want"
    )
    passage_prefix: str | None = Field(
        None, max_length=1_000, description="put before passages; without one, what the model's name is known to want"
    )


class LLMSettings(SettingsPart):
    """Which LLM answers questions, behind any OpenAI-compatible endpoint, and how hard it is used."""

    model: OptionalText = Field(None, description="the endpoint's model name; without one, questions are not answered")
    base_url: OptionalUrl = Field(None, description="the endpoint's base URL, for example `http://localhost:11434/v1`")
    api_key: OptionalSecret = Field(None, description="the endpoint's key")
    temperature: float = Field(0.1, ge=0, le=2, allow_inf_nan=False, description="how freely the LLM chooses words")
    max_tokens: int = Field(1_024, ge=1, le=1_000_000, description="tokens of an answer at most")
    context_window: OptionalCount = Field(
        None,
        ge=1_024,
        le=100_000_000,
        description="tokens that prompt and answer have together; without it OpenAI's own figures, else 8 192",
    )
    max_concurrent_requests: int = Field(10, ge=1, le=1_000, description="requests to the LLM under way at once")
    max_waiting_requests: int = Field(100, ge=0, le=100_000, description="requests that may wait for their turn")
