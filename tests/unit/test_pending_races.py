"""What must not be written over in the record of pending facts."""

from __future__ import annotations

from typing import Any

from knowledge_base.index.pending import PendingFacts
from knowledge_base.settings import IndexingSettings
from tests.support.fact_store import GENERATION, KEYS, NAMESPACE, Store
from tests.support.polling import eventually


async def test_fact_stored_anew_between_reading_and_forgetting_still_waits(fake_manager: Any, fake_server: Any) -> None:
    store = Store(fake_manager, fake_server)
    pending = PendingFacts(fake_manager, IndexingSettings(), now=lambda: store.now)
    await store.put("penguins swim", "f")
    await store.repository.delete(GENERATION, "f", [], None)  # claimed, deleted, read as gone ...
    await store.put("penguins swim", "f")  # ... stored again ...

    await pending.forget(NAMESPACE, ["f"])  # ... and forgotten

    assert store.redis.zrange(KEYS.pending, 0, -1) == ["f"]


async def test_fact_that_was_put_off_stays_so_while_its_batch_is_held(fake_manager: Any, fake_server: Any) -> None:
    store = Store(fake_manager, fake_server)
    settings = IndexingSettings(lease=0.03, retry_after=1000.0, longest_pause=2000.0)
    pending = PendingFacts(fake_manager, settings, now=lambda: store.now)
    await store.put("penguins swim", "f")
    await store.put("puffins fly", "g")
    mine = {"f", "g"}
    with pending.held(NAMESPACE, mine):
        mine.discard("f")
        await pending.refused(NAMESPACE, "f", "reason")
        store.redis.zadd(KEYS.pending, {"g": 1})
        await eventually(lambda: store.redis.zscore(KEYS.pending, "g") > 1)

    assert store.redis.zscore(KEYS.pending, "f") - store.now > 400_000
