"""An async knowledge base on Redis: facts found again by meaning and by words, with every call back in time."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from knowledge_base._version import __version__

# isort: off
# fmt: off
if TYPE_CHECKING:
    from knowledge_base.connection.manager import AsyncRedisManager, get_redis_manager
    from knowledge_base.errors import (
        CircuitOpenError, DocumentNotFoundError, EmbeddingUnavailableError, FactNotFoundError, IndexMismatchError,
        InvalidInputError, KnowledgeBaseError, LLMUnavailableError, OperationTimeoutError, OverloadedError,
        PermissionDeniedError, ServerRequirementError, UnavailableError, VersionConflictError,
    )
    from knowledge_base.knowledge_base import KnowledgeBase
    from knowledge_base.settings import (
        BreakerSettings, ChunkingSettings, EmbeddingSettings, IndexingSettings, JobSettings, LLMSettings, Limits,
        RetrievalConfig, RetrievalSettings, Settings, Timeouts,
    )
    from knowledge_base.types import *  # noqa: F403 - each of them is named below

__all__ = [
    "Answer", "AnswerPart", "AsyncRedisManager", "BackupCheck", "BreakerSettings", "BulkResult", "ChatMessage",
    "ChunkWithContext", "ChunkingSettings", "CircuitOpenError", "Citation", "Context", "DetailedStats", "Document",
    "DocumentNotFoundError", "DocumentResult", "DocumentWithText", "DuplicateFact", "DuplicateGroup", "DuplicateReport",
    "EmbeddingSettings", "EmbeddingUnavailableError", "ExportReport", "Fact", "FactNotFoundError", "FactVersion",
    "Failure", "Health", "ImportReport", "IndexMismatchError", "IndexingSettings", "IngestResult", "IntegrityExample",
    "IntegrityReport", "InvalidInputError", "Job", "JobFailure", "JobSettings", "KnowledgeBase", "KnowledgeBaseError",
    "LLMSettings", "LLMUnavailableError", "Limits", "NamespaceReport", "NamespaceStats", "OperationTimeoutError",
    "OverloadedError", "ParkedFact", "PermissionDeniedError", "RAGOperationMetrics", "RebuildReport", "RetrievalConfig",
    "RetrievalSettings", "SearchHit", "SearchResults", "ServerRequirementError", "Settings", "Stats", "StoreResult",
    "Timeouts", "UnavailableError", "VersionConflictError", "__version__", "get_redis_manager",
]
# fmt: on

logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOMES = ("errors", "settings", "types", "knowledge_base", "connection.manager")


def __getattr__(name: str) -> Any:
    # Names are looked up when they are first used, so that importing the package costs next to nothing.
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"{__name__}.{home}")
            if name in vars(module):
                return globals().setdefault(name, vars(module)[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
