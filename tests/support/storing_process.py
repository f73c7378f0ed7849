"""A process that stores facts until it is done or killed, and tells of each that was acknowledged.

Arguments: URL, namespace, mood, seconds of a lease, and the numbers of the first fact and of the one after the last.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr

from knowledge_base import KnowledgeBase, Settings
from knowledge_base.settings import IndexingSettings
from tests.support.embeddings import StubEmbedding
from tests.support.many_stores import CALLERS, content

DONE = "done"
WELL, HANGING, DYING = "well", "hanging", "dying"


class DyingEmbedding(StubEmbedding):
    """Kills its process when a vector is made and nobody has it yet."""

    _left: int = PrivateAttr(default=30)

    def _get_text_embedding(self, text: str) -> list[float]:
        vector = super()._get_text_embedding(text)
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return vector


# Vectors belong to the class of the model; these are the same.
DyingEmbedding.__name__ = StubEmbedding.__name__


async def store_all(url: str, namespace: str, mood: str, lease: float, numbers: range) -> None:
    model: Any = (DyingEmbedding if mood == DYING else StubEmbedding)(model_name="stub")
    settings = Settings(redis_url=url, namespace=namespace, indexing=IndexingSettings(lease=lease))
    todo = iter(numbers)
    async with KnowledgeBase(settings, embed_model=model) as kb:
        if mood == HANGING:
            await kb.store_fact(content(next(todo)))
            model.become("hanging")

        async def store_some() -> None:
            for number in todo:
                stored = await kb.store_fact(content(number), wait_indexed=mood != HANGING)
                print(number, stored["fact_id"], flush=True)

        await asyncio.gather(*(store_some() for _ in range(CALLERS)))
        if mood == HANGING:
            # It has taken what is pending; nothing ends it but a kill.
            await asyncio.Event().wait()
    print(DONE, flush=True)


if __name__ == "__main__":
    url, namespace, mood, lease, first, last = sys.argv[1:]
    asyncio.run(store_all(url, namespace, mood, float(lease), range(int(first), int(last))))
