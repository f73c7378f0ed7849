"""How much of anything is taken."""

from __future__ import annotations

from pydantic import Field

from knowledge_base.settings.base import SettingsPart


class Limits(SettingsPart):
    """How much of anything is taken, per call or at the same time."""

    pool_connections: int = Field(50, ge=1, le=10_000, description="connections in each Redis pool")
    index_threads: int = Field(4, ge=1, le=64, description="worker threads for LlamaIndex")
    index_waiting: int = Field(256, ge=0, le=100_000, description="calls that may wait for such a thread")
    content_chars: int = Field(1_000_000, ge=1, le=50_000_000, description="characters of one fact")
    document_bytes: int = Field(50_000_000, ge=1, le=10_000_000_000, description="bytes of one document's file")
    document_chars: int = Field(10_000_000, ge=1, le=100_000_000, description="characters of one document's text")
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
