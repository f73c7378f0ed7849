"""Which prefixes a model wants, by the names under which endpoints serve it."""

from __future__ import annotations

import pytest

from knowledge_base.embedding.prefixes import wanted_prefixes

BGE = "Represent this sentence for searching relevant passages: "
INSTRUCT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "


@pytest.mark.parametrize(
    ("model", "query", "passage"),
    [
        ("intfloat/e5-base-v2", "query: ", "passage: "),
        ("intfloat/e5-small", "query: ", "passage: "),
        ("e5-large-v2", "query: ", "passage: "),
        ("intfloat/multilingual-e5-large", "query: ", "passage: "),
        ("jeffh/intfloat-multilingual-e5-base:q8_0", "query: ", "passage: "),
        ("INTFLOAT/E5-BASE-V2", "query: ", "passage: "),
        ("intfloat/multilingual-e5-large-instruct", INSTRUCT, ""),
        ("intfloat/e5-mistral-7b-instruct", INSTRUCT, ""),
        ("BAAI/bge-small-en", BGE, ""),
        ("BAAI/bge-base-en-v1.5", BGE, ""),
        ("bge-large-en-v1.5:latest", BGE, ""),
        ("mixedbread-ai/mxbai-embed-large-v1", BGE, ""),
        ("mxbai-embed-large", BGE, ""),
        ("Snowflake/snowflake-arctic-embed-m", BGE, ""),
        ("Snowflake/snowflake-arctic-embed-m-v1.5", BGE, ""),
        ("snowflake-arctic-embed:22m", BGE, ""),
        ("snowflake-arctic-embed:latest", BGE, ""),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", "query: ", ""),
        ("snowflake-arctic-embed2", "query: ", ""),
        ("snowflake-arctic-embed2:568m", "query: ", ""),
        ("nomic-ai/nomic-embed-text-v1.5", "search_query: ", "search_document: "),
        ("nomic-embed-text:latest", "search_query: ", "search_document: "),
        ("nomic-ai/nomic-embed-text-v2-moe", "search_query: ", "search_document: "),
    ],
)
def test_known_models_get_what_their_cards_say(model: str, query: str, passage: str) -> None:
    assert wanted_prefixes(model) == (query, passage)


@pytest.mark.parametrize(
    "model",
    [
        "text-embedding-3-small",
        "text-embedding-ada-002",
        "BAAI/bge-m3",
        "bge-m3:latest",
        "BAAI/bge-reranker-base",
        "thenlper/gte-base",
        "sentence-transformers/all-MiniLM-L6-v2",
        "Alibaba-NLP/gte-Qwen2-1.5B-instruct",
        "some-model-e5",
        "note5-large",
        "",
    ],
)
def test_other_models_get_none(model: str) -> None:
    assert wanted_prefixes(model) == ("", "")
