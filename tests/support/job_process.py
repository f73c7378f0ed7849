"""A process that runs a background job, and one that does not end by itself: it is killed, or told to close.

Arguments: URL, namespace, seconds of a job's lease. It prints the id of the job, and closes its base when its standard
input ends.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from knowledge_base import JobSettings, KnowledgeBase, Settings
from tests.support.embeddings import StubEmbedding


async def endless(*, repair: bool = False, namespace: str | None = None, progress: Any = None) -> dict[str, Any]:
    """Works for ever."""
    done = 0
    while True:
        await asyncio.sleep(0.01)
        done += 1
        progress(done, 1_000_000)


async def run(url: str, namespace: str, lease: float) -> None:
    settings = Settings(redis_url=url, namespace=namespace, jobs=JobSettings(lease=lease))
    async with KnowledgeBase(settings, embed_model=StubEmbedding(model_name="stub")) as kb:
        kb.check_integrity = endless  # type: ignore[method-assign, assignment]
        print((await kb.start_job("check"))["id"], flush=True)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], float(sys.argv[3])))
