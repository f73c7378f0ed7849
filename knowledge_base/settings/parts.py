"""The smaller parts of the settings."""

from __future__ import annotations

from pydantic import Field

from knowledge_base.settings.base import OptionalText, Seconds, SettingsPart


class BreakerSettings(SettingsPart):
    """When a failing dependency is left alone, and for how long."""

    failures: int = Field(5, ge=1, le=10_000, description="failures in a row that open the circuit")
    reset_after: Seconds = Field(10.0, description="seconds until one probe is let through")


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


class JobSettings(SettingsPart):
    """How background jobs are recorded."""

    lease: Seconds = Field(30.0, description="how long after the last sign of its process a job counts as lost")
    keep_days: float = Field(
        7.0, gt=0, le=3_650, allow_inf_nan=False, description="days that a job is kept after its end"
    )
    records: int = Field(1_000, ge=1, le=10_000, description="jobs on record; the oldest that have ended give way")


class RetrievalSettings(SettingsPart):
    """How hits are found and fused."""

    candidates: int = Field(100, ge=1, le=10_000, description="passages that each retriever brings to the fusion")
    vector_weight: float = Field(
        0.5, ge=0, le=1, allow_inf_nan=False, description="share that the meaning has in a hybrid search's score"
    )
    vector_share: float = Field(
        0.7, gt=0, lt=1, description="share of a hybrid search's budget after which words alone answer"
    )
    reranker: OptionalText = Field(
        None, description="a directory with a cross-encoder in ONNX; with one, searches are reranked"
    )
    rerank_candidates: int = Field(
        30, ge=1, le=1_000, description="hits that a reranker is given; as many as are asked for when those are more"
    )
    rerank_threads: int = Field(2, ge=1, le=64, description="worker threads for reranking")


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
