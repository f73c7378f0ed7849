"""A call that is too late to begin says nothing about what it would have asked."""

from __future__ import annotations

from typing import Any

import pytest

from knowledge_base.connection.deadline import deadline
from knowledge_base.errors import OperationTimeoutError


async def test_call_that_comes_too_late_is_no_failure_of_the_threads(fake_manager: Any) -> None:
    await fake_manager.start()
    async with deadline("search", 100.0) as own:
        own.expires -= 200.0
        with pytest.raises(OperationTimeoutError):
            await fake_manager.in_thread("step", lambda _: None)

    assert [one["failures"] for one in fake_manager.breakers()] == [0, 0, 0]


async def test_call_that_comes_too_late_is_no_failure_of_the_model(new_embedding_service: Any) -> None:
    service = new_embedding_service()
    await service.load()
    async with deadline("search", 100.0) as own:
        own.expires -= 200.0
        with pytest.raises(OperationTimeoutError):
            await service.embed_query("a")

    assert service.breakers()[0]["failures"] == 0
