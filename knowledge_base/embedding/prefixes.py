"""The prefixes that models want before queries and passages, by the names under which endpoints serve them."""

from __future__ import annotations

import re
from typing import NamedTuple


class Prefixes(NamedTuple):
    """What is put before each query and each passage."""

    query: str
    passage: str


NONE = Prefixes("", "")
BGE_QUERY = "Represent this sentence for searching relevant passages: "

INSTRUCTED_QUERY = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "

# From the models' cards: intfloat/e5-*, intfloat/multilingual-e5-* and Qwen/Qwen3-Embedding-* (those that are tuned on
# instructions take a prefix before queries only), BAAI/bge-*-en*, mixedbread-ai/mxbai-embed-*,
# Snowflake/snowflake-arctic-embed-* (the second version takes a short one), nomic-ai/nomic-embed-text-*,
# google/embeddinggemma-*. BAAI/bge-m3 and thenlper/gte-* take none.
WANTED: tuple[tuple[str, Prefixes], ...] = (
    (r"e5-.*instruct|qwen3-embedding", Prefixes(INSTRUCTED_QUERY, "")),
    (r"(^|[/_-])e5-", Prefixes("query: ", "passage: ")),
    (r"bge-(small|base|large)(-en|:|$)", Prefixes(BGE_QUERY, "")),
    (r"mxbai-embed-", Prefixes(BGE_QUERY, "")),
    (r"arctic-embed(2|.*v2)", Prefixes("query: ", "")),
    (r"arctic-embed", Prefixes(BGE_QUERY, "")),
    (r"nomic-embed-text", Prefixes("search_query: ", "search_document: ")),
    (r"embeddinggemma", Prefixes("task: search result | query: ", "title: none | text: ")),
)


def wanted_prefixes(model: str) -> Prefixes:
    """Returns the prefixes that a model wants; none for a name that is not known.

    Args:
        model: The name under which an endpoint serves it, for example ``intfloat/e5-base-v2``.
    """
    name = model.lower()
    return next((prefixes for pattern, prefixes in WANTED if re.search(pattern, name)), NONE)
