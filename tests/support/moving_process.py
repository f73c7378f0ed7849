"""A process with both models that searches while another one moves the base, and tells what it saw.

Arguments: URL, namespace, number of facts. It prints one line when it is ready, and a JSON object when its standard
input ends: the outcomes of its searches, and when it first saw each generation.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

from knowledge_base import KnowledgeBase, Settings
from tests.support.embeddings import StubEmbedding
from tests.support.facts import hit_ids
from tests.support.many_facts import content
from tests.support.rebuilds import PATIENT, other_model

READY = "ready"
MODES = ("text", "vector", "hybrid")
THINKS = 0.01


async def search_all(url: str, namespace: str, facts: int) -> dict[str, Any]:
    seen: dict[int, float] = {}
    outcomes: Counter[str] = Counter()
    ends = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    settings = Settings(redis_url=url, namespace=namespace)
    model = StubEmbedding(model_name="stub")
    async with KnowledgeBase(settings, embed_model=model, next_embed_model=other_model()) as kb:
        generations = (await kb._services.start()).generations
        at = 0
        while not ends.done():
            at += 1
            number, mode = at * 7_919 % facts, MODES[at % len(MODES)]
            try:
                results = await kb.search(content(number), 5, mode=mode, timeout=PATIENT)  # type: ignore[arg-type]
            except Exception as error:
                outcomes[f"{mode}: {type(error).__name__}: {error}"] += 1
            else:
                is_right = f"f{number}" in hit_ids(results) and not results["degraded"]
                outcomes["right" if is_right else f"{mode}: wrong {results['degraded']}"] += 1
            live = await generations.current(namespace)
            if live is not None:
                seen.setdefault(live.number, time.time())
            if at == len(MODES):
                print(READY, flush=True)
            await asyncio.sleep(THINKS)
    return {"outcomes": outcomes, "seen": seen}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(search_all(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
