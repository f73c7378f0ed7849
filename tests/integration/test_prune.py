"""Retention: facts that are too old are deleted, and nothing else."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import InvalidInputError
from knowledge_base.keyspace import Keyspace
from tests.support.bookkeeping import settles
from tests.support.control import Control
from tests.support.embedded import client_of
from tests.support.facts import found, ids

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

DAY = 86_400


async def grown_old(kb: KnowledgeBase, control: Control, fact_id: str, days: float, field: str = "updated_at") -> None:
    """Makes a fact as old as if it had been changed, or stored, so many days ago."""
    keys = Keyspace(kb.settings.namespace)
    at = int((time.time() - days * DAY) * 1000)
    parts = [
        key for key in control.keys(keys.namespace) if f":{fact_id}:" in key and ("passage" in key or "section" in key)
    ]
    for key in (keys.fact(fact_id), *parts):
        control.run("HSET", key, field, at)


@pytest.fixture
async def aged(stub_kb: KnowledgeBase, control: Control) -> KnowledgeBase:
    """Facts of 1, 10 and 100 days, of different principals and tags."""
    await stub_kb.store_fact("walruses dive", fact_id="day", tags=["t"])
    await stub_kb.store_fact("penguins swim", fact_id="week", tags=["t"], principals=["user:ann"])
    await stub_kb.store_fact("puffins fly", fact_id="month", principals=["user:bob"])
    for fact_id, days in (("day", 1), ("week", 10), ("month", 100)):
        await grown_old(stub_kb, control, fact_id, days)
    return stub_kb


async def all_ids(kb: KnowledgeBase) -> set[str]:
    return await ids(kb, principals=["user:ann", "user:bob"])


@pytest.mark.parametrize("older_than", [5 * DAY, timedelta(days=5), 5.0 * DAY])
async def test_old_facts_go_whoever_may_see_them(aged: KnowledgeBase, redis_url: str, older_than: Any) -> None:
    progress: list[int] = []

    result = await aged.prune_facts(older_than, progress=lambda done, _: progress.append(done))

    assert (result["processed"], result["succeeded"], result["failed"], result["completed"]) == (2, 2, [], True)
    assert await all_ids(aged) == {"day"}
    assert await found(aged, "penguins swim puffins fly", mode="text", principals=["user:ann", "user:bob"]) == []
    assert progress[-1] == 2
    with client_of(redis_url) as client:
        assert await settles(client, aged.settings.namespace, 10.0) == []


async def test_dry_run_counts_and_deletes_nothing(aged: KnowledgeBase, control: Control, namespace: str) -> None:
    before = control.dump(namespace)

    result = await aged.prune_facts(5 * DAY, dry_run=True)

    assert (result["processed"], result["succeeded"]) == (2, 2)
    assert control.dump(namespace) == before


async def test_time_of_creation_counts_when_asked_for(aged: KnowledgeBase, control: Control) -> None:
    await grown_old(aged, control, "day", 50, "created_at")

    result = await aged.prune_facts(20 * DAY, "created_at")

    assert result["succeeded"] == 1
    assert await all_ids(aged) == {"week", "month"}


async def test_only_what_passes_the_filter_goes(aged: KnowledgeBase) -> None:
    result = await aged.prune_facts(5 * DAY, filters={"tags": "t"})

    assert result["succeeded"] == 1
    assert await all_ids(aged) == {"day", "month"}


async def test_fact_that_was_changed_lately_stays(aged: KnowledgeBase) -> None:
    await aged.update_fact("week", tags=["new"], principals=["user:ann"])

    await aged.prune_facts(5 * DAY)

    assert await all_ids(aged) == {"day", "week"}


async def test_more_than_a_page_goes(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_facts({"content": f"penguin number {number}"} for number in range(450))

    result = await stub_kb.prune_facts(0)

    assert result["succeeded"] == 450
    assert (await stub_kb.get_stats())["facts"] == 0


async def test_namespace_that_was_never_written_to_has_nothing_old(stub_kb: KnowledgeBase) -> None:
    assert (await stub_kb.prune_facts(0))["processed"] == 0


async def test_other_namespaces_are_left_alone(aged: KnowledgeBase, control: Control, namespace: str) -> None:
    other = f"{namespace}.b"
    await aged.store_fact("penguins swim", namespace=other)
    before = control.dump(other)

    await aged.prune_facts(0)

    assert control.dump(other) == before


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"older_than": -1}, "older_than"),
        ({"older_than": "90d"}, "older_than"),
        ({"older_than": True}, "older_than"),
        ({"older_than": float("nan")}, "older_than"),
        ({"older_than": float("inf")}, "older_than"),
        ({"older_than": timedelta(days=-1)}, "older_than"),
        ({"older_than": None}, "older_than"),
        ({"older_than": 1, "by": "seen_at"}, "by"),
        ({"older_than": 1, "filters": {"no": "field"}}, "filters"),
        ({"older_than": 1, "namespace": "{x}"}, "namespace"),
    ],
)
async def test_bad_arguments_are_refused(stub_kb: KnowledgeBase, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await stub_kb.prune_facts(**arguments)

    assert refused.value.field == field
