"""The shapes of every result: plain dicts, ready for JSON, an API response or a prompt."""

from knowledge_base.types.admin import (
    BreakerStats,
    DetailedStats,
    Health,
    IntegrityReport,
    PartHealth,
    PoolStats,
    Stats,
)
from knowledge_base.types.common import BulkResult, Failure, Metadata, OnDuplicate, OnError, Progress, Role, SearchMode
from knowledge_base.types.facts import Fact, FactVersion, ParkedFact, StoreResult
from knowledge_base.types.search import (
    Answer,
    AnswerPart,
    ChatMessage,
    ChunkWithContext,
    Citation,
    Context,
    RAGOperationMetrics,
    SearchHit,
    SearchResults,
)

__all__ = [
    "Answer",
    "AnswerPart",
    "BreakerStats",
    "BulkResult",
    "ChatMessage",
    "ChunkWithContext",
    "Citation",
    "Context",
    "DetailedStats",
    "Fact",
    "FactVersion",
    "Failure",
    "Health",
    "IntegrityReport",
    "Metadata",
    "OnDuplicate",
    "OnError",
    "ParkedFact",
    "PartHealth",
    "PoolStats",
    "Progress",
    "RAGOperationMetrics",
    "Role",
    "SearchHit",
    "SearchMode",
    "SearchResults",
    "Stats",
    "StoreResult",
]
