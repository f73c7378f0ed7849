"""The background indexer: what is left to it."""

from __future__ import annotations

from typing import Any

from knowledge_base.index.background import BackgroundIndexer


async def test_what_is_left_during_a_release_is_released_too() -> None:
    released: list[str] = []
    background: Any = None

    class Pending:
        async def release(self, namespace: str, fact_ids: list[str]) -> None:
            if not released:
                background.leave(namespace, ["second"])
            released.extend(fact_ids)

    nothing: Any = None
    pending: Any = Pending()
    background = BackgroundIndexer(nothing, nothing, nothing, nothing, pending, nothing, nothing, nothing)
    background.leave("n", ["first"])

    await background._release_left()
    await background._release_left()

    assert released.count("second") == 1
