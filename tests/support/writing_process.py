"""A process that stores fact after fact in a namespace, until its standard input says something.

Arguments: URL, namespace. It prints ``begun``, and what became of each fact.
"""

from __future__ import annotations

import asyncio
import sys

from knowledge_base import KnowledgeBase, Settings
from knowledge_base.errors import KnowledgeBaseError
from tests.support.embeddings import StubEmbedding

WRITERS = 8


async def write(url: str, namespace: str) -> None:
    stopped = asyncio.Event()
    numbers = iter(range(1_000_000))

    async def store_some(kb: KnowledgeBase) -> None:
        while not stopped.is_set():
            fact_id = f"f{next(numbers)}"
            try:
                await kb.store_fact(f"{fact_id} swims in the sea", fact_id=fact_id)
                print("stored", fact_id, flush=True)
            except KnowledgeBaseError as error:
                print("refused", type(error).__name__, flush=True)
                await asyncio.sleep(0.02)
            except Exception as error:
                print("unexpected", repr(error), flush=True)

    async with KnowledgeBase(
        Settings(redis_url=url, namespace=namespace), embed_model=StubEmbedding(model_name="stub")
    ) as kb:
        await kb.store_fact("the first one")
        print("begun", flush=True)
        writers = [asyncio.create_task(store_some(kb)) for _ in range(WRITERS)]
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        stopped.set()
        await asyncio.gather(*writers)


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], sys.argv[2]))
