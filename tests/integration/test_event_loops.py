"""Other event loops than asyncio's own, and more than one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop

from knowledge_base import KnowledgeBase, KnowledgeBaseError, Settings
from tests.support.embeddings import StubEmbedding
from tests.support.facts import hit_ids


def new_base(redis_url: str) -> KnowledgeBase:
    return KnowledgeBase(Settings(redis_url=redis_url), embed_model=StubEmbedding(model_name="stub"))


def test_works_on_uvloop(redis_url: str) -> None:
    async def use() -> tuple[Any, Any]:
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
        async with new_base(redis_url) as kb:
            await kb.store_fact("penguins swim", fact_id="p")
            found = await asyncio.gather(*(kb.search(f"swimming penguins {number}") for number in range(20)))
            return found, await kb.build_context("penguins")

    found, context = uvloop.run(use())

    assert [(hit_ids(results), results["degraded"]) for results in found] == [(["p"], [])] * 20
    assert "penguins swim" in context["text"]


def test_base_of_another_loop_says_so(redis_url: str) -> None:
    kb = new_base(redis_url)

    async def use() -> None:
        await kb.store_fact("penguins swim")
        await kb.close()

    asyncio.run(use())
    other = new_base(redis_url)

    async def begin() -> None:
        await other.start()
        await other.close()

    asyncio.run(begin())

    with pytest.raises(KnowledgeBaseError, match="another event loop"):
        asyncio.run(other.close())
