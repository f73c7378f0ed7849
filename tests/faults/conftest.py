"""What only fault tests need."""

from __future__ import annotations

import pytest

from knowledge_base.settings import IndexingSettings, Settings

SHORT_LEASE = 1.0


@pytest.fixture
def short_lease() -> None:
    """Lets the background take over soon what a writer that was cut off has left unfinished."""


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    if "short_lease" not in request.fixturenames:
        return settings
    return settings.model_copy(update={"indexing": IndexingSettings(lease=SHORT_LEASE)})
