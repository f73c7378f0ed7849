"""The shapes of every result: plain dicts, ready for JSON, an API response or a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, TypedDict

SearchMode: TypeAlias = Literal["hybrid", "vector", "text"]
"""How a search finds: by meaning and words, by meaning, or by words."""

OnDuplicate: TypeAlias = Literal["return", "update", "error"]
"""What ``store_fact`` does when the fact is there already."""

Role: TypeAlias = Literal["user", "assistant", "system"]
"""Who says something in a conversation."""

OnError: TypeAlias = Literal["raise", "empty"]
"""What ``build_context`` does when something cannot be reached: raise the error, or give an empty context."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with what is done and what there is in all."""

Metadata: TypeAlias = Mapping[str, Any]
"""What a caller says about a fact: any JSON object."""


class Fact(TypedDict):
    """A stored fact."""

    id: str
    content: str
    metadata: dict[str, Any]
    tags: list[str]
    source: str | None
    namespace: str
    principals: list[str]
    version: int
    created_at: str
    updated_at: str
    expires_at: str | None
    indexed: bool


class FactVersion(TypedDict):
    """An earlier or the current version of a fact."""

    version: int
    content: str
    metadata: dict[str, Any]
    tags: list[str]
    source: str | None
    updated_at: str


class StoreResult(TypedDict):
    """What became of one fact that was to be stored."""

    status: Literal["success", "duplicate"]
    fact_id: str
    version: int
    indexed: bool


class Failure(TypedDict, total=False):
    """One item of a bulk call that failed; exactly one key beside ``error`` says which."""

    index: int
    line: int
    path: str
    id: str
    error: str


class BulkResult(TypedDict):
    """What became of the items of a bulk call."""

    processed: int
    succeeded: int
    duplicates: int
    failed: list[Failure]
    completed: bool


class SearchHit(TypedDict):
    """One passage that was found."""

    fact_id: str
    document_id: str | None
    content: str
    score: float
    scores: dict[str, float]
    metadata: dict[str, Any]
    tags: list[str]
    source: str | None
    position: int


class SearchResults(TypedDict):
    """The hits of a search, best first, and how whole the answer is."""

    hits: list[SearchHit]
    mode: SearchMode
    degraded: list[str]
    complete: bool
    took_ms: float


class ChunkWithContext(TypedDict):
    """One or several neighbouring passages of a fact, as they are put into a prompt."""

    id: str
    """Node id of its first passage."""
    doc_id: str
    """The document it is from; of a fact that is from none, the fact's id."""
    chunk_index: int
    """Place of its first passage within the fact, from 0 on."""
    content: str
    section_path: list[str]
    section_title: str | None
    page_start: int | None
    page_end: int | None
    similarity: float
    """Cosine similarity of its best passage to the query, cut to 0 and 1; of what has no vector, and where the query
    has none, the share of the query's words that the passage has."""
    tokens: int
    """Tokens of ``content``."""


class RAGOperationMetrics(TypedDict):
    """What one retrieval did. Nothing in it is content."""

    candidates: int
    """Passages that the retrievers found."""
    above_threshold: int
    """Of these, those whose similarity reaches the threshold."""
    returned: int
    """Chunks that were returned."""
    tokens: int
    """Tokens of all that was returned."""
    similarity_min: float | None
    similarity_avg: float | None
    similarity_median: float | None
    similarity_max: float | None
    similarity_histogram: list[int]
    """Candidates by similarity, ten bins of equal width from 0 to 1; what is below 0 counts as 0."""
    degraded: list[str]
    """Retrievers that could not answer."""
    stages: dict[str, float]
    """Milliseconds of each stage."""
    took_ms: float


class ChatMessage(TypedDict):
    """One message of a conversation."""

    role: Role
    content: str


class Citation(TypedDict):
    """What stands behind a number of a context's text."""

    number: int
    fact_id: str
    document_id: str | None
    source: str | None
    content: str
    similarity: float
    chunk_index: int
    section_title: str | None
    page_start: int | None
    page_end: int | None


class Context(TypedDict):
    """Numbered passages for a prompt, and what stands behind each number."""

    text: str
    citations: list[Citation]
    tokens: int
    """Tokens of ``text``."""
    query: str
    """What was searched for: the question, with what it takes from the conversation."""
    degraded: list[str]
    """Retrievers that could not answer."""
    reason: str | None
    """Why there is no text; None where there is some."""


class Answer(TypedDict):
    """What the LLM answered from the passages that were found."""

    answer: str
    citations: list[Citation]
    """The passages that the answer cites, by their numbers in square brackets."""
    passages: list[Citation]
    """All passages that the LLM was given."""
    degraded: list[str]


class AnswerPart(TypedDict, total=False):
    """A part of an answer: its next words, or, as the last one, all of it; exactly one key is there."""

    delta: str
    answer: Answer


class ParkedFact(TypedDict):
    """A fact that is found by words only, since giving it vectors failed again and again."""

    id: str
    reason: str
    attempts: int
    since: str


class IntegrityReport(TypedDict):
    """What waits in a namespace, and what was given up."""

    namespace: str
    facts: int
    pending: int
    parked: list[ParkedFact]
    repaired: int
    ok: bool


class Stats(TypedDict):
    """Counts of one namespace."""

    namespace: str
    facts: int
    passages: int
    pending: int
    parked: int
    embedding_model: str | None
    dimension: int | None


class PoolStats(TypedDict):
    """One pool of connections or threads."""

    connections: int
    in_use: int
    waiting: int
    limit: int
    waiting_limit: int | None
    """How many may wait before others are refused; None where only time limits that."""
    retried: int
    """Exchanges that were repeated since their connection had died."""
    abandoned: int
    """Threads that are busy although their caller has gone."""


class BreakerStats(TypedDict):
    """One circuit breaker."""

    name: str
    state: Literal["closed", "open", "half_open"]
    failures: int
    opened: int
    retry_after: float


class DetailedStats(Stats):
    """Counts of one namespace, and the state of what serves it."""

    tags: dict[str, int]
    sources: dict[str, int]
    index_name: str | None
    index_bytes: int
    index_failures: int
    redis_memory_bytes: int
    redis_version: str
    search_version: str | None
    pools: dict[str, PoolStats]
    breakers: list[BreakerStats]


class PartHealth(TypedDict):
    """One part that a knowledge base depends on."""

    ok: bool
    detail: str
    took_ms: float


class Health(TypedDict):
    """Whether a knowledge base runs and can serve."""

    live: bool
    ready: bool
    parts: dict[str, PartHealth]
