"""What only fault tests need."""

from __future__ import annotations

import pytest

LEASE_MS = 1_000


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the background take over soon what a writer that was cut off has left unfinished."""
    monkeypatch.setattr("knowledge_base.facts.repository.FOREGROUND_MS", LEASE_MS)
    monkeypatch.setattr("knowledge_base.index.indexer.LEASE_MS", LEASE_MS)
