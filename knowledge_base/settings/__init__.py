"""Every setting, from arguments or the environment."""

from knowledge_base.settings.base import (
    ENVIRONMENT_PREFIX,
    ONE_DAY,
    OptionalCount,
    OptionalSecret,
    OptionalText,
    OptionalUrl,
    Seconds,
    SettingsPart,
    refuse_clearly,
)
from knowledge_base.settings.limits import Limits
from knowledge_base.settings.models import EmbeddingSettings, LLMSettings
from knowledge_base.settings.parts import (
    BreakerSettings,
    ChunkingSettings,
    IndexingSettings,
    JobSettings,
    RetrievalConfig,
    RetrievalSettings,
)
from knowledge_base.settings.settings import NAMESPACE_PATTERN, Settings
from knowledge_base.settings.timeouts import Timeouts
from knowledge_base.settings.urls import URL_OPTIONS, check_redis_url, names_database_zero, redacted_url

__all__ = [
    "ENVIRONMENT_PREFIX",
    "NAMESPACE_PATTERN",
    "ONE_DAY",
    "URL_OPTIONS",
    "BreakerSettings",
    "ChunkingSettings",
    "EmbeddingSettings",
    "IndexingSettings",
    "JobSettings",
    "LLMSettings",
    "Limits",
    "OptionalCount",
    "OptionalSecret",
    "OptionalText",
    "OptionalUrl",
    "RetrievalConfig",
    "RetrievalSettings",
    "Seconds",
    "Settings",
    "SettingsPart",
    "Timeouts",
    "check_redis_url",
    "names_database_zero",
    "redacted_url",
    "refuse_clearly",
]
