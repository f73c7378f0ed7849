"""Every setting, from arguments or the environment (prefix ``KB_``, nested with ``__``)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from knowledge_base.errors import InvalidInputError

ENVIRONMENT_PREFIX = "KB_"
NAMESPACE_PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
ONE_DAY = 86_400.0
URL_OPTIONS = ("db", "username", "password")

Seconds = Annotated[float, Field(gt=0, le=ONE_DAY, allow_inf_nan=False)]
"""A duration in seconds: above zero, a day at most."""


def _refuse_clearly(error: ValidationError, prefix: str = "") -> InvalidInputError:
    first = error.errors(include_url=False, include_input=False)[0]
    path = [str(part) for part in first["loc"]]
    problem = "is no setting" if first["type"] == "extra_forbidden" else first["msg"]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInputError):
        path.append(cause.field)
        problem = cause.problem
    elif isinstance(cause, ValueError):
        problem = str(cause)
    field = ".".join(path) or "settings"
    if prefix:
        field = f"{field} ({prefix}{'__'.join(path).upper()})"
    return InvalidInputError(field, problem[0].lower() + problem[1:])


class SettingsPart(BaseModel):
    """Base of the parts of ``Settings``: immutable, and strict about names and values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _refuse_clearly(error) from None


def _unset_when_blank(value: Any) -> Any:
    # A variable that is set to nothing, as compose files do, is one that is not set.
    return None if isinstance(value, str) and not value.strip() else value


def _without_credentials(value: str | None) -> str | None:
    if value is not None and "@" in urlsplit(value).netloc:
        raise ValueError("must not hold a user or password; put the key into api_key")
    return value


OptionalText = Annotated[str | None, BeforeValidator(_unset_when_blank)]
OptionalUrl = Annotated[str | None, BeforeValidator(_unset_when_blank), AfterValidator(_without_credentials)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_unset_when_blank)]
OptionalCount = Annotated[int | None, BeforeValidator(_unset_when_blank)]


class Timeouts(SettingsPart):
    """Seconds that each kind of step, and each public call as a whole, may take."""

    redis: Seconds = Field(2.0, description="one Redis command, pipeline, script or page of a scan")
    connect: Seconds = Field(2.0, description="opening one connection to Redis")
    file: Seconds = Field(5.0, description="one file read or write")
    llama_index: Seconds = Field(10.0, description="one LlamaIndex insert or query in its worker thread")
    embedding: Seconds = Field(30.0, description="one request to the embedding model")
    llm: Seconds = Field(60.0, description="one request to the LLM, until its answer is whole")
    document: Seconds = Field(30.0, description="reading one document")
    start: Seconds = Field(60.0, description="starting the embedded server, its data loaded")
    close: Seconds = Field(5.0, description="`close()`")
    store: Seconds = Field(30.0, description="`store_fact`")
    bulk: Seconds = Field(3600.0, description="`store_facts`, `delete_facts`")
    get: Seconds = Field(5.0, description="`get_fact`, `get_fact_history`, each page of `iter_facts`")
    update: Seconds = Field(30.0, description="`update_fact`")
    delete: Seconds = Field(5.0, description="`delete_fact`")
    search: Seconds = Field(10.0, description="`search`")
    retrieve: Seconds = Field(10.0, description="`retrieve_chunks_from_text`")
    context: Seconds = Field(10.0, description="`build_context`")
    ask: Seconds = Field(60.0, description="`ask`, `stream_answer`")
    check: Seconds = Field(600.0, description="`check_integrity`")
    stats: Seconds = Field(5.0, description="`get_stats`, `get_detailed_stats`")
    health: Seconds = Field(3.0, description="`health`")


class Limits(SettingsPart):
    """How much of anything is taken, per call or at the same time."""

    pool_connections: int = Field(50, ge=1, le=10_000, description="connections in each Redis pool")
    index_threads: int = Field(4, ge=1, le=64, description="worker threads for LlamaIndex")
    index_waiting: int = Field(256, ge=0, le=100_000, description="calls that may wait for such a thread")
    content_chars: int = Field(1_000_000, ge=1, le=50_000_000, description="characters of one fact")
    metadata_bytes: int = Field(65_536, ge=2, le=16_777_216, description="bytes of one fact's metadata as JSON")
    tags: int = Field(100, ge=0, le=10_000, description="tags of one fact")
    principals: int = Field(100, ge=0, le=10_000, description="principals of one fact or caller")
    label_chars: int = Field(256, ge=1, le=4_096, description="characters of a tag, source or principal")
    query_chars: int = Field(10_000, ge=1, le=1_000_000, description="characters of a query")
    query_terms: int = Field(
        64, ge=1, le=1_024, description="words of a query, repeats included, sent to full text search"
    )
    top_k: int = Field(1_000, ge=1, le=10_000, description="hits of one search")
    page: int = Field(1_000, ge=1, le=10_000, description="facts in one answer of `get_fact`")
    offset: int = Field(1_000_000, ge=0, le=100_000_000, description="facts that `get_fact` may skip")
    filter_clauses: int = Field(64, ge=1, le=1_024, description="clauses and values of one filter")
    history: int = Field(20, ge=0, le=1_000, description="earlier versions kept of each fact")
    concurrent_stores: int = Field(8, ge=1, le=10_000, description="`store_fact` and `update_fact` under way at once")
    waiting_stores: int = Field(5_000, ge=0, le=1_000_000, description="of these, how many may wait for their turn")
    concurrent_jobs: int = Field(4, ge=1, le=1_000, description="`store_facts` and `delete_facts` under way at once")
    waiting_jobs: int = Field(100, ge=0, le=100_000, description="of these, how many may wait for their turn")
    concurrent_searches: int = Field(8, ge=1, le=10_000, description="searches under way at once")
    waiting_searches: int = Field(5_000, ge=0, le=1_000_000, description="searches that may wait for their turn")


class BreakerSettings(SettingsPart):
    """When a failing dependency is left alone, and for how long."""

    failures: int = Field(5, ge=1, le=10_000, description="failures in a row that open the circuit")
    reset_after: Seconds = Field(10.0, description="seconds until one probe is let through")


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


class IndexingSettings(SettingsPart):
    """How stored facts get their vectors."""

    lease: Seconds = Field(30.0, description="how long a fact is left to the process that gives it vectors")
    attempts: int = Field(
        8, ge=1, le=1_000, description="how often a fact is tried that the model refuses, before it is parked"
    )
    retry_after: Seconds = Field(1.0, description="the first pause after a refusal; doubled with each")
    longest_pause: Seconds = Field(300.0, description="the longest such pause")


class ChunkingSettings(SettingsPart):
    """How content is cut into passages."""

    passage_tokens: int = Field(
        254, ge=16, le=8_192, description="tokens of a passage at most; never more than the model reads"
    )
    overlap_tokens: int = Field(64, ge=0, le=4_096, description="tokens that neighbouring passages share")


class RetrievalSettings(SettingsPart):
    """How hits are found and fused."""

    candidates: int = Field(100, ge=1, le=10_000, description="passages that each retriever brings to the fusion")
    rrf_k: int = Field(60, ge=1, le=10_000, description="the constant k of reciprocal rank fusion")
    vector_share: float = Field(
        0.7, gt=0, lt=1, description="share of a hybrid search's budget after which words alone answer"
    )


class RetrievalConfig(SettingsPart):
    """What a call wants of the chunks that it gets."""

    similarity_threshold: float = Field(
        0.25, ge=0, le=1, allow_inf_nan=False, description="least similarity of a chunk to the query"
    )
    max_chunks: int = Field(5, ge=1, le=100, description="chunks at most")
    token_budget: int = Field(4_000, ge=1, le=1_000_000, description="tokens of all chunks together at most")
    merge_neighbours: bool = Field(
        True, description="whether the passages beside a chosen one are taken along where the budget allows"
    )


def _checked_namespace(value: str) -> str:
    if not NAMESPACE_PATTERN.fullmatch(value):
        raise ValueError("must match [A-Za-z0-9_.:-]{1,128}")
    return value


class Settings(BaseSettings):
    """All settings of a knowledge base.

    Each is taken from its argument, else from the environment, else from its default. The variable of
    ``timeouts.redis`` is ``KB_TIMEOUTS__REDIS``, and so on.

    Raises:
        InvalidInputError: A value is refused; the message names the setting and its variable.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", validate_default=True
    )

    redis_url: str | None = Field(
        None, description="`redis://`, `rediss://` or `unix://`; without one the embedded server is used"
    )
    namespace: Annotated[str, AfterValidator(_checked_namespace)] = Field(
        "default", description="the namespace of calls that name none"
    )
    data_dir: Path | None = Field(
        None, description="folder of the embedded server; without one the user's data directory is used"
    )
    freeze_imports: bool = Field(
        True,
        description="take what is imported at start out of the garbage collector's full runs, which would stop the "
        "event loop for 100 ms and more each",
    )
    timeouts: Timeouts = Field(default_factory=Timeouts)
    limits: Limits = Field(default_factory=Limits)
    breaker: BreakerSettings = Field(default_factory=BreakerSettings)
    embedding: EmbeddingSettings = Field(default_factory=EmbeddingSettings)
    llm: LLMSettings = Field(default_factory=LLMSettings)
    indexing: IndexingSettings = Field(default_factory=IndexingSettings)
    chunking: ChunkingSettings = Field(default_factory=ChunkingSettings)
    retrieval: RetrievalSettings = Field(default_factory=RetrievalSettings)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _refuse_clearly(error, ENVIRONMENT_PREFIX) from None
        except SettingsError as error:
            raise InvalidInputError("settings", f"the environment could not be read: {error}") from None

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: str | None) -> str | None:
        if value is None or not value.strip():
            return None
        parts = urlsplit(value)
        options = [
            name for name, _ in parse_qsl(parts.query) if not name.startswith("ssl_") and name not in URL_OPTIONS
        ]
        if options:
            raise ValueError(f"has the option {options[0][:64]!r}; take {', '.join(URL_OPTIONS)} or ssl_…")
        if parts.scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("must begin with redis://, rediss:// or unix://")
        if parts.scheme == "unix":
            if not parts.path:
                raise ValueError("names no socket; write unix:///path/to/redis.sock")
            return value
        try:
            valid = bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise ValueError("names no valid host and port")
        return value

    def __repr_args__(self) -> Any:
        for name, value in super().__repr_args__():
            yield name, redacted_url(value) if name == "redis_url" and value else value


def redacted_url(url: str) -> str:
    """Returns the URL of a server without its user, password and query.

    Args:
        url: Any URL that ``Settings.redis_url`` takes.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, f"***@{host}" if "@" in parts.netloc else host, parts.path, "", ""))


def names_database_zero(url: str) -> bool:
    """Tells whether a URL names database 0, the only one that the query engine indexes.

    Args:
        url: Any URL that ``Settings.redis_url`` takes.
    """
    parts = urlsplit(url)
    database = dict(parse_qsl(parts.query)).get("db", "0")
    if parts.scheme != "unix":
        database = parts.path.strip("/") or database
    return database == "0"
