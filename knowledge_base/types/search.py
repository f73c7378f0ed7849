"""Shapes of what is found and answered."""

from __future__ import annotations

from typing import Any, TypedDict

from knowledge_base.types.common import Role, SearchMode


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
    complete: bool
    """False when the server may have cut a search short."""
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
    complete: bool
    """False when the server may have cut a search short, or nothing could be searched."""
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
