"""``Settings``: every setting, from arguments or the environment (prefix ``KB_``, nested with ``__``)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError
from Stemmer import algorithms

from knowledge_base.errors import InvalidInputError
from knowledge_base.settings.base import ENVIRONMENT_PREFIX, refuse_clearly
from knowledge_base.settings.limits import Limits
from knowledge_base.settings.models import EmbeddingSettings, LLMSettings
from knowledge_base.settings.parts import (
    BreakerSettings,
    ChunkingSettings,
    IndexingSettings,
    JobSettings,
    RetrievalSettings,
)
from knowledge_base.settings.timeouts import Timeouts
from knowledge_base.settings.urls import check_redis_url, redacted_url

NAMESPACE_PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def _checked_namespace(value: str) -> str:
    if not NAMESPACE_PATTERN.fullmatch(value):
        raise ValueError("must match [A-Za-z0-9_.:-]{1,128}")
    return value


def _checked_language(value: str) -> str:
    known = ["auto", *algorithms()]
    if value not in known:
        raise ValueError(f"must be one of {', '.join(known)}")
    return value


class Settings(BaseSettings):
    """All settings of a knowledge base.

    Each is taken from its argument, else from the environment, else from its default. The variable of
    ``timeouts.redis`` is ``KB_TIMEOUTS__REDIS``, and so on.

    Raises:
        InvalidInputError: A value is refused; the message names the setting and its variable.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", validate_default=True
    )

    redis_url: Annotated[str | None, AfterValidator(check_redis_url)] = Field(
        None, description="`redis://`, `rediss://` or `unix://`; without one the embedded server is used"
    )
    namespace: Annotated[str, AfterValidator(_checked_namespace)] = Field(
        "default", description="the namespace of calls that name none"
    )
    language: Annotated[str, AfterValidator(_checked_language)] = Field(
        "auto",
        description="of all texts, as a Snowball name (`german`); `auto` tells English, German, French, Spanish, "
        "Italian, Portuguese, Dutch and Russian apart in each text",
    )
    data_dir: Path | None = Field(
        None, description="folder of the embedded server; without one the user's data directory is used"
    )
    freeze_imports: bool = Field(
        True,
        description="take what is imported at start out of the garbage collector's full runs, which would stop the "
        "event loop for 100 ms and more each",
    )
    timeouts: Timeouts = Field(default_factory=Timeouts)
    limits: Limits = Field(default_factory=Limits)
    breaker: BreakerSettings = Field(default_factory=BreakerSettings)
    embedding: EmbeddingSettings = Field(default_factory=EmbeddingSettings)
    next_embedding: EmbeddingSettings | None = Field(
        None,
        description="the model that the base is being moved to: `kb reindex` builds the index for it, and from the "
        "switch on it is used wherever it is configured",
    )
    llm: LLMSettings = Field(default_factory=LLMSettings)
    indexing: IndexingSettings = Field(default_factory=IndexingSettings)
    chunking: ChunkingSettings = Field(default_factory=ChunkingSettings)
    retrieval: RetrievalSettings = Field(default_factory=RetrievalSettings)
    jobs: JobSettings = Field(default_factory=JobSettings)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise refuse_clearly(error, ENVIRONMENT_PREFIX) from None
        except SettingsError as error:
            raise InvalidInputError("settings", f"the environment could not be read: {error}") from None

    def __repr_args__(self) -> Any:
        for name, value in super().__repr_args__():
            yield name, redacted_url(value) if name == "redis_url" and value else value
