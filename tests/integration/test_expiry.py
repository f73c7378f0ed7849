"""Facts that end by themselves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.control import Control
from tests.support.facts import found, ids, only
from tests.support.polling import eventually

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

SOON = 0.8


def gone(kb: KnowledgeBase, fact_id: str) -> Callable[[], Any]:
    async def check() -> bool:
        return not await kb.get_fact(fact_id)

    return check


@pytest.mark.parametrize("expires_in", [3600, 3600.0, timedelta(hours=1)], ids=repr)
async def test_fact_says_when_it_expires(stub_kb: KnowledgeBase, expires_in: Any) -> None:
    stored = await stub_kb.store_fact("words", expires_in=expires_in)

    fact = await only(stub_kb, stored["fact_id"])

    lasts = datetime.fromisoformat(fact["expires_at"]) - datetime.fromisoformat(fact["created_at"])
    assert lasts / timedelta(seconds=1) == pytest.approx(3600, abs=1)


async def test_expired_fact_is_gone_everywhere(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("penguins stay", fact_id="stays", tags=["t"], source="s")
    await stub_kb.store_fact("penguins leave", fact_id="leaves", tags=["t", "u"], source="s", expires_in=SOON)
    before = await ids(stub_kb)

    await eventually(gone(stub_kb, "leaves"))

    assert before == {"stays", "leaves"}
    assert await ids(stub_kb) == {"stays"}
    assert await ids(stub_kb, query="penguins") == {"stays"}
    assert await ids(stub_kb, filters={"tags": "t"}) == {"stays"}
    assert [fact["id"] async for fact in stub_kb.iter_facts()] == ["stays"]
    assert await stub_kb.delete_fact("leaves") is False
    assert (await stub_kb.delete_facts({"tags": "u"}, dry_run=True))["succeeded"] == 0
    for mode in ("hybrid", "vector", "text"):
        assert await found(stub_kb, "penguins leave", mode=mode) == ["stays"]


async def test_statistics_count_no_expired_fact(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("penguins stay", tags=["t"], source="s")
    await stub_kb.store_fact("penguins leave", fact_id="leaves", tags=["t", "u"], source="s", expires_in=SOON)
    before = await stub_kb.get_detailed_stats()

    await eventually(gone(stub_kb, "leaves"))

    async def counted() -> bool:
        stats = await stub_kb.get_detailed_stats()
        counts = (stats["facts"], stats["passages"], stats["pending"], stats["tags"], stats["sources"])
        return counts == (1, 1, 0, {"t": 1}, {"s": 1})

    assert (before["facts"], before["tags"], before["sources"]) == (2, {"t": 2, "u": 1}, {"s": 2})
    await eventually(counted)


async def test_expired_fact_leaves_no_key(stub_kb: KnowledgeBase, namespace: str, control: Control) -> None:
    await stub_kb.store_fact("penguins leave", fact_id="leaves", expires_in=SOON)
    await stub_kb.update_fact("leaves", content="penguins leave soon")
    await eventually(gone(stub_kb, "leaves"))

    async def swept() -> bool:
        await stub_kb.get_stats()
        return not [key for key in control.keys(namespace) if "leaves" in key or ":passage" in key]

    await eventually(swept)


async def test_text_of_an_expired_fact_may_be_stored_again(stub_kb: KnowledgeBase) -> None:
    first = await stub_kb.store_fact("penguins", expires_in=SOON)
    await eventually(gone(stub_kb, first["fact_id"]))

    second = await stub_kb.store_fact("penguins", fact_id="second")

    assert second["status"] == "success"
    assert await found(stub_kb, "penguins") == ["second"]


async def test_id_of_an_expired_fact_is_free_and_new(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("penguins", fact_id="f", expires_in=SOON)
    await eventually(gone(stub_kb, "f"))

    result = await stub_kb.store_fact("walruses", fact_id="f")

    fact = await only(stub_kb, "f")
    assert (result["status"], fact["version"], fact["expires_at"]) == ("success", 1, None)
    assert len(await stub_kb.get_fact_history("f")) == 1


async def test_update_keeps_the_end(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("penguins", fact_id="f", expires_in=SOON)
    ends = (await only(stub_kb, "f"))["expires_at"]

    updated = await stub_kb.update_fact("f", content="walruses", metadata={"n": 1})

    assert updated["expires_at"] == ends
    await eventually(gone(stub_kb, "f"))
    assert await found(stub_kb, "walruses") == []


async def test_fact_that_lasts_does_not_expire_with_the_others(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("penguins", fact_id="short", expires_in=SOON)
    await stub_kb.store_fact("penguins too", fact_id="long", expires_in=60)

    await eventually(gone(stub_kb, "short"))

    assert await ids(stub_kb) == {"long"}
    assert await found(stub_kb, "penguins") == ["long"]
