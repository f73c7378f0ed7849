"""How long anything may take."""

from __future__ import annotations

from pydantic import Field

from knowledge_base.settings.base import ONE_DAY, Seconds, SettingsPart


class Timeouts(SettingsPart):
    """Seconds that each kind of step, and each public call as a whole, may take."""

    redis: Seconds = Field(2.0, description="one Redis command, pipeline, script or page of a scan")
    connect: Seconds = Field(2.0, description="opening one connection to Redis")
    file: Seconds = Field(5.0, description="one file read or write")
    llama_index: Seconds = Field(10.0, description="one LlamaIndex insert or query in its worker thread")
    embedding: Seconds = Field(30.0, description="one request to the embedding model")
    llm: Seconds = Field(60.0, description="one request to the LLM, until its answer is whole")
    rerank: Seconds = Field(2.0, description="reranking the hits of one search; then they stay as they were")
    document: Seconds = Field(30.0, description="reading one document")
    start: Seconds = Field(60.0, description="starting the embedded server, its data loaded")
    close: Seconds = Field(5.0, description="`close()`")
    store: Seconds = Field(30.0, description="`store_fact`")
    bulk: Seconds = Field(3600.0, description="`store_facts`, `delete_facts`")
    add_document: Seconds = Field(300.0, description="`add_document`, `delete_document`")
    get: Seconds = Field(5.0, description="`get_fact`, `get_fact_history`, each page of `iter_facts`")
    update: Seconds = Field(30.0, description="`update_fact`")
    delete: Seconds = Field(5.0, description="`delete_fact`")
    search: Seconds = Field(10.0, description="`search`")
    retrieve: Seconds = Field(10.0, description="`retrieve_chunks_from_text`")
    context: Seconds = Field(10.0, description="`build_context`")
    ask: Seconds = Field(60.0, description="`ask`, `stream_answer`")
    job: Seconds = Field(
        ONE_DAY, description="`export_all_data`, `import_data`, `rebuild_search_index`, `ingest_path`, housekeeping"
    )
    check: Seconds = Field(600.0, description="`check_integrity`")
    job_call: Seconds = Field(5.0, description="`start_job`, `get_job`, `list_jobs`, `cancel_job`, `job_result`")
    stats: Seconds = Field(5.0, description="`get_stats`, `get_detailed_stats`")
    health: Seconds = Field(3.0, description="`health`")
